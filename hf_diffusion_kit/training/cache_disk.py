"""What the cache of encodings takes on disk, who uses it, and how it is made smaller. (No torch: `hfdk cache` should answer at once.)

encoded/<base>/ab/abcd….safetensors   an answer; its time is that of its last use, by whichever run
encoded/<base>/users/<process>.lock   held by each process that works with that base's answers
encoded/<base>/gate.lock              held while answers are removed, or a process joins the users
"""

import atexit
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from ..data.where import cache_folder
from ..errors import ConfigError

DAY = 86400
UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
NO_LOCK = (OSError, NotImplementedError, Timeout)
"""Somebody has it, or this disk knows no locks."""
PATIENCE = 60.0
"""Seconds that a run waits while somebody makes the cache smaller."""


@dataclass(frozen=True)
class Entry:
    path: Path
    bytes: int
    used: float
    """When it was last asked for, in seconds since 1970."""


@dataclass(frozen=True)
class Kept:
    """The answers of one base."""

    folder: Path
    entries: tuple[Entry, ...]
    """Least lately used first."""
    users: int
    """Processes that work with them now."""

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)


@dataclass(frozen=True)
class Removed:
    entries: int
    bytes: int
    busy: tuple[Path, ...]
    """Folders that were left alone: a run works with them, or their disk knows no locks."""


def encoded() -> Path:
    """Where the answers of all bases lie. Raises StorageError where nothing may be written."""
    return cache_folder("encoded")


def use(folder: Path) -> None:
    """This process works with a base's answers until it ends: nobody removes one meanwhile."""
    _used(os.getpid(), folder)


@cache
def _used(process: int, folder: Path) -> None:
    lock = FileLock(folder / "users" / f"{process}-{uuid.uuid4().hex[:12]}.lock")
    with suppress(*NO_LOCK):
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "gate.lock", timeout=PATIENCE):
            lock.acquire(blocking=False)
        atexit.register(_release, process, lock)


def _release(process: int, lock: FileLock) -> None:
    """Not by a child that was forked and has inherited the wish."""
    if os.getpid() == process:
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def kept() -> list[Kept]:
    """What lies there, base by base, the largest first."""
    folders = [path for path in encoded().iterdir() if path.is_dir()]
    told = [Kept(folder, tuple(sorted(_entries(folder), key=lambda entry: entry.used)), _users(folder)) for folder in folders]
    return sorted((one for one in told if one.entries), key=lambda one: (-one.bytes, one.folder))


def chosen(found: list[Kept], *, older_than: float | None, max_size: float | None) -> list[Entry]:
    """What has to go: answers that nobody asked for in so many days; then, least lately used first, until all take so many bytes."""
    entries = sorted((entry for one in found for entry in one.entries), key=lambda entry: entry.used)
    before = time.time() - older_than * DAY if older_than is not None else 0.0
    gone = [entry for entry in entries if entry.used <= before]
    left = sum(entry.bytes for entry in entries[len(gone) :])
    for entry in entries[len(gone) :] if max_size is not None else ():
        if left <= (max_size or 0):
            break
        gone.append(entry)
        left -= entry.bytes
    return gone


def prune(found: list[Kept], gone: list[Entry]) -> Removed:
    """Removes them, but for what a run works with now."""
    count = size = 0
    busy = []
    for one in found:
        mine = [entry for entry in gone if entry.path.parents[1] == one.folder]
        try:
            with FileLock(one.folder / "gate.lock", timeout=0):
                if mine and _users(one.folder):
                    busy.append(one.folder)
                    continue
                for entry in mine:
                    with suppress(OSError):
                        entry.path.unlink()
                        count, size = count + 1, size + entry.bytes
                sweep(one.folder / "parts")
        except NO_LOCK:
            busy.append(one.folder)
    return Removed(count, size, tuple(busy))


def sweep(parts: Path) -> None:
    """What killed processes left half written, a day ago or longer."""
    with suppress(OSError):
        for path in parts.iterdir():
            if time.time() - path.stat().st_mtime > DAY:
                path.unlink(missing_ok=True)


def size_of(text: str) -> float:
    """`10GB` in bytes. Raises ConfigError."""
    told = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", text.strip(), re.IGNORECASE)
    unit = told[2].upper() if told else ""
    unit = f"{unit}B" if unit in ("K", "M", "G", "T") else unit
    if told is None or unit not in UNITS:
        raise ConfigError(f"is no size: {text!r}", where="--max-size", fix="e.g. 10GB, 500MB or 0", case=1)
    return float(told[1]) * UNITS[unit]


def _entries(folder: Path) -> Iterator[Entry]:
    for path in folder.glob("??/*.safetensors"):
        with suppress(OSError):  # somebody else removes it just now
            told = path.stat()
            yield Entry(path, told.st_size, told.st_mtime)


def _users(folder: Path) -> int:
    """Living ones; marks of the dead are taken away."""
    living = 0
    for path in (folder / "users").glob("*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except NO_LOCK:
            living += 1
            continue
        path.unlink(missing_ok=True)
        lock.release()
    return living
