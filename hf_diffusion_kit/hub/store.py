"""What the local Hub remembers: repositories, commits, branches, tags. One sqlite file beside the blobs.

A commit keeps the full list of its files, so any revision is one query, and a commit is one transaction: whole or absent.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .blobs import Blobs, Content, git_sha1, pointer
from .xet import Term, XetContent

TABLES = """
CREATE TABLE IF NOT EXISTS repos (kind TEXT, id TEXT, private INTEGER, gated TEXT, created TEXT, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS commits (
  number INTEGER PRIMARY KEY, oid TEXT UNIQUE, kind TEXT, id TEXT, parent TEXT, title TEXT, message TEXT, author TEXT, date TEXT
);
CREATE TABLE IF NOT EXISTS refs (kind TEXT, id TEXT, name TEXT, oid TEXT, PRIMARY KEY (kind, id, name));
CREATE TABLE IF NOT EXISTS files (
  oid TEXT, path TEXT, size INTEGER, git TEXT, sha256 TEXT, changed TEXT, PRIMARY KEY (oid, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS xet (sha256 TEXT PRIMARY KEY, hash TEXT UNIQUE, size INTEGER, terms TEXT);
"""

LARGE = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.onnx",
    "*.parquet",
    "*.arrow",
    "*.npz",
    "*.npy",
    "*.zip",
    "*.tar",
    "*.gz",
)
"""Kinds of files that go to large-file storage whatever their size, as in the Hub's own .gitattributes."""


class StaleParent(Exception):
    """Somebody else moved the branch after the caller looked at it."""


class InUse(StorageError):
    """Another process serves this folder."""


class BadChange(Exception):
    """A commit that cannot be: a path that leaves the repository, an object never uploaded, a file that is not there."""


@dataclass(frozen=True)
class Repo:
    kind: str
    """`model` or `dataset`."""
    id: str
    private: bool
    gated: str | None
    created: str

    @property
    def prefix(self) -> str:
        """What stands before the id in the address of a page."""
        return "" if self.kind == "model" else f"{self.kind}s/"


@dataclass(frozen=True)
class Entry:
    """One file of one commit."""

    path: str
    size: int
    git: str
    """git-sha1 of the file, or of its pointer when it is large."""
    sha256: str | None
    """Set for large files only."""
    changed: str = ""
    """The commit that last changed it."""

    @property
    def etag(self) -> str:
        return self.sha256 or self.git


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Changes:
    """What one commit does, in the order of the request's lines."""

    title: str
    message: str
    put: dict[str, Entry]
    remove: list[str]
    remove_folders: list[str]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Store:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.blobs = Blobs(folder / "blobs")
        # Used from the server's thread and closed from the one that opened it, never by both at once.
        self.db = sqlite3.connect(folder / "hub.sqlite", check_same_thread=False, isolation_level=None, timeout=0.2)
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            self.db.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")
        except sqlite3.Error as error:
            self.db.close()
            if "locked" in str(error):
                raise InUse(
                    "another process serves this local Hub", where=folder, fix="stop it, or name another folder"
                ) from error
            raise StorageError(f"this is no folder of a local Hub: {error}", where=folder, fix="name another folder") from error

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # Repositories

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repo:
        """A repository with its first commit, for a branch without one has no head."""
        with self.transaction():
            repo = Repo(kind, repo_id, private, None, now())
            self.db.execute("INSERT INTO repos VALUES (?, ?, ?, NULL, ?)", (kind, repo_id, private, repo.created))
            attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()
            self.blobs.put("git", git_sha1(attributes), attributes)
            first = Entry(".gitattributes", len(attributes), git_sha1(attributes), None)
            self._write_commit(repo, "refs/heads/main", None, Changes("initial commit", "", {first.path: first}, [], []), author)
        return repo

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        row = self.db.execute("SELECT * FROM repos WHERE kind = ? AND id = ?", (kind, repo_id)).fetchone()
        return Repo(row[0], row[1], bool(row[2]), row[3], row[4]) if row else None

    def repos(self) -> list[Repo]:
        rows = self.db.execute("SELECT * FROM repos ORDER BY kind, id").fetchall()
        return [Repo(row[0], row[1], bool(row[2]), row[3], row[4]) for row in rows]

    def delete(self, repo: Repo) -> None:
        """Forgets the repository; its blobs stay, for others may share them."""
        with self.transaction():
            self.db.execute(
                "DELETE FROM files WHERE oid IN (SELECT oid FROM commits WHERE kind = ? AND id = ?)", (repo.kind, repo.id)
            )
            for table in ("commits", "refs", "repos"):
                self.db.execute(f"DELETE FROM {table} WHERE kind = ? AND id = ?", (repo.kind, repo.id))

    def change_settings(self, repo: Repo, *, private: bool, gated: str | None) -> None:
        self.db.execute("UPDATE repos SET private = ?, gated = ? WHERE kind = ? AND id = ?", (private, gated, repo.kind, repo.id))

    # Revisions

    def resolve(self, repo: Repo, revision: str) -> str | None:
        """Branch, tag, full ref name or commit sha -> commit sha."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if oid := self.refs(repo).get(name):
                return oid
        row = self.db.execute(
            "SELECT oid FROM commits WHERE kind = ? AND id = ? AND oid = ?", (repo.kind, repo.id, revision)
        ).fetchone()
        return row[0] if row else None

    def refs(self, repo: Repo) -> dict[str, str]:
        return dict(self.db.execute("SELECT name, oid FROM refs WHERE kind = ? AND id = ?", (repo.kind, repo.id)).fetchall())

    def set_ref(self, repo: Repo, name: str, oid: str | None) -> None:
        """None removes the ref."""
        if oid is None:
            self.db.execute("DELETE FROM refs WHERE kind = ? AND id = ? AND name = ?", (repo.kind, repo.id, name))
        else:
            self.db.execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?, ?)", (repo.kind, repo.id, name, oid))

    def history(self, oid: str | None) -> Iterator[Commit]:
        """From a commit back to the first one."""
        while oid is not None:
            row = self.db.execute(
                "SELECT oid, parent, title, message, author, date FROM commits WHERE oid = ?", (oid,)
            ).fetchone()
            yield Commit(*row)
            oid = row[1]

    def files(self, oid: str) -> dict[str, Entry]:
        rows = self.db.execute("SELECT path, size, git, sha256, changed FROM files WHERE oid = ? ORDER BY path", (oid,))
        return {row[0]: Entry(*row) for row in rows}

    def commit(self, repo: Repo, branch: str, parent: str | None, changes: Changes, author: str) -> str:
        """Raises StaleParent when `parent` is given and is not the head, BadChange when the commit cannot be."""
        ref = f"refs/heads/{branch}"
        with self.transaction():
            head = self.refs(repo).get(ref)
            if head is None:
                raise BadChange(f"there is no branch {branch!r}")
            if parent is not None and parent != head:
                raise StaleParent(f"the branch is at {head}, not at {parent}")
            return self._write_commit(repo, ref, head, changes, author)

    def _write_commit(self, repo: Repo, ref: str, head: str | None, changes: Changes, author: str) -> str:
        oid = secrets.token_hex(20)
        files = self.files(head) if head else {}
        for path in changes.remove:
            if files.pop(path, None) is None:
                raise BadChange(f"A file with this name doesn't exist: {path}")
        for folder in changes.remove_folders:
            inside = [path for path in files if path.startswith(folder.rstrip("/") + "/")]
            for path in inside:
                del files[path]
        for path, entry in changes.put.items():
            if entry.sha256 is not None and not self.has_large(entry.sha256):
                raise BadChange(f"the content of {path} was never uploaded")
            files[path] = replace(entry, changed=oid)
        if both := next((path for path in files if any(parent in files for parent in folders_of(path))), None):
            raise BadChange(f"{both} lies in a folder that is a file too")
        self.db.execute(
            "INSERT INTO commits (oid, kind, id, parent, title, message, author, date) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (oid, repo.kind, repo.id, head, changes.title, changes.message, author, now()),
        )
        rows = [(oid, e.path, e.size, e.git, e.sha256, e.changed) for e in files.values()]
        self.db.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.set_ref(repo, ref, oid)
        return oid

    # Content

    def has_large(self, sha256: str) -> bool:
        return self.blobs.has("lfs", sha256) or self.xet_hash(sha256) is not None

    def xet_hash(self, sha256: str | None) -> str | None:
        row = self.db.execute("SELECT hash FROM xet WHERE sha256 = ?", (sha256,)).fetchone()
        return row[0] if row else None

    def xet_content(self, xet_hash: str) -> XetContent | None:
        row = self.db.execute("SELECT size, terms FROM xet WHERE hash = ?", (xet_hash,)).fetchone()
        return XetContent(self.blobs, row[0], tuple(Term(*term) for term in json.loads(row[1]))) if row else None

    def add_xet(self, sha256: str, xet_hash: str, content: XetContent) -> None:
        terms: list[Any] = [[term.xorb, term.first, term.last, term.size] for term in content.terms]
        self.db.execute("INSERT OR REPLACE INTO xet VALUES (?, ?, ?, ?)", (sha256, xet_hash, content.size, json.dumps(terms)))

    def content(self, entry: Entry) -> Content:
        if entry.sha256 is None:
            return self.blobs.content("git", entry.git)
        if self.blobs.has("lfs", entry.sha256):
            return self.blobs.content("lfs", entry.sha256)
        content = self.xet_content(self.xet_hash(entry.sha256) or "")
        if content is None:
            raise StorageError(f"the bytes of {entry.path} are gone", where=self.blobs.folder, fix="push the file again")
        return content


def large_entry(path: str, size: int, sha256: str) -> Entry:
    return Entry(path, size, git_sha1(pointer(sha256, size)), sha256)


def folders_of(path: str) -> list[str]:
    """`a/b/c.txt` -> `a`, `a/b`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def is_clean(path: str) -> bool:
    """Whether a path from outside may name a file of a repository."""
    parts = path.split("/")
    return not any(part in ("", ".", "..", ".git") for part in parts) and not any(c in path for c in "\\\0\r\n")
