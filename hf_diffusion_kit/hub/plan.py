"""What a push would do, file by file, before anything is sent: add, change, same, delete, REFUSED."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ..cards import front_matter
from ..errors import HubError
from .blobs import STEP
from .rules import card_faults
from .secrets import machine_names, scan_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

ALLOWED = (
    *("*.safetensors", "*.json", "*.jsonl", "*.md", "*.txt", "*.yaml", "*.yml", "*.toml", "*.csv", "*.model", "*.py", "*.ipynb"),
    *("*.png", "*.jpg", "*.jpeg", "*.webp", "*.parquet", ".gitattributes", "LICENSE", "NOTICE"),
)
"""Kinds of files that may be published; anything else is refused, not skipped."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib")
JUNK = (
    *(".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".venv", ".DS_Store", "Thumbs.db", ".env", ".env.*", "*.pyc"),
    *("*.part", "*.tmp", "*.swp", "*~", "*.lock", ".netrc", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "token", "token-read"),
)


class Action(Enum):
    ADD = "add"
    CHANGE = "change"
    SAME = "same"
    DELETE = "delete"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Staged:
    """One local file that may go, as it was when it was looked at."""

    path: str
    local: Path
    size: int
    stamp: int
    """Time of the last change in ns; another value at the push means another file."""
    sha256: str
    git: str
    """git-sha1, the name of a regular file on the Hub."""

    def is_at(self, remote: "RepoFile") -> bool:
        return self.size == remote.size and (remote.lfs.sha256 == self.sha256 if remote.lfs else remote.blob_id == self.git)


@dataclass(frozen=True)
class Row:
    action: Action
    path: str
    size: int
    """Bytes; for a file to be deleted, its size on the Hub."""
    reason: str = ""
    """Why it is refused."""


@dataclass(frozen=True)
class Plan:
    rows: tuple[Row, ...]

    def of(self, *actions: Action) -> list[Row]:
        return [row for row in self.rows if row.action in actions]

    @property
    def changes(self) -> bool:
        return bool(self.of(Action.ADD, Action.CHANGE, Action.DELETE))

    @property
    def bytes_to_send(self) -> int:
        return sum(row.size for row in self.of(Action.ADD, Action.CHANGE))

    def counts(self) -> str:
        """`3 add, 1 change, 5 same (12,345 bytes to send)`."""
        parts = [f"{len(rows)} {action.value}" for action in Action if (rows := self.of(action))]
        return f"{', '.join(parts) or 'nothing'} ({self.bytes_to_send:,} bytes to send)"

    def table(self) -> str:
        """One line a file, refused ones last, and the counts."""
        lines = [
            f"{row.action.value:8}{row.size:>15,}  {row.path}{f'  ({row.reason})' if row.reason else ''}" for row in self.rows
        ]
        return "\n".join([*lines, self.counts()])


@dataclass(frozen=True)
class Stage:
    """What a folder offers: files that may go, and refused ones with the reason."""

    staged: dict[str, Staged]
    refused: tuple[Row, ...]

    def changed_since(self) -> list[str]:
        """Paths of files that are no longer what was looked at."""
        return [path for path, file in self.staged.items() if not same_file(file)]


def put(source: Path, target: Path) -> None:
    """A file into a folder that will be looked at and pushed: linked, or copied from another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def same_file(file: Staged) -> bool:
    try:
        stat = file.local.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (file.size, file.stamp)


def stage_folder(folder: Path, *, private_names: frozenset[str] | None = None) -> Stage:
    """Looks at every file below `folder`; no network. `private_names` are words that must not appear in any (default: the
    names of this user and machine). Raises HubError when the folder is not there or is empty."""
    if not folder.is_dir():
        raise HubError("there is no such folder to publish", where=folder, fix="name the folder that holds the files")
    names = machine_names() if private_names is None else private_names
    staged: dict[str, Staged] = {}
    refused: list[Row] = []
    for local in sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()):
        path = local.relative_to(folder).as_posix()
        if reason := refusal(folder, local, path, names):
            refused.append(Row(Action.REFUSED, path, local.lstat().st_size, reason))
        else:
            staged[path] = stage(local, path)
    if not staged and not refused:
        raise HubError("the folder is empty, there is nothing to publish", where=folder, fix="write the files first")
    return Stage(staged, tuple(refused))


def make_plan(stage: Stage, remote: "dict[str, RepoFile]", *, delete: Iterable[str] = ()) -> Plan:
    """Compares a staged folder with the files of a repository. Of remote files that are not in the folder, only those that
    match a pattern of `delete` are deleted."""
    rows = list(stage.refused)
    for path, file in stage.staged.items():
        there = remote.get(path)
        action = Action.ADD if there is None else Action.SAME if file.is_at(there) else Action.CHANGE
        rows.append(Row(action, path, file.size))
    patterns, kept = tuple(delete), {*stage.staged, ".gitattributes"}
    gone = [path for path in remote if path not in kept and any(fnmatch(path, pattern) for pattern in patterns)]
    rows += [Row(Action.DELETE, path, remote[path].size) for path in gone]
    order = list(Action)
    return Plan(tuple(sorted(rows, key=lambda row: (order.index(row.action), row.path))))


def refusal(folder: Path, local: Path, path: str, names: frozenset[str]) -> str:
    """Why a file must not be published; empty when it may."""
    name = local.name
    if not local.resolve().is_relative_to(folder.resolve()):
        return "a link that leads out of the folder"
    if not local.is_file():
        return "not a plain file"
    if any(fnmatch(part, kind) for part in path.split("/") for kind in JUNK):
        # A look inside all the same: whoever learns that a token lies there can replace it.
        findings = scan_file(local, shown=path, names=names)
        return "a file that does not belong in a repository" + (f"; holds {findings[0]}" if findings else "")
    if any(fnmatch(name.lower(), kind) for kind in PICKLES):
        return "a pickle can run code where it is opened; publish safetensors"
    if not any(fnmatch(name if kind.isupper() else name.lower(), kind) for kind in ALLOWED):
        return "not a kind of file that is published"
    if re.search(r"[\\\x00-\x1f]", path):
        return "a name with characters that no repository takes"
    if findings := scan_file(local, shown=path, names=names):
        return "; ".join(f"{found.kind} ({found.prefix}) at byte {found.offset}" for found in findings)
    if path == "README.md":
        try:
            faults = card_faults(front_matter.read(local.read_text(encoding="utf-8")))
        except ValueError as error:
            faults = [str(error)]
        return "; ".join(faults)
    return ""


def stage(local: Path, path: str) -> Staged:
    """Reads the file once for both of the names that the Hub may give it."""
    stat = local.stat()
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % stat.st_size, usedforsecurity=False)
    with local.open("rb") as file:
        while piece := file.read(STEP):
            sha256.update(piece)
            git.update(piece)
    return Staged(path, local, stat.st_size, stat.st_mtime_ns, sha256.hexdigest(), git.hexdigest())
