"""The weights of the step at which held-out pictures were denoised best, kept beside the checkpoints."""

from typing import TYPE_CHECKING

import torch

from . import checkpoint as checkpoints
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .trainer import Trainer

FOLDER = "best"
"""Within the run's folder."""


def keep(run: "Trainer") -> None:
    """As they would be given out now."""
    if run.folder is None:
        return
    with run.shown():
        weights = {name: p.detach().clone() for name, p in run.weights.items()}
    folder = run.folder / FOLDER
    folder.mkdir(exist_ok=True)
    checkpoints.save(folder, Checkpoint(run.done, weights, {}, {}), keep=1)


def give_out(run: "Trainer") -> int | None:
    """Puts the best weights in the place of the present ones; returns their step, None where none were kept."""
    found = checkpoints.newest(run.folder / FOLDER, run.say) if run.folder else None
    if found is None:
        return None
    with torch.no_grad():
        for name, parameter in run.weights.items():
            parameter.copy_(found.weights[name])
    return found.step
