"""What the doctor remembers of a set of pictures: names and 100 bytes each, never the pictures."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from PIL import Image

from .base import Row
from .captions import tidy
from .pictures import FORMATS, Stored
from .twins import Mark, mark_of

COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+")
"""COCO_val2014_000000391895.jpg and 000000391895.jpg are one picture: 2014 and 2017 number alike."""
ENDINGS = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
SHARED = 0.25
"""A caption that is all that is said of at least this share of the pictures (and three of them) is named."""


@dataclass
class Looks:
    """One set of pictures. Lists are in step: place n is the n-th picture that can be used."""

    label: str
    """How the set is called where there are several: train, val2017, the other folder's name."""
    alone: bool = True
    names: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sha256: list[bytes] = field(default_factory=list)
    """Of the picture as it would be stored, without EXIF: so a copy that lost its EXIF is the same."""
    marks: list[Mark] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    other_size: int = 0
    """Pictures that are not as large as their row says."""
    modes: Counter[str] = field(default_factory=Counter)
    misnamed: list[str] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)
    """Caption -> pictures of which nothing else is said."""
    like_names: list[str] = field(default_factory=list)

    def shown(self, name: str) -> str:
        return name if self.alone or name.startswith(f"{self.label}/") else f"{self.label}/{name}"

    def hear(self, row: Row) -> None:
        """Captions count for every row, whatever its picture is like."""
        texts = {tidy(text) for text in row.captions}
        self.texts.update(texts if len(texts) == 1 else ())
        if any(is_name(text, row.file_name) for text in texts):
            self.like_names.append(self.shown(row.file_name))

    def add(self, row: Row, content: bytes, picture: Stored, sha256: bytes) -> None:
        """`content`: the file as it came. It has been decoded in full before."""
        name = self.shown(row.file_name)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            self.modes[image.mode] += 1
            ending = PurePosixPath(row.file_name).suffix.lower()
            if ending and ending not in ENDINGS.get(str(image.format), (ending,)):
                self.misnamed.append(f"{name} (is a {image.format})")
        self.names.append(name)
        self.rows.append(row)
        self.sha256.append(sha256)
        self.marks.append(mark_of(picture.content))
        self.sizes.append((picture.width, picture.height))
        self.remarks.update(picture.remarks)
        self.other_size += bool(row.width and row.height) and {row.width, row.height} != {picture.width, picture.height}

    def same(self) -> list[tuple[str, ...]]:
        names: dict[bytes, list[str]] = {}
        for name, sha256 in zip(self.names, self.sha256, strict=True):
            names.setdefault(sha256, []).append(name)
        return [tuple(found) for found in names.values() if len(found) > 1]

    def small(self, resolution: int | None) -> list[str]:
        sized = zip(self.names, self.sizes, strict=True)
        return [f"{name} ({width}x{height})" for name, (width, height) in sized if min(width, height) < (resolution or 0)]

    def shared(self) -> Iterator[tuple[str, int]]:
        """Captions that tell nothing of their picture, for so many have them."""
        least = max(3, SHARED * len(self.rows))
        yield from ((text, number) for text, number in self.texts.most_common(20) if number >= least)


def is_name(text: str, file_name: str) -> bool:
    """Whether a caption is a file's name: it ends like one, or is this picture's own, of the kind IMG_1234 or 000000391895."""
    if re.fullmatch(r"\S+\.(jpe?g|png|webp|bmp|gif|tiff?)", text, re.IGNORECASE):
        return True
    told, stem = (re.sub(r"[\W_]+", "", word).casefold() for word in (text, PurePosixPath(file_name).stem))
    return bool(told) and told == stem and re.search(r"\d{3}|_", PurePosixPath(file_name).stem) is not None


def number_of(name: str) -> int | None:
    """COCO's number of a picture, told by its name."""
    found = COCO_NAME.fullmatch(PurePosixPath(name).name)
    return int(found[1]) if found else None


def numbers(names: Sequence[str]) -> dict[int, int]:
    """COCO's number -> place in the list."""
    return {number: place for place, name in enumerate(names) if (number := number_of(name)) is not None}
