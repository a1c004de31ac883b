"""Long columns on disk, while an index is made and after: memory does not grow with them.

What is read back is a map of the file, and what is sorted is sorted in the file: the system keeps of it what there is room for.
"""

import io
import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from .arrow import bytes_of

BLOCK = 1 << 18
"""Entries of a column that are looked at together; some tens of bytes each."""
HELD = 1 << 19
"""Bytes of a column that wait in memory, so that a file is not opened for every few."""
PLACE = (1 << 32) - 1
"""The half of a sorting key that tells a place; the other half is what is sorted by."""


def blocks(count: int) -> Iterator[slice]:
    """`count` entries, BLOCK at a time."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


def whole_lists(starts: np.ndarray) -> Iterator[slice]:
    """About BLOCK entries of lists that lie one after another, none of them cut; `starts` has one more than there are lists."""
    at = 0
    while at < len(starts) - 1:
        end = max(at + 1, int(np.searchsorted(starts, starts[at] + BLOCK, side="right")) - 1)
        yield slice(int(starts[at]), int(starts[end]))
        at = end


class Spill:
    """Numbers that go to disk as they come. After the first look at them (`read`, `sort`) none may be added."""

    head = b""
    """What stands before them in the file."""

    def __init__(self, path: Path, kind: type) -> None:
        self.path, self.kind, self.count = path, np.dtype(kind), 0
        self.waiting: list[np.ndarray] = []
        self.held = 0
        self.path.write_bytes(self.head)

    def __len__(self) -> int:
        return self.count

    def add(self, values: np.ndarray) -> None:
        """Kept as they are until they are written: nobody may change them."""
        values = np.ascontiguousarray(values, self.kind)
        self.waiting.append(values)
        self.count += len(values)
        self.held += values.nbytes
        if self.held > HELD:
            self.flush()

    def flush(self) -> None:
        with self.path.open("ab") as file:
            for values in self.waiting:
                file.write(values.data)
        self.waiting, self.held = [], 0

    @cached_property
    def read(self) -> np.ndarray:
        return self._mapped(mmap.ACCESS_READ)

    def sort(self) -> np.ndarray:
        """The same numbers in ascending order, in the same file."""
        values = self._mapped(mmap.ACCESS_WRITE)
        values.sort()
        return values

    def _mapped(self, access: int) -> np.ndarray:
        self.flush()
        if not self.count:
            return np.zeros(0, self.kind)
        with self.path.open("rb" if access == mmap.ACCESS_READ else "r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), self.kind, offset=len(self.head))


class Column(Spill):
    """A `.npy` file, byte for byte what `np.save` writes, but not before it is closed."""

    def __init__(self, path: Path, kind: type) -> None:
        self.head = _head(np.dtype(kind), 0)  # as long as any: numpy leaves room for the length
        super().__init__(path, kind)

    def close(self) -> None:
        self.flush()
        with self.path.open("r+b") as file:
            file.write(_head(self.kind, self.count))


def _head(kind: np.dtype, count: int) -> bytes:
    head = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(head, told)
    return head.getvalue()


class TextWriter:
    """Texts go to `<name>.bin` as they come, the places where they end to `<name>_ends.npy`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.content, self.ends = Spill(folder / f"{name}.bin", np.uint8), Column(folder / f"{name}_ends.npy", np.int64)
        self.ends.add(np.zeros(1))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def add(self, values: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Their bytes, and how many each of them has."""
        encoded, lengths = bytes_of(values)
        content = np.frombuffer(encoded, np.uint8)
        self.ends.add(np.cumsum(lengths) + len(self.content))
        self.content.add(content)
        return content, lengths

    def close(self) -> None:
        self.content.add(np.zeros(1))  # an empty file cannot be mapped
        self.content.flush()
        self.ends.close()
