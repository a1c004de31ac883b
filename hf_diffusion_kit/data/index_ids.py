"""Ids as COCO's files have them: numbers as a rule, texts in other people's, or both."""

from array import array
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from .arrow import numbers_of, numpy_of, read_texts, texts_of
from .index_spill import Spill, TextWriter, blocks

SPARSE = 16
"""Possible numbers for each that is there, up to which places are found in a table of all possible ones."""


class Ids:
    """A column of ids on disk, in the order in which they come. All of them are integers (int64), or else all are texts; an integer
    and a text are equal where the one is written like the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.integers = Spill(folder / f"{name}.numbers", np.int64)
        self.texts: TextWriter | None = None
        self.longest = 21
        """Signs of the longest text, or what numpy takes for an integer."""

    def __len__(self) -> int:
        return len(self.integers if self.texts is None else self.texts)

    def add(self, values: list[Any]) -> None:
        """Before the first look at them."""
        if self.texts is None:
            try:
                self.integers.add(np.frombuffer(array("q", values), np.int64))
                return
            except (TypeError, OverflowError):  # a text, or a number beyond int64
                self.texts = TextWriter(self.folder, self.name)
                for span in blocks(len(self.integers)):
                    self.texts.add(self.integers.read[span].astype(str).tolist())
        told = list(map(str, values))
        self.longest = max([self.longest, *map(len, told)])
        self.texts.add(told)

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """Those at a stretch or at places, in memory if they are texts."""
        if self.texts is None:
            return self.integers.read[which]
        part = self._mapped[which] if isinstance(which, slice) else self._mapped.take(numbers_of(which))
        return np.array(part.to_pylist(), dtype=str)

    def all(self) -> np.ndarray:
        """All of them, in memory if they are texts."""
        return self[:] if self.texts is None else self[:].astype(f"U{self.longest}")

    @cached_property
    def _mapped(self) -> pa.LargeStringArray:
        if self.texts is not None:
            self.texts.close()
        return read_texts(self.folder, self.name)


class Places:
    """Where each of `ids` stands; the first place of one that stands twice."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids, self.table = ids, np.zeros(0, dtype=np.int32)
        if ids.dtype.kind != "U" and len(ids):
            self.low, self.high = int(ids.min()), int(ids.max())
            if self.high - self.low <= SPARSE * len(ids):
                self.table = np.full(self.high - self.low + 1, -1, dtype=np.int32)
                self.table[ids[::-1] - self.low] = np.arange(len(ids), dtype=np.int32)[::-1]

    def of(self, wanted: np.ndarray) -> np.ndarray:
        """int32, -1 for what is not there."""
        if not len(self.table) or wanted.dtype.kind == "U":
            texts = wanted.dtype.kind == "U" or self.ids.dtype.kind == "U"
            known = self._as_texts if texts else numbers_of(self.ids)
            return numpy_of(pc.index_in(_column(wanted, texts), value_set=known))
        inside = (wanted >= self.low) & (wanted <= self.high)
        if inside.all():
            return self.table[wanted - self.low]
        found = np.full(len(wanted), -1, dtype=np.int32)
        found[inside] = self.table[wanted[inside] - self.low]
        return found

    @cached_property
    def _as_texts(self) -> pa.LargeStringArray:
        return _column(self.ids, True)


def _column(ids: np.ndarray, texts: bool) -> pa.Array:
    return texts_of(ids.astype(str).tolist()) if texts else numbers_of(ids)


def by_number(ids: np.ndarray) -> list[np.ndarray]:
    """Keys for `np.lexsort`: 2 before 10, as numbers and as texts."""
    return [ids, np.char.str_len(ids)] if ids.dtype.kind == "U" else [ids]


def repeated(ids: Ids) -> int:
    """How many of them occur more than once. Texts are told apart by 64 bits of a hash."""
    if all(bool(np.all(part[1:] > part[:-1])) for part in (ids[slice(max(at.start - 1, 0), at.stop)] for at in blocks(len(ids)))):
        return 0  # they ascend, as they often do
    copied = Spill(ids.folder / f"{ids.name}.sorted", np.int64)
    for span in blocks(len(ids)):
        part = ids[span]
        copied.add(part if part.dtype.kind != "U" else _hashes(part))
    ordered, number = copied.sort(), 0
    for span in blocks(len(ordered)):
        before = min(span.start, 2)
        part = ordered[span.start - before : span.stop]
        same = np.concatenate([[False], part[1:] == part[:-1]])
        number += int((same[1:] & ~same[:-1])[max(before - 1, 0) :].sum())
    return number


def _hashes(texts: np.ndarray) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts.tolist()], dtype=np.uint64).view(np.int64)
