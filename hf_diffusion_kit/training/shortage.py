"""When disk or memory do not suffice: known before the first step where it can be, and what was learnt is kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..errors import ModelError, StorageError
from .checkpoint import existing, steps_in

if TYPE_CHECKING:
    from .trainer import Trainer

MOMENTS = {"adamw": 2.0, "adamw8bit": 0.5, "adafactor": 0.0, "prodigy": 4.0, "schedulefree": 2.0}
"""Optimizer -> bytes that it remembers, for each byte that is trained."""
SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What errors say that mean it and have no class of their own: of a CPU, of Apple's devices, of cuBLAS."""


def check_room(run: "Trainer") -> None:
    """Before the first step: raises StorageError where the disk cannot hold the checkpoints. The new one is written before an old one goes."""
    settings, folder = run.settings, run.folder
    if folder is None or run.done >= settings.steps or not run.processes.main:
        return
    sizes = {name: p.numel() * p.element_size() for name, p in run.weights.items()}
    held = max(sum(size for name, size in sizes.items() if run.label_of[name] in stage.rates) for stage in run.stages)
    trained = sum(sizes.values())
    one = trained * (2 if run.ema is not None else 1) + round(held * MOMENTS[settings.optimizer])
    count = settings.checkpoints_total_limit + 1 if settings.checkpointing_steps else 1
    count = min(count, -(-settings.steps // (settings.checkpointing_steps or settings.steps)))
    need = one * max(1, count - len(steps_in(folder))) + trained  # and the files that are given out
    if (free := shutil.disk_usage(existing(folder)).free) < need:
        raise StorageError(
            f"the disk is too full: {free:,} bytes are free, and this run's checkpoints and weights take {need:,}",
            where=folder,
            fix="make room, name another folder, or set training.checkpoints_total_limit=1",
            case=3,
        )


@contextmanager
def spared(run: "Trainer") -> Iterator[None]:
    """Around what changes no weight: where memory ends, what the steps before have learnt is saved, and the line says what needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ended(error):
            raise
        what, settings = f"the device's memory is used up in step {run.done + 1}", ", ".join(lighter(run))
        fix = f"start again with one or more of {settings}"
        if run.folder is not None and run.done and run.processes.world == 1:  # others would wait for what never comes
            saved = run.save()
            what = f"{what}; saved as {saved.name}" if saved else what
            fix = f"hfdk resume with one or more of {settings}, each also named by --allow-change"
        raise ModelError(what, where=run.folder, fix=fix, case=6) from error


def memory_ended(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)


def lighter(run: "Trainer") -> list[str]:
    """At least three settings that need less memory than the run's own, what costs least first."""
    settings, side = run.settings, max(8, min(run.size) * 3 // 4 // 8 * 8)
    together = settings.batch_size * settings.gradient_accumulation_steps
    ways = {
        "training.gradient_checkpointing=true": not settings.gradient_checkpointing,
        f"training.batch_size=1 (with training.gradient_accumulation_steps={together})": settings.batch_size > 1,
        "training.fsdp=true": run.processes.world > 1 and run.method.name.endswith("full") and not settings.fsdp,
        "training.mixed_precision=bf16": settings.mixed_precision == "no",
        "training.optimizer=adafactor": settings.optimizer != "adafactor",
        f"training.resolution={side}": min(run.size) > side,
        "method.name=lora": run.method.name.endswith("full"),
        "a smaller method.rank": not run.method.name.endswith("full"),
    }
    return [way for way, helps in ways.items() if helps]
