"""One split's annotations as columns on disk, memory-mapped: opening costs milliseconds, whatever the size of the JSON.

Texts lie as they came from the file (`<name>.bin`, with `<name>_ends.npy`), numbers in `.npy` files. Places count the pictures that
have a caption, in the order of their numbers; `kept` leads from a place to the picture in the file.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ..errors import StorageError
from .arrow import numbers_of, read_texts, spans, texts_of
from .base import Findings, Row

BATCH = 4096
"""Pictures that become rows together."""
MANIFEST = "manifest.json"
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("file_name", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("categories", pa.list_(pa.string())),
        ("license", pa.string()),
        ("license_url", pa.string()),
        ("flickr_url", pa.string()),
        ("coco_url", pa.string()),
    ]
)
TEXTS = ("file_name", "flickr_url", "coco_url", "captions")
"""Columns of text on disk, the first three by picture of the file, the captions in the order of the file."""
ARRAYS = (
    *("kept", "ids", "width", "height", "license", "caption_order", "caption_starts", "kind_order", "kind_starts"),
    *("thing_picture", "thing_share", "thing_crowd", "thing_starts"),
)
"""Per place: the picture in the file, its number, pixels, the licence's place in `licenses` (-1: not stated), where its captions begin
in `caption_order` and its categories in `kind_order`. Per object, by category: its picture's place, its area as a share of the
picture (NaN where that is not known), whether it is a crowd. Where those of each category (in the order of `names`) begin."""

FILES = (*(f"{name}.npy" for name in ARRAYS), *(f"{name}{end}" for name in TEXTS for end in (".bin", "_ends.npy")))
"""What an index is made of, besides its manifest."""


@dataclass(frozen=True)
class Index:
    """Compared and pickled by its folder. Raises StorageError where that has been removed, or damaged, since the index was opened."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        with _there(self.folder):
            facts: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            return facts

    @property
    def split(self) -> str:
        """`val2014` of captions_val2014.json."""
        return str(self.facts["split"])

    @property
    def digest(self) -> str:
        """Of the content of both files and of the code that read them."""
        return str(self.facts["digest"])

    def __len__(self) -> int:
        """Pictures that have a caption."""
        return int(self.facts["pictures"])

    @property
    def names(self) -> list[str]:
        """Categories, in the order of their numbers."""
        return [name for name, _ in self.facts["categories"]]

    @property
    def categories(self) -> dict[str, str]:
        """Name -> supercategory, "" where the file has none."""
        return dict(self.facts["categories"])

    @property
    def licenses(self) -> list[tuple[str, str, str]]:
        """(number, name, address) of those that the file names."""
        return [(str(number), str(name), str(url)) for number, name, url in self.facts["licenses"]]

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return _Arrays(self.folder)

    def columns(self, places: np.ndarray) -> pa.Table:
        """`places`: int64, in any order -> a table of SCHEMA, in the same order."""
        return pa.Table.from_arrays([self._column(name, places) for name in SCHEMA.names], schema=SCHEMA)

    def column(self, name: str, places: np.ndarray) -> list[Any]:
        """One column of the rows at `places` as Python values."""
        values: list[Any] = self._column(name, places).to_pylist()
        return values

    def _column(self, name: str, places: np.ndarray) -> pa.Array:
        arrays, kind = self.arrays, SCHEMA.field(name).type
        if name in ("width", "height"):
            return numbers_of(arrays[name][places])
        if name == "image_id":
            ids = arrays["ids"][places]
            return (texts_of(ids.tolist()) if ids.dtype.kind == "U" else numbers_of(ids)).cast(kind)
        if name in ("license", "license_url"):
            at = 1 if name == "license" else 2
            known = texts_of([*(entry[at] for entry in self.licenses), ""])
            stated = arrays["license"][places].astype(np.int64)
            return known.take(numbers_of(np.where(stated < 0, len(known) - 1, stated))).cast(kind)
        if name in ("captions", "categories"):
            values = self._texts[name] if name == "captions" else texts_of(self.names)
            starts, order = ("caption_starts", "caption_order") if name == "captions" else ("kind_starts", "kind_order")
            ends, inside = spans(arrays[starts], places)
            members = values.take(numbers_of(arrays[order][inside])).cast(pa.string())
            return pa.ListArray.from_arrays(numbers_of(ends.astype(np.int32)), members).cast(kind)
        return self._texts[name].take(numbers_of(arrays["kept"][places])).cast(kind)

    @cached_property
    def _texts(self) -> dict[str, pa.Array]:
        with _there(self.folder):
            return {name: read_texts(self.folder, name) for name in TEXTS}

    def rows(self, places: np.ndarray, folder: Path | None) -> Iterator[Row]:
        """Built as they are asked for, some thousands at a time."""
        for start in range(0, len(places), BATCH):
            part = self.columns(places[start : start + BATCH])
            for values in zip(*(column.to_pylist() for column in part.columns), strict=True):
                row = dict(zip(SCHEMA.names, values, strict=True))
                told = {**row, "captions": tuple(row["captions"]), "categories": tuple(row["categories"])}
                yield Row(folder=folder, split=self.split, **told)

    def findings(self) -> Findings:
        """What was wrong with the files, anew each time."""
        faults = {reason: list(names) for reason, names in self.facts["faults"].items()}
        return Findings(faults=faults, notes=list(self.facts["notes"]))

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.folder,)


class _Arrays(dict[str, np.ndarray]):
    """Opened when they are first asked for: a question needs few of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, name: str) -> np.ndarray:
        with _there(self.folder):
            self[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return self[name]


@contextmanager
def _there(folder: Path) -> Iterator[None]:
    """What has been mapped stays; what has not is looked for, and somebody may have emptied the cache."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        what = "the index was removed, or damaged, while it was in use"
        raise StorageError(what, where=folder, fix="ask again: it is made anew", case=11) from error


def is_whole(folder: Path) -> bool:
    """Whether every file is as it was written."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        mark = told.pop("mark")
        return mark == facts_mark(told) and all(told["files"][name] == file_mark(folder / name) for name in FILES)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def facts_mark(told: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(told).encode())


def file_mark(path: Path) -> str:
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(block):
            digest.update(block[:got])
    return digest.hexdigest()
