"""Finds the index of a pair of annotation files, or makes it: keyed by what the files hold and by the code that reads them.

A pointer says which index belongs to a file as the system knows it (size, times, inode), so that an index is found again without
reading the JSON. The time of change (ctime) cannot be set back, so an edit that keeps the other times is seen; and a pointer is kept
only for files that were at rest when they were read.
"""

import json
import shutil
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from ..errors import SourceError, StorageError
from .index_build import build, finish
from .index_columns import FILES, MANIFEST, Index, file_mark, is_whole
from .index_pictures import split_of
from .where import cache_folder

__all__ = ["Index", "open_index", "split_of"]

AT_REST = 2_000_000_000
"""Nanoseconds since the last change before a file's times are trusted: two changes within one tick of the clock look alike."""


def open_index(captions: Path, instances: Path | None = None) -> Index:
    """Raises SourceError for annotations that cannot be read; StorageError when there is no room for the index."""
    before = _signature(captions, instances)
    home = cache_folder("annotations")
    pointer = home / f"at-{xxhash.xxh3_128_hexdigest(json.dumps([before[0], code_mark()]).encode())}.json"
    known = _pointed(pointer)
    if known and known["signature"] == before:
        folder = home / str(known["digest"])
        if (opened := _trusted(folder)) is not None:
            return opened
    began = time.time_ns()
    half = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
    try:
        folder = _made(home, half, captions, instances)
        after = _signature(captions, instances)
        newest = max(entry[3] for entry in after[1])
        if after == before and began - newest > AT_REST:
            _keep(pointer, {"signature": before, "digest": folder.name}, home)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"cannot be written: {error.strerror}", where=home, fix="free space, or set HF_HOME", case=3
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return Index(folder)


def _made(home: Path, half: Path, captions: Path, instances: Path | None) -> Path:
    """The folder of the index; one that is there already is kept, a damaged one is replaced."""
    marks = (xxhash.xxh3_128(), xxhash.xxh3_128())
    facts = build(half, captions, instances, (marks[0].update, marks[1].update))
    told = [facts["split"], marks[0].hexdigest(), marks[1].hexdigest() if instances else "", code_mark()]
    facts["digest"] = xxhash.xxh3_128_hexdigest(json.dumps(told).encode())
    folder = home / facts["digest"]
    if is_whole(folder):
        return folder
    if folder.exists():
        facts["notes"].append("an index in the cache was damaged and has been made anew")
    finish(half, facts)
    try:
        half.rename(folder)
    except OSError:
        if is_whole(folder):  # another process was quicker
            return folder
        aside = half.with_suffix(".old")
        folder.rename(aside)
        half.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    return folder


@cache
def code_mark() -> str:
    """Changes with the code that makes an index, so that no older one is read."""
    here = Path(__file__).parent
    return "".join(file_mark(here / name) for name in CODE)


CODE = (
    "addresses.py",
    "annotations.py",
    "arrow.py",
    "index_build.py",
    "index_captions.py",
    "index_columns.py",
    "index_ids.py",
    "index_pictures.py",
    "index_spill.py",
    "index_things.py",
    "licenses.py",
    "paths.py",
)
"""Files of this room that decide what an index holds."""
CHECKED = "checked.json"
_WHOLE: dict[str, list[list[int]]] = {}
"""Folders whose every byte has been checked, and how the system knew their files then."""


def _trusted(folder: Path) -> Index | None:
    """The index if it is whole. Every byte of it is read once; after that, files that the system knows as the same are the same."""
    try:
        known = [_known(folder / name) for name in (MANIFEST, *FILES)]
    except OSError:
        return None
    if known != _WHOLE.get(str(folder)) and known != _read(folder / CHECKED):
        began = time.time_ns()
        if not is_whole(folder):
            return None
        if began - max(entry[3] for entry in known) > AT_REST:
            _keep(folder / CHECKED, known, folder.parent)
    _WHOLE[str(folder)] = known
    return Index(folder)


def _keep(path: Path, told: Any, home: Path) -> None:
    """Whole or not at all; where it cannot be written, the next process looks again."""
    with suppress(OSError), tempfile.TemporaryDirectory(prefix=".tmp-", dir=home) as half:
        (Path(half) / path.name).write_text(json.dumps(told), encoding="utf-8")
        (Path(half) / path.name).replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _pointed(pointer: Path) -> dict[str, Any] | None:
    told = _read(pointer)
    return told if isinstance(told, dict) and {"signature", "digest"} <= told.keys() else None


def _signature(captions: Path, instances: Path | None) -> list[Any]:
    """[names, per file: size, mtime, inode, ctime]. Raises SourceError for a file that is not there."""
    files = [captions, *([instances] if instances else [])]
    try:
        told = [_known(file) for file in files]
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror}", where=captions, fix="name the file of annotations", case=7
        ) from error
    names = [str(file.resolve()) for file in files]
    return [names, told]


def _known(file: Path) -> list[int]:
    """As the system knows it: size, times and inode."""
    told = file.stat()
    return [told.st_size, told.st_mtime_ns, told.st_ino, told.st_ctime_ns]
