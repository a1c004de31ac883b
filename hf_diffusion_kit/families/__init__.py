"""The model families. To add one: write its file, add one line to FAMILIES."""

from pathlib import Path

from ..errors import FamilyError
from .base import Conditioning, Family, Posterior, TokenCount, class_name_of
from .sd1 import SD1

FAMILIES: dict[str, type[Family]] = {f.name: f for f in (SD1,)}


def detect(base: str | Path, *, revision: str | None = None) -> type[Family]:
    """The family of a base (Hub id or folder), told by the `_class_name` of its model_index.json.

    Raises ModelError when there is no such base, FamilyError when its family is not among `FAMILIES`.
    """
    name = class_name_of(base, revision=revision)
    for kind in FAMILIES.values():
        if kind.pipeline_class.__name__ == name:
            return kind
    known = ", ".join(f"{kind.pipeline_class.__name__} ({kind.name})" for kind in FAMILIES.values())
    raise FamilyError(f"is a {name}, which no family here opens; known: {known}", where=f"{base}: model_index.json", case=3)


__all__ = ["FAMILIES", "Conditioning", "Family", "Posterior", "TokenCount", "detect"]
