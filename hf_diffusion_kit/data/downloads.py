"""COCO from the web: only what a subset needs. The archive of annotations comes once, pictures one by one; both stay in a folder that
has COCO's own layout, so that it serves as `--images` and `--annotations` too.

What has arrived is kept however the command ends, and the same command goes on from there. HF_HUB_OFFLINE is heeded.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from ..errors import ConfigError, NetworkError, SourceError, StorageError
from ..records import file_sha256
from ..web import Patience, Rules, Wanted, Web
from .addresses import SECURE
from .archives import ARCHIVES, Archive, archive_of, take_out
from .arrivals import Arrivals, place_of
from .base import Findings, Row, some
from .manifest import Manifest
from .where import cache_folder

PICTURE_BYTES = 163_000
"""Of an average picture of COCO: train2014.zip has 13.5 GB for 82,783."""
MOST_CONNECTIONS = 16
REFUSED = 20
"""Pictures in a row, from the first on, after which a server that gives none is not asked for the rest."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Downloads:
    """Raises SourceError for what is wrong with a file or an address (3), StorageError for the disk (5), NetworkError when the network
    or the server fails (6)."""

    endpoint: str = SECURE
    """Where `annotations/...zip` and `val2014/...jpg` lie; https, or plain http on this machine."""
    folder: Path | None = None
    """None: below HF_HOME, `hf_diffusion_kit/coco`."""
    connections: int = 4
    """Pictures that are fetched at once, and how far it works ahead."""
    progress: bool = False
    keep_archive: bool = True
    """The zip of 253 MB stays, for it holds the other split of its year too; False deletes it once a split is taken out."""
    archives: Mapping[str, Archive] = field(default_factory=lambda: ARCHIVES, hash=False)
    """Split -> archive and its checksum."""
    patience: Patience = field(default_factory=Patience)
    findings: Findings = field(default_factory=Findings, compare=False)
    """Gets a note of what was in the folder and not as it should be."""

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= MOST_CONNECTIONS:
            what = f"lies between 1 and {MOST_CONNECTIONS}, got {self.connections}"
            raise ConfigError(what, where="connections", fix="few are enough, and polite", case=1)

    @cached_property
    def home(self) -> Path:
        return self.folder if self.folder is not None else cache_folder("coco")

    @property
    def base(self) -> str:
        return self.endpoint.rstrip("/")

    @cached_property
    def rules(self) -> Rules:
        """The endpoint and nobody else, wherever a redirect leads."""
        try:
            told = urlsplit(self.endpoint)
        except ValueError:
            return Rules(hosts=frozenset())  # what it is worth is said when it is asked
        ours = told.scheme == "http" and told.hostname in ("127.0.0.1", "localhost", "::1")
        return Rules(hosts=frozenset({told.hostname or ""}), loopback=told.netloc if ours else "")

    def annotations(self, split: str) -> Path:
        """The folder that has captions_<split>.json and instances_<split>.json. The archive comes once, and only when one of the two is
        not there; nothing but these two is taken out of it."""
        archive = archive_of(split, dict(self.archives))
        folder = self.home / "annotations"
        manifest = Manifest.open(self.home / "manifest_annotations.jsonl")
        names = [f"{kind}_{split}.json" for kind in ("captions", "instances")]
        if missing := [name for name in names if not _is_there(folder / name, manifest)]:
            zipped = self._archive(archive)
            for name in missing:
                size, sha256 = take_out(zipped, name, folder / name)
                manifest.add(name, size, sha256)
            if not self.keep_archive:
                zipped.unlink(missing_ok=True)
        return folder

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        """The picture of each row, in order, or why there is none: not there, no picture, wrong twice, or not as it was when it was
        first fetched. Those in the folder are compared with the manifest; the others are fetched, at most `connections` ahead.

        Raises NetworkError when pictures stop coming at all, or none of the first 20 comes. One that fails again and again while
        others come is an error of its own.
        """
        wanted = list(rows)
        missing = [row.file_name for row in wanted if not self._has(row)]
        if missing:
            self._may_ask(_still(missing, len(wanted)), len(missing) * PICTURE_BYTES)
        arrivals = Arrivals(self.base, self.home, self._offline)
        waiting: deque[tuple[Row, Future[bytes | SourceError | NetworkError]]] = deque()
        left = iter(wanted)
        done = good = 0
        try:
            with ThreadPoolExecutor(self.connections) as pool, Web(self.rules, self.patience) as web:  # hangs up first
                while True:
                    while len(waiting) < self.connections and (row := next(left, None)) is not None:
                        waiting.append((row, pool.submit(arrivals.one, row, web)))
                    if not waiting:
                        break
                    row, future = waiting.popleft()
                    content = future.result()
                    done, good = done + 1, good + isinstance(content, bytes)
                    if isinstance(content, SourceError) and done >= REFUSED and not good:
                        what = f"not one of the first {done} pictures came; of the last: {content.message}"
                        content = NetworkError(what, where=content.where, fix="is this the right split, and the right server?")
                    if isinstance(content, NetworkError):
                        still = [row.file_name for row in wanted if not self._has(row)]
                        what = f"{content.message}; {_still(still, len(wanted))}, about {size_of(len(still) * PICTURE_BYTES)}"
                        raise NetworkError(what, where=content.where, fix=content.fix)
                    yield row, content
        finally:
            self.findings.notes += arrivals.sentences()

    @property
    def _offline(self) -> str:
        """The variable by which the user wants nothing asked; empty for none. A server of this machine may be asked all the same."""
        told = [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
        return told[0] if told and not self.rules.loopback else ""

    def _has(self, row: Row) -> bool:
        try:
            return (self.home / place_of(row)).is_file()
        except SourceError:  # of a row that cannot be fetched anyway
            return True

    def _archive(self, archive: Archive) -> Path:
        """The zip, right to the last byte: fetched, or there already."""
        path = self.home / archive.name

        def is_whole() -> bool:
            return path.is_file() and path.stat().st_size == archive.bytes and file_sha256(path) == archive.sha256

        if is_whole():
            return path
        if path.is_file():
            self.findings.notes.append(f"{archive.name} was not as COCO publishes it, and was fetched anew")
        still = f"{archive.name} is still to come"
        self._may_ask(still, archive.bytes, room=3 * archive.bytes)
        wanted = Wanted(
            f"{self.base}/{archive.path}", path, archive.bytes, size=archive.bytes, sha256=archive.sha256, there=is_whole
        )
        bar = tqdm(total=archive.bytes, desc=archive.name, unit="B", unit_scale=True, disable=not self.progress)
        with bar, Web(self.rules, self.patience) as web:
            try:
                web.fetch(wanted, bar.update)
            except NetworkError as error:
                what = f"{error.message}; {still}, {size_of(archive.bytes)}"
                raise NetworkError(what, where=error.where, fix=error.fix) from error
        return path

    def _may_ask(self, what: str, about: int, room: int | None = None) -> None:
        """Before anything is fetched. `about`: bytes to come; `room`: that they take, unpacked too. Raises NetworkError where this is not
        wanted, StorageError where there is no room."""
        if told := self._offline:
            fix = f"unset {told}, or name a folder that has them"
            raise NetworkError(f"{what}, about {size_of(about)}, and {told} is set", where="COCO", fix=fix)
        home = self.home
        while not home.exists():
            home = home.parent
        if (free := shutil.disk_usage(home).free) < (room := room or about):
            fix = "free space, or name another folder"
            raise StorageError(f"{what}; {size_of(room)} are needed and {size_of(free)} free", where=self.home, fix=fix, case=3)


def _is_there(path: Path, manifest: Manifest) -> bool:
    """Taken out of the archive by us and as long as it was then; or put there by somebody."""
    entry = manifest.entries.get(path.name)
    return path.is_file() and (entry is None or path.stat().st_size == entry.bytes)


def _still(missing: list[str], of: int) -> str:
    return f"{some(missing)} of {of} pictures still to come"


def size_of(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number / 1e6, 0.1):.1f} MB"
