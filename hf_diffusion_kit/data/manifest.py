"""What was fetched and what it was then: one JSON object a line, so that a line is whole or is the last one. Nobody publishes
checksums of COCO's pictures; these are our own, from the first time."""

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..errors import StorageError


@dataclass(frozen=True)
class Entry:
    name: str
    bytes: int
    sha256: str
    etag: str = ""
    """As the server stated it; empty where it stated none, or the file was there before."""
    fetched: str = ""
    """UTC, ISO 8601, to the second: when it was first here."""


@dataclass
class Manifest:
    """Several processes and threads may add to it. Of two lines about one name the last counts."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    torn: int = 0
    """Lines that cannot be read: a process was killed, or somebody edited them."""
    _read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, path: Path) -> "Manifest":
        manifest = cls(path)
        manifest.refresh()
        return manifest

    def refresh(self) -> None:
        """Reads what other processes have added meanwhile. Raises StorageError."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            if not self.path.exists() or self.path.stat().st_size == self._read:
                return
            with self.path.open("rb") as file:
                file.seek(self._read)
                lines = file.read()
        except OSError as error:
            raise StorageError(
                f"cannot be read: {error.strerror}", where=self.path, fix="see that it may be read", case=3
            ) from error
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = Entry(**json.loads(line))
                if not (isinstance(entry.name, str) and isinstance(entry.bytes, int) and isinstance(entry.sha256, str)):
                    raise TypeError
            except (ValueError, TypeError):
                self.torn += bool(line.strip())
                continue
            self.entries[entry.name] = entry

    def add(self, name: str, size: int, sha256: str, etag: str = "") -> None:
        """One write at the end of the file, on disk when this returns. Raises StorageError."""
        entry = Entry(name, size, sha256, etag, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        line = json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("a+b", buffering=0) as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # somebody was killed while writing
                        line = b"\n" + line
                file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror}", where=self.path, fix="free space", case=3) from error
        self.entries[name] = entry
