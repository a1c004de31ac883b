"""A `datasets.Dataset` with pictures and captions as a source: one's own, a Parquet folder, or one of the Hub."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ..errors import SourceError
from .base import Findings, Row
from .captions import tidy
from .columns import CAPTION_COLUMNS, IMAGE_COLUMNS, caption_columns, captions_of, find
from .pictures import read
from .subset import Subset
from .wanted import wanted

CARRIED = ("license", "license_url", "flickr_url", "coco_url")
"""Columns that are kept as they are when the table has them."""


@dataclass
class Table:
    """Rows of one picture (same `image_id`, or same `file_name`) become one row with all their captions."""

    dataset: datasets.Dataset
    label: str | None = None
    """Hub id or folder name from which anybody could have it; None for a table made in memory."""
    prompt: str | None = None
    ignore_captions: bool = False
    caption_column: str | None = None
    findings: Findings = field(default_factory=Findings)
    name = "dataset"

    def __post_init__(self) -> None:
        self.where = self.label or "dataset"
        features = self.dataset.features
        typed = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        self.image_column = typed[0] if typed else find("picture", features, IMAGE_COLUMNS, where=self.where)
        if len(typed) > 1:
            self.findings.notes.append(f"{self.image_column!r} is the picture; {', '.join(typed[1:])} not used")
        self._pictures = self.dataset.select_columns([self.image_column])
        if typed:
            self._pictures = self._pictures.cast_column(self.image_column, datasets.Image(decode=False))
        self._places: dict[str, int] = {}

    def rows(self, subset: Subset) -> Iterator[Row]:
        return wanted(self._rows(), subset, self.findings)

    def _rows(self) -> Iterator[Row]:
        names = [name for name in self.dataset.column_names if name != self.image_column]
        columns = self._caption_columns(names)
        found: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
        rest = self.dataset.select_columns(names).with_format(None) if names else [{} for _ in range(len(self.dataset))]
        for place, record in enumerate(rest):
            identity = str(record.get("image_id") or record.get("file_name") or f"{place:06d}")
            texts = captions_of(record, columns, where=f"{self.where}: row {place}") if columns else [self.prompt or ""]
            self._places.setdefault(identity, place)
            found.setdefault(identity, (record, []))[1].extend(texts)
        for identity, (record, texts) in found.items():
            told = [text for text in texts if tidy(text)]
            for _ in range(len(texts) - len(told)):
                self.findings.fault("blank captions", identity)
            if not told:
                self.findings.fault("pictures without a caption", identity)
                continue
            yield self._row(identity, record, told)

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        for row in rows:
            try:
                yield row, self._read(row)
            except SourceError as error:
                yield row, error

    def _read(self, row: Row) -> bytes:
        place = self._places[row.image_id]
        value = self._pictures[place][self.image_column]
        if isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, Mapping):
            raise SourceError("has no picture", where=f"{self.where}: row {place}", case=9)
        if value.get("bytes"):
            return bytes(value["bytes"])
        path = value.get("path") or ""
        if not path or "://" in path:
            what = f"has only an address ({path[:60]})" if path else "has no picture"
            raise SourceError(what, where=f"{self.where}: row {place}", fix="fetch the pictures first", case=9)
        return read(Path(path))

    def words(self) -> list[str]:
        prompt = ["--prompt", self.prompt] if self.prompt else []
        ignore = ["--ignore-captions"] if self.ignore_captions else []
        column = ["--caption-column", self.caption_column] if self.caption_column else []
        return ["folder", self.label, *prompt, *ignore, *column] if self.label else []

    def _caption_columns(self, names: list[str]) -> list[str]:
        if self.prompt is None:
            return caption_columns(names, self.caption_column, where=self.where)
        if not tidy(self.prompt):
            raise SourceError("the prompt is blank", where="prompt", case=8)
        there = [name for name in CAPTION_COLUMNS if name in names]
        if there and not self.ignore_captions:
            what = f"has captions that would not be used: {', '.join(there)} (used: the prompt)"
            raise SourceError(what, where=self.where, fix="leave the prompt out, or say ignore_captions=True", case=9)
        if there:
            self.findings.notes.append(f"captions that exist were ignored as asked: {', '.join(there)}")
        return []

    def _row(self, identity: str, record: Mapping[str, Any], captions: list[str]) -> Row:
        """Names that are paths of some machine are shortened to their last part, ids that are become the row's number."""
        place = f"{self._places[identity]:06d}"
        told = str(record.get("file_name") or place)
        image_id = identity if _harmless(identity) else place
        self._places.setdefault(image_id, self._places[identity])
        categories = record.get("categories")
        listed = isinstance(categories, list) and all(isinstance(name, str) for name in categories)
        said = {name: str(record.get(name) or "") for name in CARRIED}
        return Row(
            image_id=image_id,
            file_name=told if _harmless(told) else PurePosixPath(told.replace("\\", "/")).name or place,
            folder=None,
            captions=tuple(captions),
            categories=tuple(categories) if listed and categories else (),
            license=said["license"],
            license_url=said["license_url"],
            flickr_url=said["flickr_url"],
            coco_url=said["coco_url"],
        )


def _harmless(name: str) -> bool:
    return not name.startswith(("/", "~")) and ".." not in PurePosixPath(name).parts and not set(name) & set(":\\\0")
