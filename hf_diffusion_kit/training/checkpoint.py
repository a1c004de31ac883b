"""Everything a run needs to go on as if it had never stopped: one folder a checkpoint, safetensors and JSON, whole or absent."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.durable import sync
from ..errors import CheckpointError, StorageError
from ..records import file_sha256

FORMAT = 1
"""Raised when the folder's layout changes; a reader refuses what is newer than itself."""
NAME = re.compile(r"checkpoint-(\d{6,})")
HALF = ".tmp-checkpoint-"
"""How the names of folders begin that are not whole yet; a killed process leaves one."""
FILES = ("weights.safetensors", "optimizer.safetensors", "state.json")
"""What every checkpoint has."""
OPTIONAL = ("ema", "pictures")
"""What some have besides, as safetensors."""


@dataclass(frozen=True)
class Checkpoint:
    step: int
    """Optimizer steps taken."""
    weights: dict[str, Tensor]
    """`part.name` -> trained parameter."""
    optimizer: dict[str, Tensor]
    """`index.key` -> tensor of the optimizer's state."""
    state: dict[str, Any]
    """JSON: losses, ledger, the settings the run was started with."""
    ema: dict[str, Tensor] = field(default_factory=dict)
    """`part.name` -> averaged weight, where an average is kept."""
    pictures: dict[str, Tensor] = field(default_factory=dict)
    """Which pictures were learnt from (`pictured`); none in what is kept for its weights alone, or by an earlier version."""


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes `checkpoint-000123` into the run's folder; older ones go only when the new one has been read back."""
    target = folder / f"checkpoint-{checkpoint.step:06d}"
    half = folder / f"{HALF}{checkpoint.step:06d}"
    try:
        for left in folder.glob(f"{HALF}*"):
            shutil.rmtree(left, ignore_errors=True)
        half.mkdir(parents=True)
        for name in ("weights", "optimizer", *(name for name in OPTIONAL if getattr(checkpoint, name))):
            told = {k: v.detach().cpu().contiguous() for k, v in getattr(checkpoint, name).items()}
            save_file(told, half / f"{name}.safetensors")
        (half / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.state}), encoding="utf-8")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(half.iterdir())}
        (half / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
        for path in (*half.iterdir(), half):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)  # only ever one that was found broken, or the same step again
        half.replace(target)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(half, ignore_errors=True)
        raise StorageError(
            f"the checkpoint of step {checkpoint.step} could not be written ({left_on_disk(folder)}): {error}",
            where=folder,
            fix="make room or name another folder, then `hfdk resume`; the checkpoint before it is untouched",
            case=3,
        ) from error
    if fault := broken(target):
        raise CheckpointError(f"was written and cannot be read back: {fault}", where=target, case=1)
    tidy(folder, checkpoint.step, keep=keep)
    return target


def tidy(folder: Path, newest_valid: int, *, keep: int) -> None:
    """Removes what a killed process left half written, and older checkpoints than are to be kept."""
    older = [step for step in steps_in(folder) if step < newest_valid]
    for old in older[: max(0, len(older) - keep + 1)]:
        shutil.rmtree(folder / f"checkpoint-{old:06d}", ignore_errors=True)
    for left in folder.glob(f"{HALF}*"):
        shutil.rmtree(left, ignore_errors=True)


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest valid checkpoint; `say` is told of each one that was passed over, and why. None when there is none at all.

    Raises CheckpointError when there are some and none is valid, and for one that a later version of this package wrote: it may be sound,
    and going on from an older one would write over it.
    """
    found = steps_in(folder)
    for step in reversed(found):
        path = folder / f"checkpoint-{step:06d}"
        if (version := format_of(path)) > FORMAT:
            raise CheckpointError(
                f"has format {version}, and this version of hf-diffusion-kit reads up to {FORMAT}",
                where=path,
                fix="update hf-diffusion-kit, or move that folder away to go on from the checkpoint before it",
                case=7,
            )
        if fault := broken(path):
            say(f"{path.name} passed over: {fault}")
            continue
        return load(path)
    if found:
        raise CheckpointError("holds no valid checkpoint", where=folder, fix="start the run anew in another folder", case=1)
    return None


def load(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    told = {name: load_file(path / f"{name}.safetensors") for name in ("weights", "optimizer")}
    told |= {name: load_file(path / f"{name}.safetensors") for name in OPTIONAL if (path / f"{name}.safetensors").is_file()}
    return Checkpoint(state.pop("step"), state=state, **told)


def broken(path: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is as its manifest says."""
    try:
        files = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["files"]
        if missing := [name for name in FILES if name not in files]:
            return f"its manifest.json does not name {missing[0]}"
        for name, told in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != told["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {told['bytes']}"
            if file_sha256(file) != told["sha256"]:
                return f"{name} is not what was written (sha256)"
    except FileNotFoundError:
        return "it has no manifest.json"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest.json cannot be read: {error}"
    return None


def format_of(path: Path) -> int:
    """The format that a checkpoint's manifest names; 0 where there is none to be read."""
    try:
        told = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return told if isinstance(told, int) else 0


def steps_in(folder: Path) -> list[int]:
    """Steps of all checkpoints in a folder, in order; folders with other names are not looked at."""
    if not folder.is_dir():
        return []
    names = (NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in names if match)


def left_on_disk(folder: Path) -> str:
    return f"{shutil.disk_usage(existing(folder)).free:,} bytes are free"


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for everything that differs between two flat settings."""
    keys = sorted(before.keys() | now.keys())
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
