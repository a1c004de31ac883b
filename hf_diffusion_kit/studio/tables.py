"""metadata.jsonl and metadata.csv, to be changed in a few places: every other line stays as it is, byte for byte in JSON Lines."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.captions import tidy
from ..data.columns import FILE_COLUMNS, caption_columns, captions_of, find, known_captions
from ..data.metadata import lines
from ..errors import SourceError

BOM = b"\xef\xbb\xbf"


@dataclass
class Place:
    """A line of a table: what it says, and where its captions stand."""

    record: dict[str, Any]
    named: str
    """Column of the file's name."""
    columns: list[str]
    texts: list[str]
    """Its captions as the loader reads them, blank ones too."""
    where: str
    at: int
    """Of JSON Lines which line, of CSV which row after the first, from 0."""


@dataclass
class Table:
    """Raises SourceError where the loader does."""

    path: Path
    inside: str
    """Its folder below the set's, with `/` behind; empty at the top."""
    column: str | None = None
    """Of the captions, where it was named."""
    content: bytes = b""
    places: list[Place] = field(default_factory=list)
    changed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Which line -> what stands there now: one record, several, none."""
    added: list[dict[str, Any]] = field(default_factory=list)
    by_name: dict[str, list[Place]] = field(default_factory=dict)
    """Picture -> its lines; worked out when first asked for."""

    def read(self) -> "Table":
        self.content, self.places = self.path.read_bytes(), []
        shapes: dict[tuple[str, ...], tuple[str, list[str]]] = {}
        numbers = self._numbers()
        spoken = False
        for line in lines(self.path):
            shape = tuple(line.record)
            if shape not in shapes:
                here = self.column in line.record if self.column else known_captions(line.record)
                named = find("file name", line.record, FILE_COLUMNS, where=line.where)
                silent = spoken and not here
                shapes[shape] = (named, [] if silent else caption_columns(line.record, self.column, where=line.where))
            named, columns = shapes[shape]
            spoken = spoken or bool(columns)
            texts = captions_of(line.record, columns, where=line.where) if columns else [""]
            self.places.append(Place(line.record, named, columns, texts, line.where, next(numbers)))
        return self

    def _numbers(self) -> Iterator[int]:
        if self.path.suffix == ".csv":
            return iter(range(len(self.content)))
        return iter([number for number, row in enumerate(self.content.removeprefix(BOM).split(b"\n")) if row.strip()])

    def put(self, places: Sequence[Place], old: Sequence[str], new: Sequence[str]) -> None:
        """Gives one picture's lines new captions: `new` begins with one for each of `old` (blank: it goes), more may follow. Raises
        SourceError for captions that lie deeper than text or a list of texts."""
        left, twins = list(zip(old, new, strict=False)), dict[tuple[str, ...], list[str]]()
        spoken = [place for place in places if any(map(tidy, place.texts))]
        last = (spoken or list(places))[-1]
        for place in places:
            key = tuple(place.texts)
            if key not in twins:  # a line that says the same again is passed over by the loader, and is changed like the first
                mine = [left.pop(0)[1] if tidy(text) else "" for text in place.texts]
                twins[key] = [text for text in mine if tidy(text)]
        twins[tuple(last.texts)] += [text for text in new[len(old) :] if tidy(text)]
        silent = not any(twins.values())
        for place in places:
            mine = twins[tuple(place.texts)]
            if mine != [text for text in place.texts if tidy(text)]:
                self.changed[place.at] = self._records(place, mine or ([""] if silent and place is places[0] else []))

    def _records(self, place: Place, texts: list[str]) -> list[dict[str, Any]]:
        if not texts:
            return []
        columns = place.columns or [self.column or "text"]
        if self.path.suffix == ".csv":
            return [place.record | dict.fromkeys(columns, text) for text in texts]
        record = deepcopy(place.record)
        for name in columns:
            value = record.get(name)
            if isinstance(value, list) and all(isinstance(item, str | None) for item in value):
                record[name] = list(texts)
            elif value is None or isinstance(value, str):
                several = len(texts) > 1 and (
                    len(columns) == 1 or not any(isinstance(record.get(other), list) for other in columns)
                )
                record[name] = list(texts) if several else texts[0]
            else:
                what = f"the captions in {name!r} lie deeper than text or a list of texts, which is not written here"
                raise SourceError(what, where=place.where, fix="change that line by hand", case=8)
        return [record]

    def add(self, name: str, texts: Sequence[str]) -> None:
        """A line for a picture that has none. `name`: below the table's own folder."""
        first = self.places[0] if self.places else None
        named = first.named if first else "file_name"
        column = first.columns[0] if first and first.columns else self.column or "text"
        if self.path.suffix == ".csv":
            blank = dict.fromkeys(first.record, "") if first else {}
            self.added += [blank | {named: name, column: text} for text in texts]
        else:
            lone = texts[0] if len(texts) == 1 and not (first and isinstance(first.record.get(column), list)) else list(texts)
            self.added.append({named: name, column: lone})

    def spoken(self, places: Sequence[Place]) -> list[str]:
        """One picture's captions, as the loader takes them from these lines."""
        return [text for texts in dict.fromkeys(tuple(place.texts) for place in places) for text in texts if tidy(text)]

    def written(self) -> bytes:
        return self._csv() if self.path.suffix == ".csv" else self._jsonl()

    def _jsonl(self) -> bytes:
        mark = BOM if self.content.startswith(BOM) else b""
        rows = self.content.removeprefix(BOM).split(b"\n")
        ending = b"\r\n" if rows[0].endswith(b"\r") else b"\n"
        out = bytearray(mark)
        for number, row in enumerate(rows):
            if number in self.changed:
                out += b"".join(_line(record) + ending for record in self.changed[number])
            elif number < len(rows) - 1:
                out += row + b"\n"
            elif row:
                out += row + (ending if self.added else b"")
        out += b"".join(_line(record) + ending for record in self.added)
        return bytes(out)

    def _csv(self) -> bytes:
        text = self.content.removeprefix(BOM).decode()
        head = text.lstrip("\r\n").splitlines()[0]
        ending = "\r\n" if "\r\n" in text.partition("\n")[0] + "\n" else "\n"
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=max(",;\t", key=head.count), lineterminator=ending)
        names = list(self.places[0].record)
        writer.writerow(names)
        for place in self.places:
            for record in self.changed.get(place.at, [place.record]):
                writer.writerow([record[name] for name in names])
        for record in self.added:
            writer.writerow([record[name] for name in names])
        return (BOM if self.content.startswith(BOM) else b"") + out.getvalue().encode()


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()
