"""Rows on their way lie on disk, memory-mapped, so that a million pictures need no more memory than a hundred.

Each process has a folder of its own for them, which goes when the process ends. Folders of processes that were killed go when
the next one starts.
"""

import atexit
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors import StorageError
from .where import cache_folder

BATCH_ROWS = 100
"""Most rows of a batch, and of a row group of Parquet: what a reader has to hold at once."""
BATCH_BYTES = 32_000_000
"""A batch that has as much is full."""
YOUNG = 60
"""Seconds in which the lock of a folder that is just being made is left alone."""


def spooled(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Path:
    """Writes the batches, as they come, to an Arrow stream in this process's folder. It stays until the process ends: workers that
    are handed the table open it by its name. Raises StorageError when the disk is full; then, as after any error, nothing is left.
    """
    with _to(None):
        folder = _own(os.getpid())
        if not folder.is_dir():  # somebody has emptied the cache meanwhile
            _own.cache_clear()
            folder = _own(os.getpid())
        path = folder / f"{uuid.uuid4().hex}.arrow"
        sink = pa.OSFile(str(path), "wb")
    whole = False
    try:
        with _to(path.parent):
            writer = pa.ipc.new_stream(sink, schema)
        for batch in batches:
            with _to(path.parent):
                writer.write_batch(batch)
        with _to(path.parent):
            writer.close()
            sink.close()
        whole = True
    finally:
        if not whole:
            _closed(sink)
            path.unlink(missing_ok=True)
    return path


@contextmanager
def _to(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        told = os.strerror(error.errno) if error.errno else str(error)
        what, fix = f"pictures cannot be kept: {told}", "free space, or set HF_HOME to another disk"
        raise StorageError(what, where=folder or "cache folder", fix=fix, case=3) from error


def _closed(sink: pa.NativeFile) -> None:
    with suppress(OSError):  # the disk is full, which has been said
        sink.close()


def remove(path: Path, process: int) -> None:
    """A file of rows that nobody will open again. Not by a child that was forked and has inherited the wish."""
    if os.getpid() == process:
        with suppress(OSError):  # a system that keeps mapped files open; it goes when the process ends
            path.unlink()


@cache
def _own(process: int) -> Path:
    """This process's folder. Its name has the process's number, its life is told by a lock: numbers are used again, and those of
    other machines on the same disk mean nothing here."""
    above = cache_folder("spool")
    _sweep(above)
    folder = above / f"{process}-{uuid.uuid4().hex[:12]}"
    lock = FileLock(folder.with_suffix(".lock"))
    lock.acquire()
    folder.mkdir()
    atexit.register(_remove, process, folder, lock)
    return folder


def _remove(process: int, folder: Path, lock: FileLock) -> None:
    """Not by a child that was forked and has inherited the wish."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _sweep(above: Path) -> None:
    """Folders whose process is dead."""
    for held in above.glob("*.lock"):
        lock = FileLock(held)
        try:
            if time.time() - held.stat().st_mtime < YOUNG and not held.with_suffix("").exists():
                continue
            lock.acquire(blocking=False)
        except (OSError, NotImplementedError, Timeout):  # it lives, or this disk knows no locks
            continue
        shutil.rmtree(held.with_suffix(""), ignore_errors=True)
        held.unlink(missing_ok=True)
        lock.release()
