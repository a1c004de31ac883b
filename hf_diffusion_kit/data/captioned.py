"""Captioned pictures, checked and self-contained: what a trainer is given, what is saved, what is published."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from ..errors import SourceError
from . import saved
from .features import FEATURES
from .pictures import open_rgb

FACTS = ("source", "recipe", "licenses", "left_out", "notes", "fingerprint")
"""What is kept of a `Captioned` beside its rows."""


@dataclass(frozen=True)
class Example:
    """One row, decoded."""

    image_id: str
    file_name: str
    sha256: str
    """Of the picture's bytes in the dataset."""
    captions: tuple[str, ...]
    """All of them, as they were written."""
    image: Image.Image
    """RGB, upright."""


@dataclass(frozen=True)
class Captioned:
    """A dataset whose every picture was decoded in full and has at least one caption. Nothing in it names a path of this machine."""

    dataset: datasets.Dataset = field(compare=False, repr=False)
    """Columns of features.py; the pictures' bytes are in it."""
    source: str
    """Which source gave the rows: `coco`, `folder`, `dataset`."""
    recipe: str | None
    """The command that makes the same again; None for a table made in memory."""
    licenses: dict[str, int]
    """Pictures by licence name."""
    left_out: dict[str, int]
    """Reason -> number of pictures or captions that were not taken."""
    notes: tuple[str, ...]
    """What was found, changed or decided on the way, one sentence each."""
    fingerprint: str
    """sha256 over (picture sha256, captions) of every row, in order."""

    def __len__(self) -> int:
        return len(self.dataset)

    def example(self, index: int) -> Example:
        place = range(len(self))[index]
        row = {name: self._table.column(name)[place].as_py() for name in ("image", "image_id", "file_name", "sha256", "captions")}
        image = open_rgb(row["image"]["bytes"])
        return Example(row["image_id"], row["file_name"], row["sha256"], tuple(row["captions"]), image)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes Parquet, README.md and facts.json; stock `load_dataset(folder)` opens it as split `train`.

        A folder that holds the same already is left alone. Raises StorageError for one that holds anything else (or another
        subset, unless `overwrite`).
        """
        facts = {name: getattr(self, name) for name in FACTS} | {"rows": len(self), "notes": list(self.notes)}
        return saved.write(Path(folder), self._table, facts, overwrite=overwrite)

    @classmethod
    def open(cls, folder: str | Path) -> "Captioned":
        """What `save` wrote. Raises SourceError when a file is damaged or a row has been changed."""
        table, facts = saved.read(Path(folder))
        for name, content, told in zip(*_columns(table), strict=True):
            if hashlib.sha256(content["bytes"]).hexdigest() != told:
                raise SourceError(
                    f"{name} has been changed since it was saved", where=folder, fix="make the subset again", case=11
                )
        if fingerprint(table) != facts["fingerprint"]:
            raise SourceError("rows have been changed since they were saved", where=folder, fix="make the subset again", case=11)
        known = {name: facts[name] for name in FACTS} | {"notes": tuple(facts["notes"])}
        return cls(dataset_of(table, facts["fingerprint"]), **known)

    @cached_property
    def _table(self) -> pa.Table:
        return self.dataset.data.table


def table_of(batches: Iterable[Sequence[dict[str, Any]]]) -> pa.Table:
    """Rows as the columns of FEATURES, one chunk a batch."""
    schema = FEATURES.arrow_schema
    return pa.Table.from_batches([pa.RecordBatch.from_pylist(list(batch), schema=schema) for batch in batches], schema=schema)


def dataset_of(table: pa.Table, mark: str) -> datasets.Dataset:
    """In memory: no cache file is written. `mark` saves `datasets` from hashing every picture again."""
    info = datasets.DatasetInfo(features=FEATURES)
    return datasets.Dataset(table, info=info, split=datasets.Split.TRAIN, fingerprint=mark[:16])


def fingerprint(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for sha256, captions in zip(table.column("sha256").to_pylist(), table.column("captions").to_pylist(), strict=True):
        digest.update(json.dumps([sha256, captions], ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _columns(table: pa.Table) -> tuple[list[Any], ...]:
    return tuple(table.column(name).to_pylist() for name in ("file_name", "image", "sha256"))
