"""What a person could read in a Parquet file: its texts, however they are packed, and what stands in its footer. No pictures."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_text(path: Path) -> Iterator[bytes]:
    """One value a line. Nothing for a file that is no Parquet; whoever asks looks at its raw bytes as well."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for key, value in (file.metadata.metadata or {}).items():
                yield key + b"\n" + value
            leaves = [file.schema.column(number) for number in range(len(file.schema))]
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "NONE"]
            for group in range(file.num_row_groups if texts else 0):
                for column in file.read_row_group(group, columns=texts).columns:
                    yield "\n".join(_values(column)).encode("utf-8", "replace")
    except (pa.ArrowException, OSError):
        return


def _values(column: pa.ChunkedArray) -> Iterator[str]:
    for chunk in column.chunks:
        yield from _texts(chunk.to_pylist())


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
