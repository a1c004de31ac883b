"""What lies beside the Parquet of a saved subset: facts.json, which this package reads; README.md, which stock `load_dataset` and
people read; attribution.csv; a page of the first pictures. Made from the record and the rows alone: equal ones give equal bytes."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..cards import front_matter
from ..cards.dataset_card import OVERLAPS, Credit, RowFacts, dataset_card
from ..records import SubsetRecord
from ..sheet import Cell, grid
from .features import CARD
from .pictures import open_rgb
from .terms import hub_id, license_of, licenses_of

FACTS, README, ATTRIBUTION, SHEET = "facts.json", "README.md", "attribution.csv", "images/sheet.png"
SHOWN = 24
"""Most pictures of the page."""
CREDITED = 8
"""Rows of attribution.csv that the card shows."""
CELL = 200
"""Pixels of the square that a picture of the page is fitted into."""
BATCH = 1000
ADDRESS = re.compile(r"https?://(?:s3\.amazonaws\.com/)?images\.cocodataset\.org/(\w+)/")
NAME = re.compile(r"COCO_((?:train|val)2014)_\d{12}\.jpg")
COLUMNS = [entry.name for entry in fields(Credit)]


def texts(record: SubsetRecord, table: pa.Table, *, repo_id: str | None = None, license: str | None = None) -> dict[str, bytes]:
    """Names -> contents of the files beside the Parquet. `table` has the columns of FEATURES and is memory-mapped, pictures too; no
    more than a batch of them is read at a time. `repo_id`: where it will be; None for a folder. `license`: an id of the Hub, of
    the pictures that name none themselves."""
    counts = _licenses(table)
    stated = license if ("", "") in counts else None
    licenses = licenses_of(counts, stated)
    page = sheet(table)
    facts = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
    rows = RowFacts(
        head=_head(facts),
        num_bytes=sum(_bytes(column) for column in table.columns),
        license=hub_id(licenses),
        licenses=licenses,
        credits=tuple(_credits(table.slice(0, CREDITED))),
        coco=_coco(record, table),
        stated=stated is not None,
        sheet=page[0] if page else None,
    )
    told = {
        FACTS: facts,
        README: dataset_card(record, rows, repo_id),
        ATTRIBUTION: attribution(table),
    }
    return {name: text.encode("utf-8", "backslashreplace") for name, text in told.items()} | ({SHEET: page[1]} if page else {})


def _head(facts: str) -> dict[str, Any]:
    """Stock `datasets` caches a local folder under its name, the rows' number and bytes, and what `configs` says: the time and the
    content of files count for nothing. A word that is another for every subset keeps it from answering with another one's rows."""
    head = front_matter.read(f"---\n{CARD}---\n")
    mark = hashlib.sha256(facts.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    head["configs"][0]["description"] = f"subset {mark}"
    return head


def attribution(table: pa.Table) -> str:
    """One line a picture: where it is from, under which licence, and its sha256."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(list(asdict(credit).values()) for credit in _credits(table))
    return text.getvalue()


def sheet(table: pa.Table) -> tuple[int, bytes] | None:
    """How many pictures, and a PNG of them with what stands in `text`: the first whose licence does not forbid changed copies, for
    that is what a page of small ones is. None where none may be shown, or there are no pixels."""
    cells: list[Cell] = []
    for place, row in enumerate(_rows(table, ["license", "license_url"])):
        if len(cells) == SHOWN:
            break
        if license_of(row["license"] or "", row["license_url"] or "", 1).changed is False:
            continue
        content, text = (table.column(name)[place].as_py() for name in ("image", "text"))
        if content["bytes"] is None:
            return None
        picture = open_rgb(content["bytes"])
        picture.thumbnail((CELL, CELL))
        cells.append(Cell(picture, text))
    if not cells:
        return None
    more = f", {len(cells)} of them" if len(cells) < table.num_rows else ""
    buffer = io.BytesIO()
    grid(cells, title=f"{table.num_rows:,} captioned pictures{more}", cell=CELL).save(buffer, "PNG", compress_level=1)
    return len(cells), buffer.getvalue()


def _credits(table: pa.Table) -> Iterator[Credit]:
    for row in _rows(table, COLUMNS):
        yield Credit(**{name: value or "" for name, value in row.items()})


def _licenses(table: pa.Table) -> Counter[tuple[str, str]]:
    return Counter((row["license"] or "", row["license_url"] or "") for row in _rows(table, ["license", "license_url"]))


def _coco(record: SubsetRecord, table: pa.Table) -> dict[str, int]:
    """Split -> pictures that are COCO's own: by their address, by their name, or by the name that all of 2017 have."""
    found: Counter[str] = Counter()
    first = record.chain[0]
    alone = first.splits[0] if first.source == "coco" and len(first.splits) == 1 else ""
    for row in _rows(table, ["coco_url", "file_name"]):
        address, name = row["coco_url"] or "", (row["file_name"] or "").rpartition("/")[2]
        if mark := ADDRESS.match(address) or NAME.fullmatch(name):
            found[mark[1]] += 1
        elif alone and re.fullmatch(r"\d{12}\.jpg", name):
            found[alone] += 1
    return {split: found[split] for split in sorted(found) if split in OVERLAPS}


def _rows(table: pa.Table, columns: list[str], most: int = BATCH) -> Iterator[dict[str, Any]]:
    for batch in table.select(columns).to_batches(max_chunksize=most):
        yield from batch.to_pylist()


def _bytes(column: pa.ChunkedArray) -> int:
    """What the values take, however they are cut into batches. No picture is read."""
    if pa.types.is_struct(column.type):
        return sum(_bytes(pc.struct_field(column, name)) for name in ("bytes", "path"))
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return pc.sum(pc.binary_length(values)).as_py() or 0
    return len(values) * values.type.byte_width
