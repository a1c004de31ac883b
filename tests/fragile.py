"""A process that ends at the n-th thing that a save does to the disk, and a disk that then loses whatever was not synced."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save as serialised
from torch import Tensor

from hf_diffusion_kit.training import checkpoint as checkpoints

RMTREE, MKDIR, REPLACE, SYNC = shutil.rmtree, Path.mkdir, Path.replace, checkpoints.sync


class Fragile:
    """Counts creations, halves and ends of writes, syncs, renames and removals; `end` is called at number `at`, from 1 (0: never)."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, end: Callable[[], None], *, power_cut: bool = False):
        self.at, self.end, self.power_cut = at, end, power_cut
        self.told: list[str] = []
        """What was done so far, in order."""
        self._unsynced: set[Path] = set()
        self._names: dict[Path, Path | None] = {}
        """New name that its folder has not been synced with -> the name before, None for something new."""
        patch.setattr(checkpoints, "save_file", self._save_file)
        patch.setattr(checkpoints, "sync", self._sync)
        patch.setattr(shutil, "rmtree", self._rmtree)
        patch.setattr(Path, "write_text", lambda path, text, encoding=None: self._write(path, text.encode(encoding or "utf-8")))
        patch.setattr(Path, "mkdir", lambda path, **told: self._mkdir(path, **told))
        patch.setattr(Path, "replace", lambda path, target: self._replace(path, target))

    def _tick(self, what: str, path: Path) -> None:
        self.told.append(f"{what} {path.name}")
        if len(self.told) == self.at:
            if self.power_cut:
                self._lose()
            self.end()

    def _save_file(self, tensors: dict[str, Tensor], path: Path) -> None:
        self._write(path, serialised(tensors))

    def _write(self, path: Path, content: bytes) -> None:
        self._tick("create", path)
        self._unsynced.add(path)
        self._names[path] = None
        path.write_bytes(content[: len(content) // 2])
        self._tick("write half of", path)
        path.write_bytes(content)
        self._tick("close", path)

    def _sync(self, path: Path) -> None:
        self._tick("sync", path)
        SYNC(path)
        self._unsynced.discard(path)
        self._names = {name: before for name, before in self._names.items() if name.parent != path}

    def _mkdir(self, path: Path, **told: Any) -> None:
        self._tick("make", path)
        new = not path.exists()
        MKDIR(path, **told)
        if new:
            self._names[path] = None

    def _replace(self, path: Path, target: Path) -> None:
        self._tick("rename", path)
        REPLACE(path, target)

        def moved(name: Path) -> Path:
            return target / name.relative_to(path) if name.is_relative_to(path) else name

        self._unsynced = {moved(name) for name in self._unsynced}
        self._names = {moved(name): before for name, before in self._names.items() if name != path}
        self._names[target] = path

    def _rmtree(self, path: Path, ignore_errors: bool = False) -> None:
        self._tick("remove", path)
        if files := sorted(path.iterdir()) if path.is_dir() else []:
            files[0].unlink()
            self._tick("remove half of", path)
        RMTREE(path, ignore_errors=ignore_errors)

    def _lose(self) -> None:
        for path in self._unsynced:
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)
        for path, before in reversed(self._names.items()):
            if before is not None and path.exists():
                path.rename(before)
            elif path.is_dir():
                RMTREE(path)
            else:
                path.unlink(missing_ok=True)
