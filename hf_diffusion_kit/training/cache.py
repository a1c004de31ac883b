"""What the frozen parts of the model say of a picture or a caption, asked once: in memory, and on disk for the next run.

A file an item, so that any number of processes and runs may share a folder: it is written beside and renamed, and two that make the
same item write the same bytes. Each file carries a digest of its content; one that is damaged is made again. For SD1.5 at 512 pixels
(131 KB an item) writing costs 1 ms of a core and reading 0.3; one file for all would cost 0.5 and 0.1, and could be neither shared nor
half there.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..data.where import cache_folder
from .cache_disk import sweep, use

FORMAT = 1
"""Raised when the layout of a file changes: older files are then no longer found."""


class Cache:
    """`get` answers from memory, else from disk, else it has the answer made.

    `folder`: None keeps all in memory. `keep_bytes`: how much memory may hold; None is no limit. What is beyond it is read from disk each
    time; without a disk (or after it was full) there is no limit, for nothing could be asked again. Answers lie on `device`, contiguous
    and bit for bit the same whether they were made or read. They are shared: not to be changed in place.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        keep_bytes: int | None = None,
        device: torch.device | str = "cpu",
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.keep_bytes, self.device, self.say = folder, keep_bytes, device, say
        self.made = 0
        """Items that were asked of the model."""
        self.found = 0
        """Items that an earlier run, or another process, had left on disk."""
        self.mended = 0
        """Items whose file was damaged; they were made again, and are counted there too."""
        self.bytes = 0
        """Held in memory."""
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._on_disk_only: set[str] = set()
        self._writes = folder is not None
        self.disk_bytes = 0
        """Of the files that were asked for so far."""
        if folder is not None:
            sweep(folder / "parts")

    def get(self, parts: tuple[object, ...], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """`parts`: all that can change the answer, in plain values (numbers, text, tuples of them); see keys.py."""
        key = key_of(parts)
        if key in self._kept:
            return self._kept[key]
        tensors, stored = self._read(key), True
        if tensors is None:
            tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in make().items()}
            self.made += 1
            stored = self._write(key, tensors)
        elif key not in self._on_disk_only:
            self.found += 1
            with suppress(OSError):  # it was of use: `hfdk cache` goes by that
                os.utime(self._path(key))
                self.disk_bytes += self._path(key).stat().st_size
        return self._keep(key, {name: value.to(self.device) for name, value in tensors.items()}, stored)

    def __len__(self) -> int:
        """Items asked for so far."""
        return len(self._kept) + len(self._on_disk_only)

    def lines(self) -> list[str]:
        """What was spared and what was mended, for the log."""
        if self.folder is None:
            return []
        lines = [f"{self.found} of {self.made + self.found} encoded pictures and captions were on disk already"]
        return lines + ([f"damaged files of the cache, made again: {self.mended}"] if self.mended else [])

    def _keep(self, key: str, tensors: dict[str, Tensor], stored: bool) -> dict[str, Tensor]:
        # Full is full: in a shuffled epoch the oldest item is as likely to be asked for next as any other.
        size = sum(value.nbytes for value in tensors.values())
        if stored and self.keep_bytes is not None and self.bytes + size > self.keep_bytes:
            self._on_disk_only.add(key)
        else:
            self._kept[key] = tensors
            self.bytes += size
            self._on_disk_only.discard(key)
        return tensors

    def _path(self, key: str) -> Path:
        return (self.folder or Path()) / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        if self.folder is None:
            return None
        try:
            content = self._path(key).read_bytes()
            if _digest(key, content) == json.loads(_header(content))["__metadata__"]["sha256"]:
                return load(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            pass  # whatever a damaged header says
        self.mended += 1
        return None

    def _write(self, key: str, tensors: dict[str, Tensor]) -> bool:
        """Whether it lies on disk now. The first time that it cannot, this is said, and no more is tried."""
        if not self._writes:
            return False
        path = self._path(key)
        half = path.parents[1] / "parts" / f"{os.getpid()}-{os.urandom(8).hex()}"
        try:
            content = save(tensors, {"sha256": _digest(key, save(tensors))})
            for folder in (path.parent, half.parent):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                half.write_bytes(content)
                half.replace(path)
            except OSError:
                half.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._writes = False
            self.say(
                f"the cache cannot be written ({error.strerror or error}): what is encoded from here on is kept in memory only"
            )
            return False
        self.disk_bytes += len(content)
        return True


def encoded_folder(base: str) -> Path:
    """Where answers of a base lie, below HF_HOME, from now on in use; `base` is its identity. Raises StorageError where nothing may be written."""
    folder = cache_folder("encoded", base[:16])
    use(folder)
    return folder


def key_of(parts: tuple[object, ...]) -> str:
    """sha256; a number and its text, or (1, 23) and (12, 3), never have the same."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


def _header(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _digest(key: str, content: bytes) -> str:
    """Of names, types, shapes and bytes of a safetensors file, and of the key under which it lies; not of its metadata."""
    header = _header(content)
    told = {name: value for name, value in json.loads(header).items() if name != "__metadata__"}
    digest = hashlib.sha256(f"{key}\n{json.dumps(told, sort_keys=True)}\n".encode())
    digest.update(memoryview(content)[8 + len(header) :])
    return digest.hexdigest()
