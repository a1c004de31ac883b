"""A finished run in another format, loaded back before it is called written."""

from collections.abc import Callable
from pathlib import Path

import torch

from .errors import ModelError, StorageError
from .evaluation import Shot, difference
from .families import FAMILIES
from .formats import FORMATS, format
from .run import Run

TOLERANCE = 0.02
"""Folding an adapter into its weights adds in another order: the last bits of a picture may differ."""


def export(run: Run, form: str, out: Path, *, say: Callable[[str], None] = print) -> list[Path]:
    """Raises ConfigError for an unknown format, StorageError for a folder in use, ModelError when it opens as another model."""
    target = format(form)
    if out.is_dir() and any(out.iterdir()):
        raise StorageError("is not empty", where=out, fix="name another folder", case=3)
    out.mkdir(parents=True, exist_ok=True)
    base, record = run.base(), run.record
    kind = FAMILIES[record.family]
    names = [line.format for line in record.verified]
    if any(FORMATS[name].whole for name in names):
        family = kind.open(run.folder, dtype=torch.float32)
    else:
        family = kind.open(base.location, revision=base.revision, dtype=torch.float32)
        for name in names:
            FORMATS[name].add(family.pipe, run.folder)
    written = target.write(family, out)
    fresh = target.read(kind, base.location, out, revision=base.revision, dtype=torch.float32)
    told, side = record.gallery[0], family.native_size
    apart = difference(family.pipe, fresh, Shot(told.caption, told.seed, told.steps, told.guidance, (side, side)))
    if not apart <= TOLERANCE:
        raise ModelError(f"opens as another model: pixels differ by {apart:.3f}", where=out, case=4)
    say(f"verified: reopened by stock diffusers, largest pixel difference {apart:g}")
    return list(written.files)
