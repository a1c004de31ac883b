"""What becomes of a trained run: written, loaded back as anybody else would, looked at, recorded."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import formats
from .bases import Base
from .data import Captioned
from .data.captions import tidy
from .errors import ModelError
from .evaluation import Shot, draw, pixels
from .evaluation.progress_sheet import add_row
from .evaluation.schedule import FOLLOWS, follow
from .families import Family
from .formats import FORMATS
from .hardware import checkout_commit, hardware, versions
from .recipe import Recipe
from .records import DataRecord, RunRecord, Shown, Verified, Weights, file_sha256
from .run import IMAGES, RECORD, Run
from .sheet import Cell, sheet
from .training.trainer import Trainer

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
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
    notes: Sequence[str] = ()
    """What else is to be said, a sentence each."""

    @property
    def title(self) -> str:
        return f"{self.base.pinned.id} + {self.recipe.method.name}"

    @property
    def hints(self) -> Mapping[str, object]:
        return self.trainer.objective.hints()


def finish(told: Outcome) -> Run:
    """Everything after the last step. Raises ModelError when what was written opens as another model."""
    trainer, family, shot = told.trainer, told.trainer.family, told.shots[0]
    family.recall()
    told.recipe.method.settle(family)
    forms = [FORMATS[name] for name in told.recipe.method.formats]
    follow(family.pipe, told.hints)  # a whole pipeline is written with the scheduler that it wants
    written = [form.write(family, told.folder) for form in forms]
    for form in forms:
        form.as_read(family)
    trained = pixels(family.pipe, shot)
    facts = make_record(told)
    device, dtype, kind = family.device, family.dtype, type(family)
    trainer.let_go()  # the model need not be in memory twice
    fresh = reopen(told, kind, dtype).to(device)
    follow(fresh, told.hints)
    apart = float(np.abs(trained - pixels(fresh, shot)).max())
    if not apart <= TOLERANCE[dtype]:
        raise ModelError(
            f"opens as another model than was trained: pixels differ by {apart:.3f}", where=written[0].files[0], case=4
        )
    after = draw(fresh, told.shots, title="gallery after" if told.progress else None)
    gallery = save_gallery(told, after)
    if told.recipe.training.sample_steps != 0:  # the last row, from the files
        count = told.recipe.training.sample_pictures
        add_row(told.folder, facts.steps, told.shots[:count], after[:count], title=told.title)
    pairs = [(path, form.name) for one, form in zip(written, forms, strict=True) for path in one.files]
    weights = [
        Weights(path.relative_to(told.folder).as_posix(), name, file_sha256(path), path.stat().st_size) for path, name in pairs
    ]
    same: dict[str, Any] = {"caption": shot.caption, "seed": shot.seed, "max_difference": apart}
    same |= {"quantize": told.recipe.training.quantize}
    verified = [Verified(form.name, one.reader, **same) for one, form in zip(written, forms, strict=True)]
    scores = kept_scores(told.folder, weights)
    record = replace(facts, gallery=gallery, weights=weights, verified=verified, scores=scores)
    record.save(told.folder / RECORD)
    return Run(told.folder, record)


def reopen(told: Outcome, kind: type[Family], dtype: torch.dtype) -> Any:
    """What was written, as anybody else opens it, one format upon the other: the base in as many bits as it was trained on, for a whole
    one would answer otherwise whatever the files hold."""
    names, base, quantize = told.recipe.method.formats, told.base, told.recipe.training.quantize
    return formats.reopen(names, kind, base.location, told.folder, revision=base.revision, dtype=dtype, quantize=quantize)


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
    page = sheet(rows, row_labels=("before", "after"), title=told.title)
    page.save(folder / "before_after.png")
    return shown


def make_record(told: Outcome) -> RunRecord:
    """All but what comes of the files."""
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
            buckets=trainer.loader.buckets.report() if settings.buckets else [],
            held_out=len(data) - len(trainer.loader.rows),
        ),
        settings=recipe.public(),
        steps=trainer.done,
        samples=trainer.done * settings.batch_size * settings.gradient_accumulation_steps * trainer.processes.world,
        losses=stretches(trainer.losses),
        versions=versions(),
        hardware={**hardware(trainer.device), "seconds_a_step": round(trainer.seconds_a_step, 4)},
        seconds=round(trainer.seconds, 1),
        captions=trainer.ledger(),
        parameters={part.label: sum(p.numel() for p in part.parameters.values()) for part in trainer.trained},
        validations=[(step, round(loss, 6)) for step, loss in trainer.validations if np.isfinite(loss)],
        scheduler=dict(told.hints),
        guidance_argument=trainer.family.guidance_argument,
        call_options=dict(trainer.family.call_options),
        notes=[*data.notes, *trainer.notes(), *told.notes, *hint_notes(told.hints)],
        started=trainer.started,
        commit=checkout_commit(),
        command=recipe.command(data_name(told), told.folder.resolve().name),
    )


def hint_notes(hints: Mapping[str, object]) -> list[str]:
    if not hints:
        return []
    told = ", ".join(f"{name}={value!r}" for name, value in hints.items())
    return [f"drawn with, and to be drawn with: pipe.scheduler = {FOLLOWS.__name__}.from_config(pipe.scheduler.config, {told})"]


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
