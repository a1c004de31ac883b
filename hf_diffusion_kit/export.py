"""A finished run in another format, loaded back before it is called written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import ModelError, StorageError
from .evaluation import Shot, pixels
from .evaluation.schedule import follow
from .families import FAMILIES, Family
from .formats import FORMATS, format, reopen
from .formats.base import Format
from .run import Run

TOLERANCE = 0.02
"""Folding an adapter into its weights adds in another order: the last bits of a picture may differ."""
STEPS = 4
"""Solver steps of the picture that is compared; they tell two models apart as well as 25 do."""
HOLDS = {"diffusers-lora": "an adapter", "kohya": "an adapter", "peft": "an adapter", "textual-inversion": "new words"}
"""Format that goes onto a base -> what it holds."""
PIPELINES = ("merged", "pipeline")
"""Formats that are diffusers' own layout."""


def export(run: Run, form: str, out: Path, *, say: Callable[[str], None] = print) -> list[Path]:
    """Raises ConfigError for an unknown format, StorageError for a folder in use, ModelError for what cannot be written so, or opens
    as another model."""
    target, names = format(form), [line.format for line in run.record.verified]
    check(run, target, names)
    if out.is_dir() and any(out.iterdir()):
        raise StorageError("is not empty", where=out, fix="name another folder", case=3)
    run.check_pictures()
    base, kind = run.base(), FAMILIES[run.record.family]
    told: dict[str, Any] = {"revision": base.revision, "dtype": torch.float32}
    out.mkdir(parents=True, exist_ok=True)
    shot = first_shot(run)
    if as_it_is(target, names):
        say(f"the run's own files are {names[0]} already: they are copied")
        files = copied(run, out)
        before = pixels(followed(run, reopen(names, kind, base.location, run.folder, **told)), shot)
    else:
        family = opened(run, kind, base.location, names, **told)
        files = list(target.write(family, out).files)
        before = pixels(family.pipe, shot)
        family.let_go()  # the model need not be in memory twice
    fresh = target.read(kind, base.location, out, **told)
    if as_it_is(target, names) or target.name not in PIPELINES:
        followed(run, fresh)
        if target.whole and run.record.scheduler:
            say(f"the file holds no scheduler; draw with {', '.join(f'{k}={v!r}' for k, v in run.record.scheduler.items())}")
    apart = float(np.abs(before - pixels(fresh, shot)).max())
    if not apart <= TOLERANCE:
        raise ModelError(f"opens as another model: pixels differ by {apart:.3f}", where=out, case=4)
    say(f"verified: reopened by stock diffusers, largest pixel difference {apart:g}")
    return files


def check(run: Run, target: Format, names: list[str]) -> None:
    """Raises ModelError for a format that could hold a part of the run only, or nothing of it."""
    if target.whole or as_it_is(target, names):
        return
    holds = HOLDS[target.name]
    if any(FORMATS[name].whole for name in names):
        what, fix = f"was trained in all its weights: there is nothing apart in it that {target.name} takes", "--format merged"
        raise ModelError(what, where=run.folder, fix=fix, case=7)
    made = dict.fromkeys(HOLDS[name] for name in names)
    if list(made) != [holds]:
        fix = f"--format merged, or copy the run's own files: {', '.join(file.file for file in run.record.weights)}"
        raise ModelError(f"is {' and '.join(made)}, and {target.name} takes {holds} alone", where=run.folder, fix=fix, case=7)


def as_it_is(target: Format, names: list[str]) -> bool:
    """Whether the run's own files are what is asked for. A pipeline has nothing in it to merge."""
    return names == [target.name] or (target.name in PIPELINES and all(FORMATS[name].whole for name in names))


def opened(run: Run, kind: type[Family], base: Path | str, names: list[str], **how: Any) -> Family:
    """Base and all that was trained upon it, the scheduler as training left it: a whole pipeline then carries it along."""
    if all(FORMATS[name].whole for name in names):
        family = kind.open(run.folder, dtype=how["dtype"])
    else:
        family = kind.open(base, **how)
        for name in names:
            FORMATS[name].add(family.pipe, run.folder)
    followed(run, family.pipe)
    return family


def followed(run: Run, pipe: Any) -> Any:
    follow(pipe, run.record.scheduler)
    return pipe


def first_shot(run: Run) -> Shot:
    told = run.record.gallery[0]
    with Image.open(run.folder / told.file) as picture:
        return Shot(told.caption, told.seed, min(told.steps, STEPS), told.guidance, (picture.height, picture.width))


def copied(run: Run, out: Path) -> list[Path]:
    for file in run.record.weights:
        (out / file.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.folder / file.file, out / file.file)
    return [out / file.file for file in run.record.weights]
