"""The weights of the step at which held-out pictures were denoised best, kept beside the checkpoints."""

import shutil
import sys
from typing import TYPE_CHECKING

import torch

from . import checkpoint as checkpoints
from .checkpoint import Checkpoint
from .sharding import gathered, put
from .stopping import best_step

if TYPE_CHECKING:
    from .trainer import Trainer

FOLDER = "best"
"""Within the run's folder."""


def keep(run: "Trainer") -> None:
    """As they would be given out now. The best up to the newest checkpoint stays too: a run that goes back to it may go another way."""
    if run.folder is None:
        return
    with run.shown():
        weights = {name: p.detach().clone() for name, p in gathered(run.weights, run.processes).items()}
    if not run.processes.main:
        return
    checkpoints.save(run.folder / FOLDER, Checkpoint(run.done, weights, {}, {}), keep=sys.maxsize)
    before = max((step for step in kept(run) if step <= (run.saved_at or 0)), default=None)
    _drop(run, [step for step in kept(run) if step not in (before, run.done)])


def go_back(run: "Trainer") -> None:
    """After a resume: what was best later on has not been yet."""
    _drop(run, [step for step in kept(run) if step > run.done])


def give_out(run: "Trainer") -> int | None:
    """Puts the best weights in the place of the present ones; returns their step, None where none are kept."""
    step = best_step(run.validations)
    if run.folder is None or step is None:
        return None
    path = run.folder / FOLDER / f"checkpoint-{step:06d}"
    if fault := checkpoints.broken(path):
        run.say(f"the best weights, those of step {step}, cannot be given out, and the last ones are: {path.name}: {fault}")
        return None
    found = checkpoints.load(path).weights
    with torch.no_grad():
        for name, parameter in run.weights.items():
            put(parameter, found[name])
    return step


def kept(run: "Trainer") -> list[int]:
    return checkpoints.steps_in(run.folder / FOLDER) if run.folder else []


def _drop(run: "Trainer", steps: list[int]) -> None:
    for step in steps if run.folder and run.processes.main else []:
        shutil.rmtree(run.folder / FOLDER / f"checkpoint-{step:06d}", ignore_errors=True)  # type: ignore[operator]
