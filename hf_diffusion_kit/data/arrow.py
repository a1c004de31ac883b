"""Arrow arrays from plain values and from files.

`pa.array`, `pc.fill_null` and `to_numpy` import pandas, which takes a third of a second; the ways here do not.
"""

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa


def texts_of(values: list[str]) -> pa.LargeStringArray:
    """Half of a surrogate pair becomes a question mark."""
    content, lengths = bytes_of(values)
    return pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(ends_of(lengths)), pa.py_buffer(content))


def bytes_of(values: list[str]) -> tuple[bytes, np.ndarray]:
    """All in one as UTF-8, and how many bytes each of them has (int64)."""
    joined = "".join(values)
    if joined.isascii():
        return joined.encode(), np.fromiter(map(len, values), np.int64, len(values))
    encoded = [value.encode("utf-8", "replace") for value in values]
    return b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(values))


def numbers_of(values: np.ndarray) -> pa.Array:
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def numpy_of(numbers: pa.Array) -> np.ndarray:
    """-1 where null stands."""
    kind = np.dtype(numbers.type.to_pandas_dtype())
    values = np.frombuffer(numbers.buffers()[1], kind, len(numbers), numbers.offset * kind.itemsize)
    return values if not numbers.null_count else np.where(numpy_of(numbers.is_valid().cast(pa.uint8())) == 1, values, -1)


def ends_of(lengths: np.ndarray) -> np.ndarray:
    """Lengths -> offsets, one more than there are lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def spans(starts: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For lists that lie one after another: (offsets of those at `places`, positions of all their members)."""
    first, count = starts[places], starts[places + 1] - starts[places]
    ends = ends_of(count)
    return ends, np.arange(ends[-1]) + np.repeat(first - ends[:-1], count)


def read_texts(folder: Path, name: str) -> pa.LargeStringArray:
    ends = np.load(folder / f"{name}_ends.npy", mmap_mode="r")
    with (folder / f"{name}.bin").open("rb") as file:
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), content)
