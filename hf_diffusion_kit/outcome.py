"""What becomes of a trained run: written, loaded back as anybody else would, looked at, recorded."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .bases import Base
from .data import Captioned
from .data.captions import tidy
from .errors import ModelError
from .evaluation import Shot, draw, pixels
from .formats import FORMATS
from .hardware import checkout_commit, hardware, versions
from .recipe import Recipe
from .records import DataRecord, RunRecord, Shown, Verified, Weights, file_sha256
from .run import IMAGES, RECORD, Run
from .sheet import Cell, sheet
from .training.trainer import Trainer

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of a pixel in [0, 1] between the trained pipeline and the one loaded back. On a CPU in float32 it is 0."""


@dataclass(frozen=True)
class Outcome:
    recipe: Recipe
    folder: Path
    base: Base
    data: Captioned
    trainer: Trainer
    """At its last step."""
    shots: Sequence[Shot]
    before: Sequence[Image.Image]
    """The base's own pictures of the shots."""
    progress: bool


def finish(told: Outcome) -> Run:
    """Everything after the last step. Raises ModelError when what was written opens as another model."""
    weights, verified, fresh = write_and_verify(told, told.shots[0])
    gallery = save_gallery(told, draw(fresh, told.shots, title="gallery after" if told.progress else None))
    record = make_record(told, gallery, weights, verified)
    record.save(told.folder / RECORD)
    return Run(told.folder, record)


def write_and_verify(told: Outcome, shot: Shot) -> tuple[list[Weights], list[Verified], Any]:
    """Writes the adapter, opens it as anybody else would, and compares one picture. Returns the reopened pipeline too."""
    form, family = FORMATS["diffusers-lora"], told.trainer.family
    written = form.write(family, told.folder)
    for parameter in told.trainer.weights.values():  # a reader holds the adapter in the base's own precision
        parameter.data = parameter.data.to(family.dtype)
    trained = pixels(family.pipe, shot)
    fresh = form.read(type(family), told.base.location, told.folder, revision=told.base.revision, dtype=family.dtype)
    fresh.to(family.device)
    apart = float(np.abs(trained - pixels(fresh, shot)).max())
    if not apart <= TOLERANCE[family.dtype]:
        raise ModelError(f"opens as another model than was trained: pixels differ by {apart:.3f}", where=written.files[0], case=4)
    weights = [Weights(path.name, form.name, file_sha256(path), path.stat().st_size) for path in written.files]
    return weights, [Verified(form.name, written.reader, shot.caption, shot.seed, apart)], fresh


def save_gallery(told: Outcome, after: Sequence[Image.Image]) -> list[Shown]:
    folder = told.folder / IMAGES
    folder.mkdir(exist_ok=True)
    shown = []
    for i, (shot, old, new) in enumerate(zip(told.shots, told.before, after, strict=True)):
        names = (f"{i:02d}.png", f"{i:02d}-before.png")
        for name, picture in zip(names, (new, old), strict=True):
            picture.save(folder / name)
        after_name, before_name = (f"{IMAGES}/{name}" for name in names)
        shown.append(Shown(after_name, shot.caption, shot.seed, shot.steps, shot.guidance, before_name))
    rows = [[Cell(picture) for picture in told.before]]
    rows.append([Cell(picture, shot.caption) for picture, shot in zip(after, told.shots, strict=True)])
    page = sheet(rows, row_labels=("before", "after"), title=f"{told.base.pinned.id} + {told.recipe.method.name}")
    page.save(folder / "before_after.png")
    return shown


def make_record(told: Outcome, gallery: list[Shown], weights: list[Weights], verified: list[Verified]) -> RunRecord:
    recipe, data, trainer, settings = told.recipe, told.data, told.trainer, told.recipe.training
    captions = sum(len({tidy(text) for text in texts}) for texts in data.dataset["captions"])
    return RunRecord(
        name=told.folder.resolve().name,
        family=trainer.family.name,
        method=recipe.method.name,
        base_model=told.base.pinned,
        data=DataRecord(
            data.source,
            len(data),
            data.fingerprint,
            data.recipe,
            dict(data.licenses),
            dict(data.left_out),
            hub=next((step.hub for step in reversed(data.record.chain) if step.hub), None),
            captions=captions,
        ),
        settings=recipe.public(),
        steps=trainer.done,
        samples=trainer.done * settings.batch_size * settings.gradient_accumulation_steps,
        losses=stretches(trainer.losses),
        versions=versions(),
        hardware={**hardware(trainer.device), "seconds_a_step": round(trainer.seconds_a_step, 4)},
        seconds=round(trainer.seconds, 1),
        captions=trainer.ledger(),
        parameters={part.part: sum(p.numel() for p in part.parameters.values()) for part in trainer.trained},
        gallery=gallery,
        scores=kept_scores(told.folder, weights),
        weights=weights,
        verified=verified,
        notes=[*data.notes, *trainer.notes()],
        started=trainer.started,
        commit=checkout_commit(),
        command=recipe.command(data_name(told), told.folder.resolve().name),
    )


def kept_scores(folder: Path, weights: list[Weights]) -> dict[str, float]:
    """Scores of a record that is written anew for the very same weights."""
    path = folder / RECORD
    before = RunRecord.load(path) if path.is_file() else None
    return dict(before.scores) if before and before.weights == weights else {}


def data_name(told: Outcome) -> str:
    """The data as the command that makes the run again calls them: the subset's folder, as its own recipe names it."""
    words = shlex.split(told.data.recipe or "")
    return words[words.index("--out") + 1] if "--out" in words else Path(told.recipe.data.path or "data").name


def stretches(losses: Sequence[float], most: int = 200) -> list[float]:
    """Means over at most `most` equal stretches of the run; steps without a finite loss are left out of them."""
    size = max(1, -(-len(losses) // most))
    groups = [[loss for loss in losses[i : i + size] if np.isfinite(loss)] for i in range(0, len(losses), size)]
    return [round(sum(group) / len(group), 6) for group in groups if group]
