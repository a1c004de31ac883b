"""Any table with pictures and captions as a source: a `datasets.Dataset` or a stream, one's own, a Parquet folder, or one of the Hub."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import datasets

from ..errors import SourceError, nearest
from ..records import Pinned, SubsetRecord, file_sha256
from .base import Findings, Row, as_one
from .captions import tidy
from .columns import (
    ADDRESS_COLUMNS,
    CAPTION_COLUMNS,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    SAMPLE_KEY,
    captions_of,
    find,
    first_of,
    known_captions,
)
from .features import FEATURES
from .licenses import COCO
from .passing import Rows, contents_at, records
from .subset import Subset, flag, place
from .table_value import content_of, mark_of, remark_of
from .wanted import wanted

MOST_FILES = 16
"""Files of Parquet that are told one by one; more are told by their number."""
CARRIED = ("license", "license_url", "flickr_url", "coco_url")
"""Columns that are kept as they are when the table has them."""
Identity: TypeAlias = str | int
"""An id that the table gives, or the number of a row that has none: so the two are never taken for each other."""


@dataclass
class Table:
    """Rows of one picture (same `image_id`, `cocoid`, `imgid`, `file_name` ...) become one row with all their captions.

    The texts are read once, without the pictures; then the pictures of the chosen rows alone. So a draw of `count` from a stream
    reads all its captions, and does not depend on the order of its rows where they have ids. Where that is too much, give
    `stream.take(1000)`. A table without ids has the numbers of its rows for ids, on each node of a stream that is shared among
    several with the node's number before them.

    Rows that became one are noted; rows of one id whose pictures differ stay apart, which only a table on disk can tell.
    """

    dataset: Rows
    label: str | None = None
    """Hub id or folder name from which anybody could have it; None for a table made in memory."""
    prompt: str | None = None
    ignore_captions: bool = False
    caption_column: str | None = None
    """None for all that are known by name, which must agree. `json.captions` is what lies below a column."""
    image_column: str | None = None
    """None for the one of type Image, or the first that is known by name."""
    texts: Rows | None = None
    """The same rows without the pictures, where they can be had for less (columns of Parquet on the Hub)."""
    asked: tuple[str, ...] = ()
    """More words of the recipe: which split, which configuration."""
    within: tuple[Path, ...] | None = None
    """Folders in which pictures that are given by a path must lie; None for any, which is for one's own tables."""
    hub: Pinned | None = None
    """The dataset of the Hub that it is, at the commit that is read."""
    before: SubsetRecord | None = None
    """Of the saved subset that it is."""
    read: Mapping[str, Path] = field(default_factory=dict)
    """Files that it was read from, by the names that may be told."""
    findings: Findings = field(default_factory=Findings)
    name = "dataset"

    def __post_init__(self) -> None:
        self.where = self.label or "dataset"
        self._typed = [name for name, kind in (self.dataset.features or {}).items() if isinstance(kind, datasets.Image)]
        if self._typed and isinstance(self.dataset, datasets.IterableDataset):
            self.dataset = self.dataset.decode(False)  # before columns are chosen, or all pictures are fetched for their texts
        self._shape = _shape(self.dataset, self.where)
        self._image = self._image_column()
        self._names = [name for name in self._shape if name != self._image]
        self._id = first_of(self._names, ID_COLUMNS)
        self._seen: dict[Identity, tuple[int, int]] = {}
        """Picture -> number of its first row, checksum of that row's texts."""

    @property
    def text_columns(self) -> list[str]:
        """All but the picture that `rows` reads."""
        return self._asked

    def rows(self, subset: Subset) -> Iterator[Row]:
        return wanted(self._rows(), subset, self.findings)

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        rows = list(rows)
        stream = isinstance(self.dataset, datasets.IterableDataset)
        # A stream may give other rows the second time (shuffled, or live): what identifies a row is read again with its picture.
        pictures = self._pictures(self._asked if stream else [])
        firsts = {self._seen[row.image_id][0]: self._seen[row.image_id] for row in rows}

        def read_one(place: int, record: Mapping[str, Any]) -> bytes:
            here = f"{self.where}: row {place}"
            if stream and self._mark(record) != firsts[place][1]:
                what = "is another row when the stream is read again"
                raise SourceError(what, where=here, fix="give a stream of fixed order, or rows that lie on disk", case=9)
            value = record[self._image]
            content = content_of(value, where=here, within=self.within)
            if remark := remark_of(value):
                self.findings.remarks[remark] += 1
            return content

        places = [self._seen[row.image_id][0] for row in rows]
        yield from zip(rows, contents_at(pictures, places, read_one, self.where), strict=True)

    def files(self) -> dict[str, str]:
        if self.hub is not None and self.hub.revision:
            return {f"{self.hub.id}@{self.hub.revision}": self.hub.revision}
        told = {name: file_sha256(path) for name, path in self.read.items()}
        return told if len(told) <= MOST_FILES else as_one(told, "files of Parquet")

    def words(self) -> list[str]:
        prompt = flag("prompt", self.prompt) if self.prompt else []
        ignore = ["--ignore-captions"] if self.ignore_captions else []
        told = self.caption_column or (self._captions[0] if self._is_news and len(self._captions) == 1 else None)
        column = flag("caption-column", told) if told else []
        picture = flag("image-column", self.image_column) if self.image_column else []
        verb = "hub" if self.hub is not None else "folder"
        return [verb, place(self.label), *self.asked, *prompt, *ignore, *column, *picture] if self.label else []

    @property
    def _is_news(self) -> bool:
        """Whether somebody may wonder which columns the captions come from: nobody said it, and it is no table that we wrote."""
        return self.prompt is None and self.caption_column is None and not FEATURES.keys() <= self._shape.keys()

    def _rows(self) -> Iterator[Row]:
        columns = self._captions
        if self._is_news:
            agree = ", which agree" if len(columns) > 1 else ""
            names_of = f"column{'s' * (len(columns) > 1)} {' and '.join(map(repr, columns))}"
            self.findings.notes.append(f"captions are read from the {names_of}{agree}")
        texts = self.texts if self.texts is not None else self.dataset
        names = self._asked
        rest: Iterable[Mapping[str, Any]] = records(texts.select_columns(names).with_format(None), self.where)
        if not names:
            rest = ({} for _ in records(texts.select_columns([self._image]), self.where))
        found: dict[Identity, tuple[Mapping[str, Any], list[str]]] = {}
        apart: dict[tuple[str, bytes], int] = {}
        several = place = 0
        for place, record in enumerate(rest):
            identity = self._identity(record, place, apart)
            told = captions_of(record, columns, where=f"{self.where}: row {place}") if columns else [self.prompt or ""]
            if SAMPLE_KEY in record and columns == ["txt"]:  # a file of text beside the picture: each line is a caption
                lines = [line for text in told for line in text.splitlines() if tidy(line)] or [""]
                several += len(lines) > 1
                told = lines
            self._seen.setdefault(identity, (place, self._mark(record)))
            found.setdefault(identity, (record, []))[1].extend(told)
        if several:
            self.findings.notes.append(f"{several} caption files hold several lines; each line is one caption")
        if self._id is not None and found:
            self._note_names(place + 1, len(found), len(apart))
        for identity, (record, told) in found.items():
            captions = [text for text in told if tidy(text)]
            name = identity if isinstance(identity, str) else self._made_up(identity)
            for _ in range(len(told) - len(captions)):
                self.findings.fault("blank captions", name)
            if captions:
                yield self._row(identity, record, captions)
            else:
                self.findings.fault("pictures without a caption", name)

    @cached_property
    def _asked(self) -> list[str]:
        """What is read of every row; never a picture, and no column that nobody asks for."""
        outer = {name if name in self._shape else name.split(".")[0] for name in self._captions}
        said = {*CARRIED, "categories", "width", "height", "file_name", SAMPLE_KEY, self._id}
        return [name for name in self._names if name in outer or name in said]

    def _identity(self, record: Mapping[str, Any], place: int, apart: dict[tuple[str, bytes], int]) -> Identity:
        """Samples of a webdataset are pictures of their own, even where two shards use the same key.

        `apart`: rows whose picture is another than that of the first row of their name, by name and picture.
        """
        told = record.get(self._id) if self._id else None
        if told is not None and told != "":
            name = str(told)
            if name not in self._seen or isinstance(self.dataset, datasets.IterableDataset):
                return name
            mark, first = (mark_of(self._on_disk[row][self._image]) for row in (place, self._seen[name][0]))
            return name if mark == first else apart.setdefault((name, mark), place)
        if key := str(record.get(SAMPLE_KEY) or ""):
            while key in self._seen:
                key = f"{key}-{place:06d}"
            return key
        return place

    def _made_up(self, place: int) -> str:
        """An id for a row without one. No real one is like it, nor one of another node's rows."""
        shared = getattr(
            self.dataset, "_distributed", None
        )  # what `split_dataset_by_node` leaves; there is no public word for it
        name = f"{place:06d}" if shared is None else f"{shared.rank:05d}-{place:06d}"
        while name in self._seen and self._seen[name][0] != place:
            name = f"row-{name}"
        return name

    def _note_names(self, rows: int, pictures: int, apart: int) -> None:
        if pictures < rows:
            self.findings.notes.append(f"{rows} rows are {pictures} pictures, told by their column {self._id!r}")
        if apart:
            what = f"{apart} pictures have a {self._id!r} that another picture has; their id is the number of their row"
            self.findings.notes.append(what)

    @cached_property
    def _on_disk(self) -> Rows:
        return self._pictures([])

    def _pictures(self, more: list[str]) -> Rows:
        """The column of pictures, not decoded, and `more`."""
        pictures = self.dataset.select_columns([self._image, *more])
        return pictures.cast_column(self._image, datasets.Image(decode=False)) if self._image in self._typed else pictures

    def _mark(self, record: Mapping[str, Any]) -> int:
        said = [record.get(name) for name in self._asked]
        return zlib.crc32(repr(said).encode("utf-8", "surrogatepass"))

    def _image_column(self) -> str:
        if self.image_column is not None:
            if self.image_column not in self._shape:
                what = f"has no column {self.image_column!r}; {nearest(self.image_column, self._shape)}"
                raise SourceError(what, where=self.where, case=9)
            return self.image_column
        if len(self._typed) > 1:
            self.findings.notes.append(f"{self._typed[0]!r} is the picture; {', '.join(self._typed[1:])} not used")
        if self._typed:
            return self._typed[0]
        column = first_of(self._shape, IMAGE_COLUMNS) or first_of(self._shape, ADDRESS_COLUMNS)
        return column or find("picture", self._shape, IMAGE_COLUMNS, where=self.where)

    @cached_property
    def _captions(self) -> list[str]:
        known = known_captions(self._names)
        if not known:  # one level down: the `json` of a webdataset
            below = {name: known_captions(_fields(self._shape[name])) for name in self._names}
            known = [f"{name}.{inner}" for name, inners in below.items() for inner in inners]
        if self.prompt is not None:
            return self._unused(known)
        if self.caption_column is None:
            if {"captions", "text"} <= set(known) and _is_list(
                self._shape["captions"]
            ):  # as we write them: all, and one or a join
                if not FEATURES.keys() <= self._shape.keys():
                    self.findings.notes.append("the column 'text' is not used")
                return ["captions"]
            return known or [find("captions", self._names, CAPTION_COLUMNS, where=self.where)]
        outer, _, inner = self.caption_column.partition(".")
        if self.caption_column in self._names:
            return [self.caption_column]
        if outer not in self._names or not inner:
            what = f"has no column {self.caption_column!r}; {nearest(self.caption_column, self._names)}"
            raise SourceError(what, where=self.where, case=9)
        if (fields := _fields(self._shape[outer])) and inner.split(".")[0] not in fields:
            raise SourceError(f"its column {outer!r} has no {inner!r}; {nearest(inner, fields)}", where=self.where, case=9)
        return [self.caption_column]

    def _unused(self, there: list[str]) -> list[str]:
        if not tidy(self.prompt or ""):
            raise SourceError("the prompt is blank", where="prompt", case=8)
        if there and not self.ignore_captions:
            what = f"has captions that would not be used: {', '.join(there)} (used: the prompt)"
            raise SourceError(what, where=self.where, fix="leave the prompt out, or say ignore_captions=True", case=9)
        note = f"captions that exist were ignored as asked: {', '.join(there)}"
        if there and note not in self.findings.notes:
            self.findings.notes.append(note)
        return []

    def _row(self, identity: Identity, record: Mapping[str, Any], captions: list[str]) -> Row:
        """Names that are paths of some machine are shortened to their last part, ids that are become the row's number."""
        place = self._made_up(self._seen[identity][0])
        named = next((record[name] for name in ("file_name", "filename", "filepath", SAMPLE_KEY) if record.get(name)), None)
        told = str(named or place)
        image_id = identity if isinstance(identity, str) and _harmless(identity) else place
        self._seen.setdefault(image_id, self._seen[identity])
        categories = record.get("categories")
        listed = isinstance(categories, list) and all(isinstance(name, str) for name in categories)
        said = {name: str(record.get(name) or "") for name in CARRIED}
        if said["license"] in COCO and said["coco_url"]:  # COCO's own numbers
            said["license"], said["license_url"] = COCO[said["license"]]
        size = [value if isinstance(value := record.get(name), int) and value > 0 else 0 for name in ("width", "height")]
        return Row(
            image_id=image_id,
            file_name=told if _harmless(told) else PurePosixPath(told.replace("\\", "/")).name or place,
            folder=None,
            captions=tuple(captions),
            width=size[0],
            height=size[1],
            categories=tuple(categories) if listed and categories else (),
            **said,
        )


def _shape(rows: Rows, where: str) -> Mapping[str, Any]:
    """Column -> its type; of a stream that does not know, the values of its first row."""
    if rows.features is not None:
        return rows.features
    first = list(records(rows.take(1), where))
    return first[0] if first else {}


def _is_list(kind: Any) -> bool:
    """A type, or of a stream that knows none a value."""
    return isinstance(kind, datasets.List | datasets.LargeList | list)


def _fields(kind: Any) -> list[str]:
    """What a column of structs, or of lists of them, holds."""
    kind = getattr(kind, "feature", kind)
    return [str(name) for name in kind] if isinstance(kind, Mapping) else []


def _harmless(name: str) -> bool:
    return not name.startswith(("/", "~")) and ".." not in PurePosixPath(name).parts and not set(name) & set(":\\\0")
