"""How what was trained is written down. To add one: write its file, add one line to FORMATS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import unknown
from ..families import Family
from .base import Format, Written
from .diffusers_lora import DiffusersLora
from .peft import Peft
from .pipeline import Merged, Pipeline
from .textual_inversion import TextualInversion

FORMATS: dict[str, Format] = {f.name: f for f in (DiffusersLora(), Peft(), TextualInversion(), Pipeline(), Merged())}


def format(name: str) -> Format:
    try:
        return FORMATS[name]
    except KeyError:
        raise unknown("format", name, FORMATS) from None


def reopen(
    names: Sequence[str], family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype
) -> Any:
    """A stock pipeline of all that a run has written, one format upon the other: what anybody else will get. Raises ModelError."""
    first, *others = [format(name) for name in names]
    pipe = first.read(family, base, folder, revision=revision, dtype=dtype)
    for other in others:
        other.add(pipe, folder)
    return pipe


__all__ = ["FORMATS", "Format", "Written", "format", "reopen"]
