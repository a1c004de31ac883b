"""Pictures as they arrive: each compared with what it was when it was first fetched, or put down as what it is now.

Runs in several threads, where Pillow's warnings cannot be kept in order; so a picture is known by its structure from the first mark to
the last here, and is decoded in full by whoever takes it from here.
"""

import hashlib
import re
import threading
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import NetworkError, SourceError
from ..web import Fetched, Wanted, Web
from .base import Row, some
from .manifest import Manifest
from .pictures import AGAIN, read, what_is
from .stripped import Unreadable, strip

MOST_BYTES = 64_000_000
"""Of one picture at most; the largest of COCO has 0.8 MB."""
SPLIT = re.compile(r"(train|val|test|unlabeled)\d{4}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}\.(jpe?g|png)", re.IGNORECASE)
ADOPTED = "pictures that were in the folder and not in its manifest; they are whole, and were kept"
MENDED = "pictures in the folder that were not as they were first fetched, and were asked for anew"
BEGINNINGS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"RIFF", "WEBP"))


class Arrivals:
    """One pass over rows: which pictures came, and what was unusual. Called from several threads."""

    def __init__(self, base: str, home: Path, offline: str = ""):
        self.base, self.home, self.offline = base, home, offline
        self._lock = threading.Lock()
        self.manifests: dict[str, Manifest] = {}
        self.came = 0
        """Answers that the server has given about single pictures."""
        self.unusual: dict[str, list[str]] = defaultdict(list)

    def one(self, row: Row, web: Web) -> bytes | SourceError | NetworkError:
        try:
            place = place_of(row)
        except SourceError as error:
            return error
        before = self.came
        try:
            content = self._content(place, web)
        except SourceError as error:
            self.came += 1
            return error
        except NetworkError as error:
            if self.came == before:
                return error
            what = f"{error.message}, while others came"
            return SourceError(what, where=error.where, fix=error.fix, case=12)
        return content

    def _content(self, place: str, web: Web) -> bytes:
        split, _, name = place.partition("/")
        manifest = self._manifest(split)
        path = self.home / place
        if (content := self._kept(path, manifest)) is not None:
            return content
        if self.offline:
            what = f"is not as it was when it was first fetched, and {self.offline} is set"
            raise NetworkError(what, where=path, fix=f"unset {self.offline}")
        address = f"{self.base}/{place}"
        taken: list[bytes] = []

        def accept(part: Path, fetched: Fetched) -> None:
            content = read(part)
            whole(content, address)
            first = manifest.entries.get(name)
            if first is not None and first.sha256 != fetched.sha256:
                what = f"is another picture than on {first.fetched[:10]}: sha256 {first.sha256[:12]}... then, {fetched.sha256[:12]}... now"
                raise SourceError(what, where=address, fix=f"delete its line from {manifest.path.name} to take the new one")
            if first is None:
                manifest.add(name, fetched.bytes, fetched.sha256, fetched.etag)
            taken.append(content)

        def there() -> bool:
            manifest.refresh()
            if (content := self._kept(path, manifest)) is not None:
                taken.append(content)
            return bool(taken)

        web.fetch(Wanted(address, path, MOST_BYTES, there=there, accept=accept))
        self.came += 1
        return taken[-1]

    def _kept(self, path: Path, manifest: Manifest) -> bytes | None:
        """What is in the folder, if it is what was first fetched; without an entry, if it is a whole picture."""
        if not path.is_file():
            return None
        content = read(path)
        entry = manifest.entries.get(path.name)
        if entry is not None:
            if hashlib.sha256(content).hexdigest() == entry.sha256:
                return content
        else:
            try:
                whole(content, path)
            except SourceError:
                pass
            else:
                manifest.add(path.name, len(content), hashlib.sha256(content).hexdigest())
                self.unusual[ADOPTED].append(path.name)
                return content
        if path.name not in self.unusual[MENDED]:
            self.unusual[MENDED].append(path.name)
        return None

    def _manifest(self, split: str) -> Manifest:
        with self._lock:
            if split not in self.manifests:
                self.manifests[split] = Manifest.open(self.home / f"manifest_{split}.jsonl")
            return self.manifests[split]

    def sentences(self) -> list[str]:
        torn = sum(manifest.torn for manifest in self.manifests.values())
        notes = [f"{reason}: {some(names)}" for reason, names in self.unusual.items() if names]
        return notes + ([f"lines of the folder's manifest that cannot be read: {torn}"] if torn else [])


def place_of(row: Row) -> str:
    """`val2014/COCO_val2014_000000391895.jpg`: where a picture lies below the endpoint, and below the folder. By the end of its address;
    where that says nothing (old files of 2014), by split and file name. Raises SourceError for a row that has neither."""
    try:
        told = urlsplit(row.coco_url.strip()).path.split("/")[-2:]
    except ValueError:
        told = []
    for split, name in (told if len(told) == 2 else ("", ""), (row.split, row.file_name.rpartition("/")[2])):
        if SPLIT.fullmatch(split) and NAME.fullmatch(name):
            return f"{split}/{name}"
    fix = "name the folder of the pictures"
    raise SourceError(f"has no address at COCO's server ({row.coco_url[:80]!r})", where=row.file_name, fix=fix, case=15)


def whole(content: bytes, where: object) -> None:
    """Raises SourceError for what is no picture, or has no end."""
    form = next((form for mark, form in BEGINNINGS if content.startswith(mark)), None)
    if form is None:
        what, fix = what_is(content)
        raise SourceError(what, where=where, fix=fix, case=5 if content else 1)
    try:
        strip(content, form)
    except Unreadable as error:
        raise SourceError(f"is cut short or damaged: {error.message}", where=where, fix=AGAIN, case=1) from error
