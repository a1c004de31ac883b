"""A file that is not whole yet: `name.part`, and `name.part.json` that says which version of it this is the beginning of."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ..errors import StorageError

LOCKS = 256
"""Files that locks are spread over: few, and two downloads at once seldom meet in one."""


@dataclass
class Part:
    path: Path
    """Where the file will be."""
    validator: str = ""
    """ETag or date with which the server knows the version again; empty: cannot be gone on with."""
    md5: str = ""
    """As the server states it; empty where it states none."""
    have: int = 0
    _file: BinaryIO | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".part.json")

    @classmethod
    def found(cls, path: Path) -> "Part":
        """What an earlier attempt has left, if it can be gone on with."""
        part = cls(path)
        try:
            told = json.loads(part.note.read_text(encoding="utf-8"))
            part.validator, part.md5 = str(told["validator"]), str(told["md5"])
            part.have = part.file.stat().st_size if part.validator else 0
        except (OSError, ValueError, KeyError, TypeError):
            part.validator, part.md5, part.have = "", "", 0
        return part

    def begin(self, validator: str, md5: str) -> None:
        """Anew. The note goes first and comes back when the old bytes are gone: it never speaks of another version's bytes."""
        with writing(self.path):
            self.close()
            self.note.unlink(missing_ok=True)
            self._file = self.file.open("wb")
            self.validator, self.md5, self.have = validator, md5, 0
            if validator:
                half = self.note.with_name(self.note.name + ".new")
                half.write_text(json.dumps({"validator": validator, "md5": md5}), encoding="utf-8")
                half.replace(self.note)

    def add(self, content: bytes) -> None:
        with writing(self.path):
            if self._file is None:
                self._file = self.file.open("ab")
            self._file.write(content)
            self._file.flush()  # a killed process loses nothing of it
            self.have += len(content)

    def close(self) -> None:
        """What was added is on disk."""
        with writing(self.path):
            if self._file is not None:
                file, self._file = self._file, None
                with file:
                    file.flush()
                    os.fsync(file.fileno())

    def drop(self) -> None:
        self.close()
        with writing(self.path):
            self.note.unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)
        self.validator, self.md5, self.have = "", "", 0

    def finish(self) -> None:
        """Gives the file its name."""
        self.close()
        with writing(self.path):
            self.file.replace(self.path)
            self.note.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise StorageError(what, where=path, fix="free space, or name another folder", case=3) from error


@contextmanager
def alone(path: Path, waits: Callable[[], bool]) -> Iterator[None]:
    """No other process or thread works on this file meanwhile. `waits`: asked now and then while another one does; False gives up
    with InterruptedError."""
    folder = path.parent / ".locks"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{zlib.crc32(path.name.encode()) % LOCKS:02x}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5, poll_interval=0.05)
        except Timeout as error:
            if not waits():
                raise InterruptedError from error
        except OSError as error:
            raise StorageError(
                f"cannot be locked: {error.strerror or error}", where=path, fix="name another folder", case=3
            ) from error
    try:
        yield
    finally:
        lock.release()
