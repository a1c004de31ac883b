"""A source is where captioned pictures come from. It yields rows; it decodes nothing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import SourceError
from .subset import Subset


@dataclass(frozen=True, slots=True)
class Row:
    """One picture and all that is said of it, before anything is decoded."""

    image_id: str
    """Unique within a source."""
    file_name: str
    """Relative to `folder`, with `/` between its parts."""
    folder: Path | None
    """What the picture must lie in; None where it is no file on disk."""
    captions: tuple[str, ...]
    """As they were written, stray white space included; none of them blank."""
    width: int = 0
    """Pixels as the annotations state them; 0 when they do not. The picture itself has the last word."""
    height: int = 0
    categories: tuple[str, ...] = ()
    license: str = ""
    license_url: str = ""
    flickr_url: str = ""
    coco_url: str = ""
    split: str = ""
    """Of the source, by its own name (`val2014`); empty where it has none."""

    @property
    def path(self) -> Path | None:
        return self.folder / self.file_name if self.folder else None


@dataclass
class Findings:
    """What a source did not take, and why; filled while its rows are read. Nothing is dropped without a line here."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number, where the user's own choice left something out."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> names, where the data are not as they should be."""
    notes: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    """What was done to some pictures or captions that were taken -> to how many."""

    def fault(self, reason: str, name: str) -> None:
        self.faults.setdefault(reason, []).append(name)

    def add(self, other: "Findings") -> None:
        self.left_out.update(other.left_out)
        for reason, names in other.faults.items():
            self.faults.setdefault(reason, []).extend(names)
        self.remarks.update(other.remarks)
        self.notes += [note for note in other.notes if note not in self.notes]

    def counts(self) -> dict[str, int]:
        return {**self.left_out, **{reason: len(names) for reason, names in self.faults.items()}}

    def sentences(self) -> list[str]:
        told = [f"{remark}: {number}" for remark, number in self.remarks.items() if number]
        return [*self.notes, *told, *(f"{reason}: {some(names)}" for reason, names in self.faults.items())]


class Source(Protocol):
    name: str
    findings: Findings

    def rows(self, subset: Subset) -> Iterator[Row]:
        """The rows that meet the choice (`count` apart), in an order that depends on the content alone; the others are counted
        in `findings`. Raises SourceError for what cannot be read."""
        ...

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        """The file of each row's picture, in order, or why there is none. Lazy: nothing is read that is not asked for, but a
        source on the network may work ahead within `rows`."""
        ...

    def files(self) -> dict[str, str]:
        """Names of the files of annotations or captions that `rows` has read -> sha256, and of a dataset of the Hub `id@commit` -> the
        commit; no path of this machine. Empty for a table that was in memory."""
        ...

    def words(self) -> list[str]:
        """How `hfdk subset` is asked for the same source: names of files and folders only, no path of this machine."""
        ...


def bare(error: SourceError) -> SourceError:
    """Without the traceback, and what was behind it: kept for long, their frames would hold file and decoded picture in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def as_one(files: dict[str, str], name: str) -> dict[str, str]:
    """Names -> sha256 of many files, as one name with the sha256 of the list."""
    listed = "".join(f"{file} {sha256}\n" for file, sha256 in files.items())
    return {f"{len(files)} {name}": hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()} if files else {}


def some(names: list[str], most: int = 5) -> str:
    """`3 (a.jpg, b.jpg, c.jpg)`, and from the sixth on only their number."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})"
