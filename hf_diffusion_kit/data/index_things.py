"""What is to be seen in the pictures: COCO's objects and categories as numbers; and ids, which may be numbers or texts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .annotations import INSTANCES, Object, stream
from .arrow import ends_of, numbers_of, numpy_of, texts_of
from .base import Findings

Watch = Callable[[memoryview], None]


@dataclass
class Numbers:
    """Ids as they come: integers, texts, or both; equal when their texts are."""

    parts: list[np.ndarray] = field(default_factory=list)

    def add(self, values: list[Any]) -> None:
        part = np.array(values) if values else np.zeros(0, dtype=np.int64)
        self.parts.append(part if part.dtype == np.int64 else np.array(list(map(str, values))))

    def joined(self) -> np.ndarray:
        texts = any(part.dtype.kind == "U" for part in self.parts)
        parts = [part.astype(str) if texts else part for part in self.parts]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def alike(*columns: np.ndarray) -> list[np.ndarray]:
    """All as integers, or all as texts."""
    texts = any(column.dtype.kind == "U" for column in columns)
    return [column.astype(str) if texts else column for column in columns]


def column_of(ids: np.ndarray) -> pa.Array:
    return texts_of(ids.tolist()) if ids.dtype.kind == "U" else numbers_of(ids)


def places_in(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place of each id of `wanted` in `ids`, -1 where it is not there."""
    ids, wanted = alike(ids, wanted)
    found = pc.index_in(column_of(wanted), value_set=column_of(ids))
    return numpy_of(found).astype(np.int64)


def by_number(ids: np.ndarray) -> list[np.ndarray]:
    """Keys for `np.lexsort`: 2 before 10, as numbers and as texts."""
    return [ids, np.char.str_len(ids)] if ids.dtype.kind == "U" else [ids]


@dataclass
class Things:
    """The objects of the instances' file."""

    owners: Numbers = field(default_factory=Numbers)
    kinds: Numbers = field(default_factory=Numbers)
    areas: list[np.ndarray] = field(default_factory=list)
    crowds: list[np.ndarray] = field(default_factory=list)
    names: dict[int | str, tuple[str, str]] = field(default_factory=dict)
    """Category number -> name and supercategory."""

    def read(self, file: Path, watch: Watch) -> None:
        for name, part in stream(file, INSTANCES, watch=watch):
            if name == "categories":
                self.names |= {entry.id: (entry.name, entry.supercategory or "") for entry in part}
            else:
                self._add(part)

    def _add(self, part: list[Object]) -> None:
        self.owners.add([thing.image_id for thing in part])
        self.kinds.add([thing.category_id for thing in part])
        self.areas.append(np.array([thing.area for thing in part], dtype=np.float32))  # None becomes NaN
        self.crowds.append(np.array([thing.iscrowd for thing in part]).astype(bool) if part else np.zeros(0, dtype=bool))

    @property
    def has_areas(self) -> bool:
        """Whether any object states one."""
        return any(bool(np.isfinite(part).any()) for part in self.areas)

    def numbers(self) -> list[int | str]:
        return sorted(self.names, key=lambda number: (len(str(number)), str(number)))

    def named(self) -> list[tuple[str, str]]:
        return [self.names[number] for number in self.numbers()]


def objects_of(
    ids: np.ndarray, width: np.ndarray, height: np.ndarray, things: Things, findings: Findings
) -> dict[str, np.ndarray]:
    owner = places_in(ids, things.owners.joined())
    known = Numbers()
    known.add(things.numbers())
    kind = places_in(known.joined(), things.kinds.joined())
    if nameless := Counter(things.kinds.joined()[kind < 0].tolist()):
        findings.notes.append(f"objects of categories without a name were not counted: {sum(nameless.values())}")
    here = np.flatnonzero((owner >= 0) & (kind >= 0))
    kind = kind.astype(np.int16)
    here = here[np.argsort(kind[here], kind="stable")]  # by category, so that a query reads those of its own alone
    area = np.concatenate(things.areas)[here] if things.areas else np.zeros(0, dtype=np.float32)
    crowd = np.concatenate(things.crowds)[here] if things.crowds else np.zeros(0, dtype=bool)
    pixels = width[owner[here]].astype(np.float32) * height[owner[here]]
    share = area / np.where(pixels > 0, pixels, np.nan)  # of a picture of unknown size nobody knows
    return {
        "thing_picture": owner[here].astype(np.int32),
        "thing_starts": np.searchsorted(kind[here], np.arange(len(things.names) + 1)),
        "thing_share": share.astype(np.float32),
        "thing_crowd": crowd,
    }


def categories_of(arrays: dict[str, np.ndarray], count: int, things: Things) -> dict[str, np.ndarray]:
    """Which categories are in which picture, in the order of their numbers."""
    names = max(len(things.names), 1)
    kinds = np.repeat(np.arange(len(things.names)), np.diff(arrays["thing_starts"]))
    pairs = np.sort(arrays["thing_picture"].astype(np.int64) * names + kinds)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique takes twenty times as long here
    owner, kind = np.divmod(pairs, names)
    return {"kind_order": kind, "kind_starts": ends_of(np.bincount(owner, minlength=count))}
