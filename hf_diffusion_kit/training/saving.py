"""A trainer's state to a checkpoint and back: exact, or refused by name."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..config import plain
from ..data.captioned import Captioned
from ..errors import CheckpointError, ConfigError, ModelError, nearest
from . import best
from . import checkpoint as checkpoints
from .optimizer_state import load_state, state_tensors
from .pictured import differences
from .settings_watch import WatchSettings
from .sharding import gathered, local, put
from .stopping import should_stop

if TYPE_CHECKING:
    from .trainer import Trainer


FREE = {*WatchSettings.__dataclass_fields__, "disk_cache", "fsdp"} - {"validation_share"}
"""Settings that change no weight, so that a resumed run may have other ones."""


def identity(run: "Trainer", given: Mapping[str, str], data: Captioned, class_data: Captioned | None) -> dict[str, str]:
    """What a checkpoint must belong to: base, data and settings, in words. How many processes share a step does not matter."""
    settings, world = run.settings, run.processes.world
    return {
        **given,
        "data": data.fingerprint,
        "class_data": class_data.fingerprint if class_data else "none",
        "pictures a step": str(settings.batch_size * settings.gradient_accumulation_steps * world),
        "family": run.family.name,
        "method": run.method.name,
        **{
            f"method.{key}": str(value) for key, value in plain(run.method).items() if key != "init_from"
        },  # `given` has its content
        **{f"training.{key}": str(value) for key, value in plain(settings).items() if key not in FREE | {"batch_size"}},
    }


def save(run: "Trainer") -> Path | None:
    """A checkpoint of this very step, by rank 0; None without a folder."""
    if run.folder is None or run.saved_at == run.done:
        return run.folder and run.folder / f"checkpoint-{run.done:06d}"
    bad = [name for name, p in run.weights.items() if not torch.isfinite(local(p)).all()]
    if run.processes.most(len(bad)):
        first = f"{len(bad)} trained weights are not finite ({bad[0]})" if bad else "another process's share is not finite"
        raise ModelError(f"{first}; nothing was saved", where=run.folder, case=2)
    path = run.folder / f"checkpoint-{run.done:06d}"
    taken = snapshot(run) if run.processes.main or run.hollow is not None else None
    if run.processes.main and taken is not None:
        path = checkpoints.save(run.folder, taken, keep=run.settings.checkpoints_total_limit)
    run.processes.wait()
    run.saved_at = run.done
    return path


def snapshot(run: "Trainer") -> checkpoints.Checkpoint:
    """As it is written. Where weights are shared out all processes must ask, and rank 0 alone is told them."""
    tensors, numbers = state_tensors(run.optimizer)
    state: dict[str, Any] = {
        "losses": [loss if isfinite(loss) else None for loss in run.losses],
        "validations": run.validations,
        "skipped": run.skipped,
        "bad_in_a_row": run.bad_in_a_row,
        "started": run.started,
        "seconds": run.elapsed(),
        "ledger": {loader.role: loader.told() for loader in (run.loader, run.prior) if loader},
        "identity": run.identity,
        "optimizer": numbers,
        "scaler": run.scaler.state_dict(),
    }
    ema, state["ema"] = run.ema.state() if run.ema is not None else ({}, {})
    weights, tensors, ema = (gathered(told, run.processes) for told in (run.weights, tensors, ema))
    pictures = {name: value for loader in (run.loader, run.prior) if loader for name, value in loader.pictured.items()}
    return checkpoints.Checkpoint(run.done, weights, tensors, state, ema, pictures)


def in_words(run: "Trainer", found: checkpoints.Checkpoint, line: str) -> str:
    """A difference as it is told: of the pictures, which ones they are, where the checkpoint knows."""
    key = line.split(":")[0]
    loader = {"data": run.loader, "class_data": run.prior}.get(key)
    told = differences(found.pictures, loader.pictured, loader.role) if loader else None
    return f"{key}: {told}" if told else line


def resume(run: "Trainer", allow: Sequence[str]) -> int:
    found = checkpoints.newest(run.folder, run.say) if run.folder else None
    if found is None:
        return 0
    differs = checkpoints.changes(found.state["identity"], run.identity)
    if strange := [key for key in allow if key not in run.identity]:
        raise ConfigError(
            f"is no setting of this run; {nearest(strange[0], run.identity)}", where=f"--allow-change {strange[0]}", case=1
        )
    allowed = {line.split(":")[0] for line in differs if line.split(":")[0] in allow}
    if refused := [in_words(run, found, line) for line in differs if line.split(":")[0] not in allow]:
        raise CheckpointError(
            f"belongs to another run: {'; '.join(refused)}",
            where=run.folder,
            fix="put it back as it was, or say --allow-change for each that is meant",
            case=4,
        )
    for line in differs:
        run.say(f"changed on request: {in_words(run, found, line)}")
    if {name: tensor.shape for name, tensor in found.weights.items()} != {name: p.shape for name, p in run.weights.items()}:
        raise CheckpointError("holds other weights than this method trains", where=run.folder, case=4)
    run.enter(max(0, found.step - 1), resuming=True)
    with torch.no_grad():
        for name, parameter in run.weights.items():
            put(parameter, found.weights[name])
    state = found.state
    if "training.optimizer" in allowed:
        run.say("another optimizer begins anew, without what the old one had gathered")
    else:
        load_state(run.optimizer, found.optimizer, state["optimizer"])
    if run.ema is not None:
        if found.ema:
            run.ema.load_state(found.ema, state["ema"])
        else:  # asked for only now
            run.ema.restart()
    if state["scaler"] and run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])
    run.done = run.saved_at = found.step
    run.losses = [float("nan") if loss is None else loss for loss in state["losses"]]
    run.validations = [(step, loss) for step, loss in state["validations"]]
    run.ended_early = should_stop(run.validations, run.settings.early_stop)
    run.skipped, run.bad_in_a_row = state["skipped"], state["bad_in_a_row"]
    run.started, run.seconds = state["started"], state["seconds"]
    for loader in (run.loader, run.prior):
        if loader:
            loader.recall(state["ledger"].get(loader.role, {}))
    best.go_back(run)
    if run.folder and run.processes.main:
        checkpoints.tidy(run.folder, run.done, keep=run.settings.checkpoints_total_limit)
    return run.done
