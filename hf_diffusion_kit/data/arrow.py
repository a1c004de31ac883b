"""Arrow arrays from plain values, and long columns on disk, so that memory does not grow with them.

`pa.array`, `pc.fill_null` and `to_numpy` import pandas, which takes a third of a second; the ways here do not.
"""

import mmap
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa


def texts_of(values: list[str]) -> pa.LargeStringArray:
    """Half of a surrogate pair becomes a question mark."""
    joined = "".join(values)
    if joined.isascii():
        content, lengths = joined.encode(), np.fromiter(map(len, values), np.int64, len(values))
    else:
        encoded = [value.encode("utf-8", "replace") for value in values]
        content, lengths = b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(values))
    return pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(ends_of(lengths)), pa.py_buffer(content))


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


class Spill:
    """Numbers that go to disk as they come, until they are `read`; the file is gone then, and what is read is a map of it."""

    def __init__(self, path: Path, kind: type) -> None:
        self.path, self.kind = path, np.dtype(kind)
        self.path.write_bytes(b"")

    def add(self, values: np.ndarray) -> None:
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(values, self.kind).data)

    @cached_property
    def read(self) -> np.ndarray:
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        with suppress(PermissionError):  # Windows keeps what is mapped
            self.path.unlink()
        return np.frombuffer(content, self.kind)


class TextWriter:
    """Texts go to `<name>.bin` as they come; where each ends is known at the end."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.ends = folder / f"{name}.bin", folder / f"{name}_ends.npy"
        self.path.write_bytes(b"")
        self.lengths = Spill(folder / f"{name}.lengths", np.int64)

    def add(self, values: list[str]) -> pa.LargeStringArray:
        """The same texts, as they are in memory."""
        texts = texts_of(values)
        _, offsets, content = texts.buffers()
        with self.path.open("ab") as file:
            file.write(content)
        self.lengths.add(np.diff(np.frombuffer(offsets, dtype=np.int64)))
        return texts

    def close(self) -> pa.LargeStringArray:
        """All of them, mapped from disk."""
        with self.path.open("ab") as file:
            file.write(b"\0")  # an empty file cannot be mapped
        np.save(self.ends, ends_of(self.lengths.read))
        return read_texts(self.path.parent, self.path.stem)


def read_texts(folder: Path, name: str) -> pa.LargeStringArray:
    ends = np.load(folder / f"{name}_ends.npy", mmap_mode="r")
    with (folder / f"{name}.bin").open("rb") as file:
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), content)
