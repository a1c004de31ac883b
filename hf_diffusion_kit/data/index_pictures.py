"""What a file of captions says of its pictures, in its own order."""

import unicodedata
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .addresses import official
from .annotations import Image
from .arrow import read_texts
from .base import Findings
from .index_ids import Ids
from .index_spill import Spill, TextWriter
from .licenses import COCO
from .paths import plain_name


def split_of(file: Path) -> str:
    """captions_val2014.json -> val2014."""
    return file.stem.removeprefix("captions_")


class Pictures:
    """Texts go into the index as they come, numbers wait for their order."""

    def __init__(self, file: Path, folder: Path, waiting: Path) -> None:
        self.file, self.folder, self.split = file, folder, split_of(file)
        self.ids = Ids(waiting, "pictures")
        self.width, self.height, self.license = (Spill(waiting / name, np.int32) for name in ("width", "height", "license"))
        self.texts = {name: TextWriter(folder, name) for name in ("file_name", "flickr_url", "coco_url")}
        self.stated = _Stated()
        self.told: dict[str, tuple[str, str]] = {}
        """Licence number -> name and address, of those that the file names."""

    def add(self, part: list[Image]) -> None:
        self.ids.add([image.id for image in part])
        names = [image.file_name for image in part]
        if not _harmless("\n".join(names), len(names)):
            pairs = zip(names, part, strict=True)
            names = [
                unicodedata.normalize("NFC", plain_name(name, where=f"{self.file}: image {image.id}")) for name, image in pairs
            ]
        self.texts["file_name"].add(names)
        self._sizes(part)
        self.license.add(np.fromiter([self.stated[image.license] for image in part], np.int32, len(part)))
        self.texts["flickr_url"].add([image.flickr_url or "" for image in part])
        urls = [image.coco_url or "" for image in part]
        if not all(urls) or "//mscoco.org/" in "\n".join(urls):  # the addresses of 2014 died
            known = zip(urls, names, strict=True)
            urls = [url if url and "//mscoco.org/" not in url else official(self.split, name) or url for url, name in known]
        self.texts["coco_url"].add(urls)

    def _sizes(self, part: list[Image]) -> None:
        try:
            self.width.add(np.fromiter([image.width for image in part], np.int32, len(part)))
            self.height.add(np.fromiter([image.height for image in part], np.int32, len(part)))
        except (OverflowError, ValueError) as error:
            wrong = next(image for image in part if not (0 <= image.width < 1 << 31 and 0 <= image.height < 1 << 31))
            what = f"image {wrong.id} is {wrong.width:g}x{wrong.height:g} pixels"
            raise SourceError(what, where=self.file, fix="mend its width and height", case=7) from error

    def close(self) -> None:
        for texts in self.texts.values():
            texts.close()
        self.names = read_texts(self.folder, "file_name")

    def licenses(self, findings: Findings) -> list[list[str]]:
        """Number, name, address of every licence that the file names or a picture states, in the order of their numbers."""
        stated, known = set(self.stated.texts) - {""}, self.told
        if stated and not known and all(number in COCO for number in stated):
            known = COCO
            findings.notes.append("the file names no licences: its numbers are read as COCO's own")
        numbers = sorted(stated | set(known), key=lambda n: (len(n), n))
        return [[number, *known.get(number, (f"licence {number}", ""))] for number in numbers]

    def license_of(self, kept: np.ndarray, licenses: list[list[str]]) -> np.ndarray:
        """Place of each picture's licence in `licenses`, -1 where none is stated."""
        place = {number: at for at, (number, *_) in enumerate(licenses)}
        known = np.array([place.get(text, -1) for text in self.stated.texts], dtype=np.int32)
        return known[self.license.read[kept]].astype(np.int16 if len(licenses) < 1 << 15 else np.int32)


class _Stated(dict[int | str | None, int]):
    """What a picture states as its licence -> a number of ours, the place of its text in `texts`."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __missing__(self, value: int | str | None) -> int:
        self.texts.append("" if value is None else str(value))
        self[value] = len(self.texts) - 1
        return self[value]


def _harmless(joined: str, count: int) -> bool:
    """Whether names, a line each, need no second look: no folder, drive, home or line break in them, and nothing beyond ASCII."""
    return (
        joined.isascii()
        and joined.count("\n") == max(count - 1, 0)
        and not any(sign in joined for sign in "/\\:~\0")
        and (".." not in joined and "\n\n" not in f"\n{joined}\n")
    )
