"""metadata.jsonl, .csv and .parquet: one line a caption or a picture; a line that cannot be read is named by file and number."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""As stock `imagefolder` names them; the first that is there is used."""
SHOWN = 60
"""Characters of a dropped line that are told."""
REPAIR = "complete that line, or say repair=True (--repair): it is left out, the file stays as it is"


@dataclass(frozen=True)
class Line:
    where: str
    """File and line, counted from 1 as an editor does; of Parquet the row, from 0."""
    place: str
    """The same within the file: `line 3`."""
    record: dict[str, Any]


Dropped = Callable[[str], None]
"""Is told which line was left out, and how it begins."""


def lines(path: Path, dropped: Dropped | None = None) -> Iterator[Line]:
    """Raises SourceError naming file and line. With `dropped` (repair), a last line that is cut short is left out; nothing else is."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        if not path.is_file():  # a pipe would be waited for without end
            raise SourceError("is no file", where=path, fix="remove it, or put a file there", case=7)
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, fix="see that it may be read", case=7) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError("is UTF-16", where=path, fix="save it as UTF-8", case=7)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise SourceError("is empty", where=path, fix="write one line a picture, or delete it", case=7)
    yield from _csv(path, content, dropped) if path.suffix == ".csv" else _jsonl(path, content, dropped)


def _jsonl(path: Path, content: bytes, dropped: Dropped | None) -> Iterator[Line]:
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
            elif number == last and "truncated" in str(error) and row.lstrip().startswith(b"{"):
                told = f"{_begin(row)!r}"
                if dropped:
                    dropped(f"line {number}, which begins {told}")
                    return
                what, fix = f"the last line is cut short ({told})", REPAIR
            else:
                what, fix = f"it is {str(error)[:200]}", "mend that line"
            raise SourceError(what, where=where, fix=fix, case=7) from error
        except UnicodeDecodeError as error:
            raise SourceError("is not UTF-8", where=where, fix="save the file as UTF-8", case=7) from error
        except RecursionError as error:
            raise SourceError("is nested too deeply", where=where, fix="mend that line", case=7) from error
        if not isinstance(record, dict):
            what = "is a JSON list, not JSON Lines" if isinstance(record, list) else f"is not an object but {_begin(row)!r}"
            raise SourceError(what, where=where, fix='write one {"file_name": ..., "text": ...} a line', case=7)
        yield Line(where, f"line {number}", record)


def _csv(path: Path, content: bytes, dropped: Dropped | None) -> Iterator[Line]:
    """Everything is text: a caption `NA` or `1984` stays what it is. Comma, semicolon and tab are told apart by the first line."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise SourceError("is not UTF-8", where=f"{path}: line {number}", fix="save the file as UTF-8", case=7) from error
    if not text.strip():  # spaces that only Unicode knows
        raise SourceError("is empty", where=path, fix="write one line a picture, or delete it", case=7)
    head = text.lstrip("\r\n").splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    names: list[str] = []
    rows = re.split("\r\n|\r|\n", text)
    last = max(number for number, row in enumerate(rows, 1) if row.strip())
    while True:
        start = reader.line_num + 1
        where = f"{path}: line {start}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            if unclosed and start == last and dropped:
                dropped(f"line {start}, which begins {_begin(rows[start - 1])!r}")
                return
            what = "a quote is opened that is never closed" if unclosed else f"cannot be read: {error}"
            fix = REPAIR if unclosed and start == last else "mend that line"
            raise SourceError(what, where=where, fix=fix, case=7) from error
        if not fields:
            continue
        if not names:
            names = [name.strip() for name in fields]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise SourceError(f"has two columns {twice[0]!r}", where=where, fix="give each a name of its own", case=7)
        elif len(fields) == len(names):
            yield Line(where, f"line {start}", dict(zip(names, fields, strict=True)))
        elif len(fields) < len(names) and start == last and dropped:
            dropped(f"line {start}, which begins {_begin(rows[start - 1])!r}")
            return
        else:
            what = f"has {len(fields)} fields, the first line {len(names)}"
            short = len(fields) < len(names) and start == last
            fix = REPAIR if short else "put a caption that holds a comma in double quotes"
            raise SourceError(what, where=where, fix=fix, case=7)


def _parquet(path: Path) -> Iterator[Line]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for record in batch.to_pylist():
                    yield Line(f"{path}: row {number}", f"row {number}", record)
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        what = f"its Parquet cannot be read: {' '.join(str(error).split())[:200]}"
        raise SourceError(what, where=path, fix="make or fetch it again", case=7) from error


def _begin(line: bytes | str) -> str:
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    return text.strip()[:SHOWN]
