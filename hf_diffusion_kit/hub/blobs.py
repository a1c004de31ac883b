"""Bytes on disk by what they are: every blob lies under its own hash, is written once and never changed."""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STEP = 1 << 18
"""Bytes read at a time; large enough to be quick, small enough that a big file costs no memory."""


class Content(Protocol):
    """Something that has a size and can be read from anywhere: a blob, or a file made of Xet chunks."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes [start, end), in pieces."""


@dataclass(frozen=True)
class FileContent:
    path: Path
    size: int

    def read(self, start: int, end: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(STEP, end - start))):
                start += len(piece)
                yield piece


def git_sha1(data: bytes) -> str:
    """The name git gives to a blob, and the Hub to a regular file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The small text that git keeps in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Blobs:
    """Three shelves: `git` (regular files, by git-sha1), `lfs` (large files, by sha256), `xorbs` (Xet, by their Merkle hash)."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, shelf: str, name: str) -> Path:
        return self.folder / shelf / name[:2] / name

    def has(self, shelf: str, name: str) -> bool:
        return self.path(shelf, name).is_file()

    def content(self, shelf: str, name: str) -> FileContent:
        path = self.path(shelf, name)
        return FileContent(path, path.stat().st_size)

    def put(self, shelf: str, name: str, data: bytes) -> None:
        if self.has(shelf, name):
            return
        half = self._half(shelf, name)
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(self.path(shelf, name))

    async def receive(self, shelf: str, name: str, pieces: AsyncIterator[bytes], *, sha256: str | None = None) -> bool:
        """Writes a stream. False, and nothing is kept, when `sha256` is given and the bytes are not what it says."""
        half, digest = self._half(shelf, name), hashlib.sha256()
        try:
            with half.open("wb") as file:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if sha256 is not None and digest.hexdigest() != sha256:
                return False
            half.replace(self.path(shelf, name))
            return True
        finally:
            half.unlink(missing_ok=True)

    def _half(self, shelf: str, name: str) -> Path:
        path = self.path(shelf, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{name}.{secrets.token_hex(4)}.part")
