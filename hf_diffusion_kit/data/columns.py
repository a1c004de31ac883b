"""Which column holds the picture, which the captions: the names that people's tables really use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import SourceError, nearest
from .captions import tidy

FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "image")
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
CAPTION_COLUMNS = ("captions", "caption", "text", "sentences_raw", "sentences", "prompt", "txt")


def find(kind: str, columns: Iterable[str], known: Sequence[str], *, where: object) -> str:
    """The first of `known` that is there. Raises SourceError that lists what is there instead."""
    columns = list(columns)
    for name in known:
        if name in columns:
            return name
    what = f"has no column for the {kind}; it has {', '.join(columns) or 'none'}"
    raise SourceError(what, where=where, fix=f"call it {known[0]!r}", case=9)


def caption_columns(columns: Iterable[str], chosen: str | None, *, where: object) -> list[str]:
    """The columns that are read for captions: the chosen one, or all that are known by name."""
    columns = list(columns)
    if chosen is not None:
        if chosen not in columns:
            raise SourceError(f"has no column {chosen!r}; {nearest(chosen, columns)}", where=where, case=9)
        return [chosen]
    return [name for name in CAPTION_COLUMNS if name in columns] or [find("captions", columns, CAPTION_COLUMNS, where=where)]


def captions_of(record: Mapping[str, Any], columns: Sequence[str], *, where: object) -> list[str]:
    """All texts of one row, blank ones too (as ""). Raises SourceError where two columns say different things."""
    told = {name: _texts(record.get(name), f"{where}: {name}") for name in columns}
    fullest = max(told.values(), key=len)
    known = {tidy(text) for text in fullest}
    for name, texts in told.items():
        if extra := [text for text in texts if tidy(text) not in known and tidy(text)]:
            full = next(other for other in columns if told[other] is fullest)
            raise SourceError(
                f"columns {full!r} and {name!r} hold different captions ({extra[0][:40]!r})",
                where=where,
                fix=f"say which one is meant: caption_column={full!r}",
                case=9,
            )
    return fullest


def _texts(value: Any, where: str) -> list[str]:
    """A string, a list of them, or COCO-Karpathy's {"raw": ...}; null is a blank caption."""
    if value is None:
        return [""]
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping) and "raw" in value:
        return _texts(value["raw"], where)
    if isinstance(value, Sequence):
        return [text for item in value for text in _texts(item, where)] or [""]
    raise SourceError(f"is {value!r}, not text", where=where, fix="put it in quotes, or mend it", case=8)
