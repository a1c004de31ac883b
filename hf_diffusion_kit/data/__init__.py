"""Where captioned pictures come from: sources give rows, rows become a `Captioned` with fixed features.

Names are looked up when they are used (PEP 562), for `datasets` takes a second to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Row, Source
    from .captioned import Captioned, Example
    from .check import Report
    from .live import load_dataset
    from .load import as_captioned, load_captioned
    from .registered import register
    from .subset import Subset

SOURCES = {"coco": "coco.Coco", "folder": "folder.Folder", "dataset": "table.Table"}
"""Source -> the file of this room, and the class in it, that gives its rows."""

_HOME = {
    "Captioned": "captioned",
    "Example": "captioned",
    "Report": "check",
    "Row": "base",
    "Source": "base",
    "Subset": "subset",
    "as_captioned": "load",
    "load_captioned": "load",
    "load_dataset": "live",
    "register": "registered",
}
"""Public name -> the file that has it."""

__all__ = [
    "SOURCES",
    "Captioned",
    "Example",
    "Report",
    "Row",
    "Source",
    "Subset",
    "as_captioned",
    "load_captioned",
    "load_dataset",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
