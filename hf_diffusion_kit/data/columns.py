"""Which column holds the picture, which the captions: the names that people's tables really use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import SourceError, nearest
from .captions import tidy

FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "image")
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
ADDRESS_COLUMNS = ("url", "image_url", "coco_url")
"""Where a table has no pictures, the first of these says where they are."""
CAPTION_COLUMNS = ("captions", "caption", "text", "sentences_raw", "sentences", "prompt", "txt")
NAME_COLUMNS = ("key", "file_name", "filename", "filepath")
"""What may tell a picture (img2dataset's `key`, a file's name), or be the same for several."""
ID_COLUMNS = ("image_id", "cocoid", "imgid", *NAME_COLUMNS)
"""Rows that agree in the first of these that they have are one picture."""
SAMPLE_KEY = "__key__"
"""WebDataset's name of a sample; each sample is a picture of its own."""


def find(kind: str, columns: Iterable[str], known: Sequence[str], *, where: object) -> str:
    """The first of `known` that is there, whatever its case. Raises SourceError that lists what is there instead."""
    columns = list(columns)
    folded = {name.casefold(): name for name in reversed(columns)}
    for name in known:
        if name in columns or name in folded:
            return name if name in columns else folded[name]
    what = f"has no column for the {kind}; it has {', '.join(columns)[:300] or 'none'}"
    raise SourceError(what, where=where, fix=f"call it {known[0]!r}", case=9)


def first_of(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """Like `find`, None where there is none."""
    folded = {name.casefold(): name for name in columns}
    return next((folded[name] for name in known if name in folded), None)


def known_captions(columns: Iterable[str]) -> list[str]:
    """The columns whose name says that they hold captions."""
    folded = {name.casefold(): name for name in columns}
    return [folded[name] for name in CAPTION_COLUMNS if name in folded]


def caption_columns(columns: Iterable[str], chosen: str | None, *, where: object) -> list[str]:
    """The columns that are read for captions: the chosen one, or all that are known by name."""
    columns = list(columns)
    if chosen is not None:
        if chosen not in columns:
            raise SourceError(f"has no column {chosen!r}; {nearest(chosen, columns)}", where=where, case=9)
        return [chosen]
    return known_captions(columns) or [find("captions", columns, CAPTION_COLUMNS, where=where)]


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """`record[name]`, or what lies below: `json.captions`, `sentences.raw`. None where there is nothing."""
    if name in record or "." not in name:
        return record.get(name)
    outer, inner = name.split(".", 1)
    below = record.get(outer)
    if isinstance(below, Mapping):
        return value_of(below, inner)
    if isinstance(below, list):
        return [value_of(item, inner) for item in below if isinstance(item, Mapping)]
    return None


def captions_of(record: Mapping[str, Any], columns: Sequence[str], *, where: object) -> list[str]:
    """All texts of one row, blank ones too (as ""). Raises SourceError where two columns say different things."""
    told = {name: _texts(value_of(record, name), f"{where}: {name}") for name in columns}
    fullest = max(told.values(), key=len)
    if len(told) == 1:
        return fullest
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
    raise SourceError(f"is {repr(value)[:60]}, not text", where=where, fix="put it in quotes, or mend it", case=8)
