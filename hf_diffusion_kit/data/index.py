"""Finds the index of a pair of annotation files, or makes it: keyed by what the files hold and by the code that reads them.

A pointer says which index belongs to a file as the system knows it (size, times, inode), so that an index is found again without
reading the JSON. The time of change (ctime) cannot be set back, so an edit that keeps the other times is seen; and a pointer is kept
only for files that were at rest when they were read.
"""

import json
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from ..errors import SourceError, StorageError
from .index_build import build, finish, split_of
from .index_columns import Index, file_mark, is_whole
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
            told = half.with_suffix(".json")
            told.write_text(json.dumps({"signature": before, "digest": folder.name}), encoding="utf-8")
            told.replace(pointer)
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


CODE = ("annotations.py", "arrow.py", "index_build.py", "index_columns.py", "index_things.py", "licenses.py", "paths.py")
"""Files of this room that decide what an index holds."""
_WHOLE: dict[str, tuple[int, int]] = {}
"""Folders whose every byte this process has checked, and their manifest's size and time then."""


def _trusted(folder: Path) -> Index | None:
    """The index if it is whole; all of it is read the first time that a process opens it."""
    try:
        told = (folder / "manifest.json").stat()
    except OSError:
        return None
    mark = (told.st_size, told.st_mtime_ns)
    if _WHOLE.get(str(folder)) != mark:
        if not is_whole(folder):
            return None
        _WHOLE[str(folder)] = mark
    return Index(folder)


def _pointed(pointer: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(pointer.read_text(encoding="utf-8"))
        return {"signature": _plain(told["signature"]), "digest": told["digest"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(told: Any) -> Any:
    return json.loads(json.dumps(told))


def _signature(captions: Path, instances: Path | None) -> list[Any]:
    """[names, per file: size, mtime, inode, ctime]. Raises SourceError for a file that is not there."""
    files = [captions, *([instances] if instances else [])]
    try:
        told = [file.stat() for file in files]
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror}", where=captions, fix="name the file of annotations", case=7
        ) from error
    names = [str(file.resolve()) for file in files]
    return [names, [[one.st_size, one.st_mtime_ns, one.st_ino, one.st_ctime_ns] for one in told]]
