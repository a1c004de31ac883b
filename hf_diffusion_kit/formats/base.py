from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..families import Family


@dataclass(frozen=True)
class Written:
    files: tuple[Path, ...]
    reader: str
    """The stock calls that open it, for the card; `BASE` and `FOLDER` stand for the two places."""


class Format(Protocol):
    name: str

    def write(self, family: Family, folder: Path) -> Written:
        """Writes the adapters that are on the family's parts; nothing else in the folder is touched. Raises ModelError."""

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        """A stock pipeline, opened anew from what was written: what anybody else will get."""
