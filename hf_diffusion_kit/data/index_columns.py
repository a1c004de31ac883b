"""One split's annotations as columns on disk, memory-mapped: opening costs milliseconds, whatever the size of the JSON.

`pictures.arrow` holds what a row shows, in batches; the `.npy` files hold what a query asks. Pictures stand in the order of their
numbers; those without a caption are not among them, but in `findings`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from .base import Findings, Row

BATCH = 4096
"""Pictures in one record batch."""
PICTURES = "pictures.arrow"
MANIFEST = "manifest.json"
COLUMNS = (
    "image_id",
    "file_name",
    "captions",
    "width",
    "height",
    "categories",
    "license",
    "license_url",
    "flickr_url",
    "coco_url",
)
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
ARRAYS = ("width", "height", "license", "thing_picture", "thing_category", "thing_share", "thing_crowd")
"""Per picture: pixels, place in `licenses` (-1: not stated). Per object: its picture, its place in `names`, its area as
a share of the picture (NaN where no area is stated), whether it is a crowd."""


def numbers_of(values: np.ndarray) -> pa.Array:
    """As `pa.array` gives, without its import of pandas (0.3 s)."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


@dataclass(frozen=True)
class Index:
    """Compared and pickled by its folder."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
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
    def has_objects(self) -> bool:
        return bool(self.facts["objects"])

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
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}

    def columns(self, places: np.ndarray) -> pa.Table:
        """`places`: int64, in any order -> a table of SCHEMA, in the same order."""
        order = np.argsort(places, kind="stable")
        batches = self._taken(places[order])
        table = pa.Table.from_batches(batches, schema=SCHEMA)
        if len(places) and np.any(order[1:] < order[:-1]):
            back = np.empty(len(order), dtype=np.int64)
            back[order] = np.arange(len(order))
            table = table.combine_chunks().take(numbers_of(back))
        return table

    def column(self, name: str, places: np.ndarray) -> list[Any]:
        """One column of the rows at `places`, which are sorted, as Python values."""
        return [value for batch in self._taken(places, name) for value in batch.column(0).to_pylist()]

    def rows(self, places: np.ndarray, folder: Path | None) -> Iterator[Row]:
        """Built as they are asked for, some thousands at a time."""
        for start in range(0, len(places), BATCH):
            part = self.columns(places[start : start + BATCH])
            for values in zip(*(part.column(name).to_pylist() for name in COLUMNS), strict=True):
                row = dict(zip(COLUMNS, values, strict=True))
                told = {**row, "captions": tuple(row["captions"]), "categories": tuple(row["categories"])}
                yield Row(folder=folder, split=self.split, **told)

    def findings(self) -> Findings:
        """What was wrong with the files, anew each time."""
        faults = {reason: list(names) for reason, names in self.facts["faults"].items()}
        return Findings(faults=faults, notes=list(self.facts["notes"]))

    @cached_property
    def _file(self) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / PICTURES)))

    def _taken(self, places: np.ndarray, column: str | None = None) -> Iterator[pa.RecordBatch]:
        """Batch by batch, for taking from all of them at once would copy all of them."""
        numbers = places // BATCH
        for number in numbers[np.flatnonzero(np.diff(numbers, prepend=-1))]:
            low, high = np.searchsorted(numbers, [number, number + 1])
            batch = self._file.get_batch(int(number))
            batch = batch.select([column]) if column else batch
            inside = places[low:high] - number * BATCH
            whole = len(inside) == batch.num_rows and bool(np.all(inside[1:] == inside[:-1] + 1))
            yield batch if whole else batch.take(numbers_of(inside))

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.folder,)


def is_whole(folder: Path) -> bool:
    """Whether every file is as it was written."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(file_mark(folder / name) == mark for name, mark in told.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def file_mark(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
