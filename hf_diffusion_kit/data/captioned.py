"""Captioned pictures, checked and self-contained: what a trainer is given, what is saved, what is published."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from datasets.table import MemoryMappedTable
from PIL import Image

from ..errors import SourceError
from ..records import SubsetRecord
from . import saved
from .features import FEATURES
from .pictures import alpha_of, open_rgb
from .where import expanded

if TYPE_CHECKING:
    from ..hub.publish import Pushed


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
    """A dataset whose every picture was decoded in full and has at least one caption (or, without pixels, an address and a caption).

    Nothing in it names a path of this machine but the file, memory-mapped, that holds the rows while this process lives.
    """

    dataset: datasets.Dataset = field(compare=False, repr=False)
    """Columns of features.py; the pictures' bytes are in it."""
    record: SubsetRecord
    """Everything that is known beside the rows."""

    @property
    def source(self) -> str:
        """Which source gave the rows: `coco`, `folder`, `dataset`."""
        return self.record.source

    @property
    def recipe(self) -> str | None:
        """The command that makes the same again; None for a table made in memory."""
        return self.record.recipe

    @property
    def licenses(self) -> dict[str, int]:
        """Pictures by licence name."""
        return self.record.licenses

    @property
    def left_out(self) -> dict[str, int]:
        """Reason -> number of pictures or captions that were not taken."""
        return self.record.left_out

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found, changed or decided on the way, one sentence each."""
        return self.record.notes

    @property
    def fingerprint(self) -> str:
        """sha256 over (picture sha256, or address where there are no pixels, and captions) of every row, in order."""
        return self.record.fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def example(self, index: int) -> Example:
        """Raises SourceError when the dataset has addresses instead of pixels."""
        self.need_pixels()
        place = range(len(self))[index]
        row = {name: self._table.column(name)[place].as_py() for name in ("image", "image_id", "file_name", "sha256", "captions")}
        image = open_rgb(row["image"]["bytes"])
        return Example(row["image_id"], row["file_name"], row["sha256"], tuple(row["captions"]), image)

    def alpha(self, index: int) -> Image.Image | None:
        """How opaque a picture was before it was put on white, upright; None where all of it was. Raises SourceError as `example`."""
        self.need_pixels()
        place = range(len(self))[index]
        return alpha_of(self._table.column("image")[place].as_py()["bytes"], self._table.column("file_name")[place].as_py())

    def need_pixels(self) -> None:
        """Raises SourceError when the dataset has addresses instead of pixels."""
        if self.record.pixels == "none":
            fix = 'make the subset again without pixels="none" (--pixels none)'
            raise SourceError("has the addresses of its pictures, not their pixels", where=self.source, fix=fix, case=9)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes Parquet, README.md, facts.json and manifest.json; stock `load_dataset(folder)` opens it as split `train`.

        A folder that holds the same already is left alone. Raises StorageError for one that holds anything else (or another
        subset, unless `overwrite`).
        """
        return saved.write(expanded(folder), self._table, self.record, overwrite=overwrite)

    def push_to_hub(self, repo_id: str, **options: Any) -> "Pushed":
        """Publishes it as a dataset that stock `load_dataset(repo_id)` opens, with its card, in one commit; private unless
        `private=False`. See `data/push.py` for `hub`, `token`, `commit_message`, `license`, `dry_run`. Raises HubError."""
        from .push import push_to_hub

        return push_to_hub(self, repo_id, **options)

    @classmethod
    def open(cls, folder: str | Path) -> "Captioned":
        """What `save` wrote. Raises SourceError when a file is damaged or a row has been changed."""
        rows, record = saved.read(expanded(folder))
        return cls(dataset_of(rows, record.fingerprint), record)

    @property
    def _table(self) -> pa.Table:
        return self.dataset.data.table


def dataset_of(rows: Path, mark: str) -> datasets.Dataset:
    """A spool as a dataset: memory-mapped, and handed to workers by its name. `mark` saves `datasets` from hashing every picture
    again."""
    info = datasets.DatasetInfo(features=FEATURES)
    table = MemoryMappedTable.from_file(str(rows))
    return datasets.Dataset(table, info=info, split=datasets.Split.TRAIN, fingerprint=mark[:16])
