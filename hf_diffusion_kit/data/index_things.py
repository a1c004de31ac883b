"""What is to be seen in the pictures: COCO's objects and categories as numbers; and ids, which may be numbers or texts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .annotations import INSTANCES, Object, stream
from .arrow import Spill, ends_of, numbers_of, numpy_of, texts_of
from .base import Findings

Watch = Callable[[memoryview], None]


class Numbers:
    """Ids as they come: integers, texts, or both; equal when their texts are. Integers wait on disk, for they are the rule."""

    def __init__(self, path: Path) -> None:
        self.integers = Spill(path, np.int64)
        self.texts: list[np.ndarray] | None = None

    def add(self, values: list[Any]) -> None:
        part = ids_of(values)
        if self.texts is None and part.dtype == np.int64:
            self.integers.add(part)
            return
        self.texts = self.texts or [self.integers.read.astype(str)]
        self.texts.append(part.astype(str))

    def joined(self) -> np.ndarray:
        return self.integers.read if self.texts is None else np.concatenate(self.texts)


def ids_of(values: list[Any]) -> np.ndarray:
    """int64 where all are integers of that size, else texts."""
    part = np.array(values) if values else np.zeros(0, dtype=np.int64)
    return part if part.dtype == np.int64 else np.array(list(map(str, values)))


def alike(*columns: np.ndarray) -> list[np.ndarray]:
    """All as integers, or all as texts."""
    texts = any(column.dtype.kind == "U" for column in columns)
    return [column.astype(str) if texts else column for column in columns]


def column_of(ids: np.ndarray) -> pa.Array:
    return texts_of(ids.tolist()) if ids.dtype.kind == "U" else numbers_of(ids)


def places_in(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place (int32) of each id of `wanted` in `ids`, -1 where it is not there."""
    ids, wanted = alike(ids, wanted)
    return numpy_of(pc.index_in(column_of(wanted), value_set=column_of(ids)))


def by_number(ids: np.ndarray) -> list[np.ndarray]:
    """Keys for `np.lexsort`: 2 before 10, as numbers and as texts."""
    return [ids, np.char.str_len(ids)] if ids.dtype.kind == "U" else [ids]


@dataclass
class Things:
    """The objects of the instances' file."""

    folder: Path
    names: dict[int | str, tuple[str, str]] = field(default_factory=dict)
    """Category number -> name and supercategory."""
    has_areas: bool = False
    """Whether any object states one."""

    def __post_init__(self) -> None:
        self.owners, self.kinds = (Numbers(self.folder / f"{name}.ids") for name in ("owners", "kinds"))
        self.areas, self.crowds = Spill(self.folder / "areas", np.float32), Spill(self.folder / "crowds", np.bool_)

    def read(self, file: Path, watch: Watch) -> None:
        for name, part in stream(file, INSTANCES, watch=watch):
            if name == "categories":
                self.names |= {entry.id: (entry.name, entry.supercategory or "") for entry in part}
            else:
                self._add(part)

    def _add(self, part: list[Object]) -> None:
        self.owners.add([thing.image_id for thing in part])
        self.kinds.add([thing.category_id for thing in part])
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and large enough for any limit
            areas = np.fromiter([thing.area for thing in part], np.float32, len(part))  # None becomes NaN
        self.areas.add(areas)
        self.crowds.add(np.fromiter([bool(thing.iscrowd) for thing in part], np.bool_, len(part)))
        self.has_areas = self.has_areas or not bool(np.isnan(areas).all())

    def numbers(self) -> list[int | str]:
        return sorted(self.names, key=lambda number: (len(str(number)), str(number)))

    def named(self) -> list[tuple[str, str]]:
        return [self.names[number] for number in self.numbers()]


def objects_of(
    ids: np.ndarray, width: np.ndarray, height: np.ndarray, things: Things, findings: Findings
) -> dict[str, np.ndarray]:
    owner = places_in(ids, things.owners.joined())
    kind = places_in(ids_of(things.numbers()), things.kinds.joined())
    last = len(things.names)
    for lost, what in ((kind < 0, "categories without a name"), (owner < 0, "pictures that are not listed or have no caption")):
        if number := int(lost.sum()):
            findings.notes.append(f"objects of {what} were not counted: {number}")
        kind = np.where(lost, last, kind)
    kind = kind.astype(np.int16 if last < 1 << 15 else np.int32)
    here = np.argsort(kind, kind="stable")  # by category, so that a query reads those of its own alone
    starts = np.searchsorted(kind, np.arange(last + 1), sorter=here)
    here = here[: starts[-1]]
    picture = owner[here]
    pixels = width[picture].astype(np.float32) * height[picture]
    share = things.areas.read[here] / np.where(pixels > 0, pixels, np.float32(np.nan))  # of unknown pictures nobody knows
    return {"thing_picture": picture, "thing_starts": starts, "thing_share": share, "thing_crowd": things.crowds.read[here]}


def categories_of(arrays: dict[str, np.ndarray], count: int, things: Things) -> dict[str, np.ndarray]:
    """Which categories are in which picture, in the order of their numbers."""
    names = max(len(things.names), 1)
    kinds = np.repeat(np.arange(len(things.names)), np.diff(arrays["thing_starts"]))
    pairs = np.sort(arrays["thing_picture"].astype(np.int64) * names + kinds)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique takes twenty times as long here
    owner, kind = np.divmod(pairs, names)
    return {"kind_order": kind, "kind_starts": ends_of(np.bincount(owner, minlength=count))}
