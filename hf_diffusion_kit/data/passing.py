"""Rows of a table by their numbers: at once where they lie on disk, in one pass where they come as a stream."""

import gc
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import datasets
from datasets.exceptions import DatasetsError

from ..errors import HubError, KitError, SourceError, StorageError
from ..hub.door import TROUBLE as HUB_TROUBLE
from ..hub.door import is_passing
from .base import bare

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset
ReadOne = Callable[[int, Mapping[str, Any]], bytes]
"""(number of the row, the row) -> the file of its picture. Raises SourceError."""
TROUBLE = (*HUB_TROUBLE, DatasetsError)
"""What `datasets`, `fsspec` and the clients below them raise when a file of the Hub cannot be had or read."""


def records(rows: Rows, where: str) -> Iterator[Mapping[str, Any]]:
    """All rows in order. Raises HubError where a stream breaks off, SourceError where it, or a table, cannot be read."""
    try:
        yield from rows
    except KitError:
        raise
    except TROUBLE as error:
        raise broken_off(error, where) from error


def contents_at(rows: Rows, places: Sequence[int], read_one: ReadOne, where: str) -> Iterator[bytes | SourceError]:
    """The files of the pictures of these rows, in this order.

    A stream is read once, up to the last of them. Pictures whose turn has not come wait in a temporary file, never in memory.
    """
    if isinstance(rows, datasets.Dataset):
        yield from (_attempt(read_one, place, rows[place]) for place in places)
    elif all(a < b for a, b in pairwise(places)):
        yield from _in_order(_passing(rows, places, read_one, where), places, where)
    else:
        yield from _in_turn(_passing(rows, places, read_one, where), places, where)


def broken_off(error: Exception, where: str) -> HubError | SourceError:
    if is_passing(error):
        return HubError(f"broke off: {said(error)}", where=where, fix="see that you are online, then try again", case=5)
    return SourceError(f"cannot be read: {said(error)}", where=where, fix="mend it, or make it again", case=9)


def said(error: BaseException) -> str:
    """Another library's error in one line, with no token in it; its cause, where it says only that something failed."""
    if isinstance(error, DatasetsError) and isinstance(error.__cause__, Exception):
        return said(error.__cause__)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_…", text)[:300]


def _passing(stream: Rows, places: Sequence[int], read_one: ReadOne, where: str) -> Iterator[tuple[int, bytes | SourceError]]:
    wanted = set(places)
    # `take` ends the stream by itself: pyarrow's threads may hang a process that ends while one is half read (datasets#7467). Of a
    # stream that is shared among nodes it would count the rows of all of them, so that one is read to its end.
    shared = getattr(stream, "_distributed", None) is not None
    passing = enumerate(records(stream if shared else stream.take(max(wanted, default=-1) + 1), where))
    try:
        for place, record in passing:
            if place in wanted:
                yield place, _attempt(read_one, place, record)
    finally:
        del passing
        gc.collect()


def _in_order(
    passing: Iterator[tuple[int, bytes | SourceError]], places: Sequence[int], where: str
) -> Iterator[bytes | SourceError]:
    for place in places:
        found = next(passing, None)
        yield found[1] if found else _gone(place, where)


def _in_turn(
    passing: Iterator[tuple[int, bytes | SourceError]], places: Sequence[int], where: str
) -> Iterator[bytes | SourceError]:
    try:
        with tempfile.TemporaryFile(prefix="hfdk-stream-") as waiting:
            kept: dict[int, tuple[int, int] | SourceError] = {}
            for place, content in passing:
                kept[place] = content if isinstance(content, SourceError) else (waiting.tell(), waiting.write(content))
            for place in places:
                found = kept.get(place) or _gone(place, where)
                if isinstance(found, SourceError):
                    yield found
                else:
                    waiting.seek(found[0])
                    yield waiting.read(found[1])
    except OSError as error:
        if isinstance(error, KitError):
            raise
        fix = f"free space in {tempfile.gettempdir()}, or set TMPDIR"
        raise StorageError(
            f"pictures of a stream cannot be kept: {error.strerror or error}", where=where, fix=fix, case=3
        ) from error


def _attempt(read_one: ReadOne, place: int, record: Mapping[str, Any]) -> bytes | SourceError:
    try:
        return read_one(place, record)
    except SourceError as error:
        return bare(error)


def _gone(place: int, where: str) -> SourceError:
    return SourceError("is not there when the stream is read again", where=f"{where}: row {place}", case=9)
