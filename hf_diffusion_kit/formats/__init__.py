"""How what was trained is written down. To add one: write its file, add one line to FORMATS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import unknown
from ..families import Family
from .base import Format, Written
from .diffusers_lora import DiffusersLora
from .kohya import Kohya
from .peft import Peft
from .pipeline import Merged, Pipeline
from .single_file import SingleFile
from .textual_inversion import TextualInversion

FORMATS: dict[str, Format] = {
    f.name: f for f in (DiffusersLora(), Kohya(), Peft(), TextualInversion(), Pipeline(), Merged(), SingleFile())
}


def format(name: str) -> Format:
    try:
        return FORMATS[name]
    except KeyError:
        raise unknown("format", name, FORMATS) from None


def reopen(
    names: Sequence[str],
    family: type[Family],
    base: str | Path,
    folder: Path,
    *,
    revision: str | None,
    dtype: torch.dtype,
    quantize: str = "no",
) -> Any:
    """A stock pipeline of all that a run has written, one format upon the other: what anybody else will get. `quantize`: the base in
    fewer bits, for a reader who has it so. Raises ModelError."""
    first, *others = [format(name) for name in names]
    if quantize == "no":
        pipe = first.read(family, base, folder, revision=revision, dtype=dtype)
    else:
        pipe, others = family.pipeline(base, revision=revision, dtype=dtype, quantize=quantize), [first, *others]
    for other in others:
        other.add(pipe, folder)
    return pipe


__all__ = ["FORMATS", "Format", "Written", "format", "reopen"]
