"""metadata.jsonl and metadata.csv: one line a caption or a picture; a line that cannot be read is named by file and number."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import SourceError

NAMES = ("metadata.jsonl", "metadata.csv")
"""The stated order: the first that is there is used."""


@dataclass(frozen=True)
class Line:
    number: int
    """From 1, as an editor counts."""
    record: dict[str, Any]


def lines(path: Path) -> Iterator[Line]:
    """Raises SourceError naming file and line."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError("is UTF-16", where=path, fix="save it as UTF-8", case=7)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise SourceError("is empty", where=path, fix="write one line a picture, or delete it", case=7)
    yield from _csv(path, content) if path.suffix == ".csv" else _jsonl(path, content)


def _jsonl(path: Path, content: bytes) -> Iterator[Line]:
    rows = content.split(b"\n")
    last = max(number for number, row in enumerate(rows, 1) if row.strip())
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        where = f"{path}: line {number}"
        try:
            record = msgspec.json.decode(row)
        except msgspec.DecodeError as error:
            if number == 1 and row.lstrip().startswith(b"["):
                what, fix = (
                    "is a JSON list, not JSON Lines",
                    'write one {"file_name": ..., "text": ...} a line, without brackets around',
                )
            elif number == last and not content.endswith(b"\n"):
                what, fix = (
                    f"the last line is cut short ({row[:60].decode(errors='replace')!r})",
                    "complete that line, or delete it",
                )
            else:
                what, fix = f"it is {error}", "mend that line"
            raise SourceError(what, where=where, fix=fix, case=7) from error
        except UnicodeDecodeError as error:
            raise SourceError("is not UTF-8", where=where, fix="save the file as UTF-8", case=7) from error
        except RecursionError as error:
            raise SourceError("is nested too deeply", where=where, fix="mend that line", case=7) from error
        if not isinstance(record, dict):
            what = "is a JSON list, not JSON Lines" if isinstance(record, list) else f"is not an object but {row[:40].decode()!r}"
            raise SourceError(what, where=where, fix='write one {"file_name": ..., "text": ...} a line', case=7)
        yield Line(number, record)


def _csv(path: Path, content: bytes) -> Iterator[Line]:
    """Everything is text: a caption `NA` or `1984` stays what it is. Comma, semicolon and tab are told apart by the first line."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise SourceError("is not UTF-8", where=f"{path}: line {number}", fix="save the file as UTF-8", case=7) from error
    head = text.splitlines()[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        for record in reader:
            where = f"{path}: line {reader.line_num}"
            if None in record or None in record.values():
                count = sum(value is not None for key, value in record.items() if key is not None) + len(record.get(None) or [])
                what = f"has {count} fields, the first line {len(reader.fieldnames or [])}"
                raise SourceError(what, where=where, fix="put a caption that holds a comma in double quotes", case=7)
            yield Line(reader.line_num, dict(record))
    except csv.Error as error:
        what = f"cannot be read: {error}"
        raise SourceError(what, where=f"{path}: line {reader.line_num}", fix="mend that line", case=7) from error
