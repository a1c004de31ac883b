"""Rows as files of Parquet and back: written straight from Arrow, cut by bytes, each known by its sha256."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import SourceError
from .durable import sync
from .features import SCHEMA
from .spool import BATCH_ROWS

SHARD_BYTES = 400_000_000
"""About as much is in a file; none has more than 500 MB."""
TEXTS = ["text", "captions.list.element", "categories.list.element", "image.path"] + [
    name for name in SCHEMA.names if pa.types.is_string(SCHEMA.field(name).type) and name != "text"
]
"""Columns of text as Parquet names them. They are compressed; pictures are already."""
REPEATED = ["categories.list.element", "license", "license_url"]
"""Texts that many rows have in common."""
ORDERED = [*TEXTS, "width", "height"]
"""Columns whose least and greatest value stand beside each row group, for `filters=` to skip those that cannot match."""
PAGE_ROWS = 8
"""Rows after which it is asked whether a page (1 MB) is full. Asked once a row group, a page would be all of its pictures: measured,
twice the CPU time, for buffers that grow and writes of 10 MB."""
AGAIN = "make the subset again"


@dataclass(frozen=True)
class Shard:
    """One file, as it was when it was written: the manifest's line."""

    file: str
    """Below the folder of the subset: `data/train-00000-of-00002.parquet`."""
    rows: int
    bytes: int
    sha256: str


def write(table: pa.Table, folder: Path) -> list[Shard]:
    """Writes `data/train-...` below `folder` and syncs it. Pictures go from the table's memory map into the files, a row group at
    a time. Raises OSError."""
    (folder / "data").mkdir(parents=True)
    bounds = cuts(_row_bytes(table))
    made, groups = [], _groups(table, bounds)
    for number, (start, stop) in enumerate(bounds):
        name = f"data/train-{number:05d}-of-{len(bounds):05d}.parquet"
        made.append(_write_one(folder, name, stop - start, groups))
    sync(folder / "data")
    return made


def cuts(row_bytes: np.ndarray) -> list[tuple[int, int]]:
    """First row and the row after the last of each shard: equal in bytes, and from nine on a multiple of eight, for nodes and workers
    share them evenly."""
    ends, rows = np.cumsum(row_bytes), len(row_bytes)
    total = int(ends[-1]) if rows else 0
    wanted = max(1, -(-total // SHARD_BYTES))
    number = max(1, min(rows, wanted if wanted <= 8 else -(-wanted // 8) * 8))
    steps = np.arange(1, number)
    inner = np.searchsorted(ends, steps * (total / number)) + 1
    inner = np.maximum.accumulate(inner - steps) + steps  # no shard is empty
    return list(pairwise([0, *np.clip(inner, steps, rows - number + steps).tolist(), rows]))


def batches(folder: Path, shard: Shard) -> Iterator[pa.RecordBatch]:
    """A shard's rows, a row group at a time. Raises SourceError that names the shard when it is not what was written."""
    path = folder / shard.file
    try:
        check(folder, shard)
        with pq.ParquetFile(path, memory_map=True) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise SourceError("has not the columns that this package writes", where=path, fix=AGAIN, case=11)
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group).to_batches():
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read: {error}", where=path, fix=AGAIN, case=11) from error


def check(folder: Path, shard: Shard) -> None:
    """Raises SourceError when the file is missing, cut short or changed."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            raise SourceError(f"has {size} bytes; {shard.bytes} were written", where=path, fix=AGAIN, case=11)
        with path.open("rb") as file:
            told = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", where=path, fix=AGAIN, case=11) from error
    if told != shard.sha256:
        raise SourceError("has been changed since it was saved", where=path, fix=AGAIN, case=11)


def _write_one(folder: Path, name: str, rows: int, groups: Iterator[pa.Table]) -> Shard:
    options = {
        "compression": {**dict.fromkeys(TEXTS, "zstd"), "image.bytes": "none", "width": "none", "height": "none"},
        "use_dictionary": REPEATED,
        "write_statistics": ORDERED,
        "write_page_index": True,
        "write_batch_size": PAGE_ROWS,
    }
    with _Hashed(folder / name) as file:
        with pq.ParquetWriter(file, SCHEMA, **options) as writer:
            written = 0
            while written < rows:
                group = next(groups)
                writer.write_table(group, row_group_size=BATCH_ROWS)
                written += group.num_rows
        return Shard(name, rows, file.written, file.digest.hexdigest())


def _groups(table: pa.Table, bounds: list[tuple[int, int]]) -> Iterator[pa.Table]:
    """The table's own batches, cut where a shard ends."""
    ends = iter([stop for _, stop in bounds])
    place, end = 0, next(ends)
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        start = 0
        while start < batch.num_rows:
            length = min(batch.num_rows - start, end - place)
            yield pa.Table.from_batches([batch.slice(start, length)], schema=table.schema)
            start, place = start + length, place + length
            if place == end:
                end = next(ends, table.num_rows)


def _row_bytes(table: pa.Table) -> np.ndarray:
    """The pictures' lengths, and for the rest what a row has on average. No picture is read."""
    lengths = pc.fill_null(pc.binary_length(pc.struct_field(table.column("image"), "bytes")), 0).to_numpy().astype(np.int64)
    return lengths + (table.drop_columns(["image"]).nbytes // max(1, table.num_rows) + 1)


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is written, and synced when it is whole."""

    def __init__(self, path: Path):
        super().__init__()
        self._file = path.open("wb", buffering=1 << 20)
        self.digest = hashlib.sha256()
        self.written = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        self.digest.update(content)
        done = self._file.write(content)
        self.written += done
        return done

    def tell(self) -> int:
        return self.written

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()
                super().close()
