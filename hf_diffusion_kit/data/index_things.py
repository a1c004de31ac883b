"""What is to be seen in the pictures: COCO's objects and categories as numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .annotations import INSTANCES, Object, stream
from .arrow import ends_of
from .base import Findings
from .index_ids import Ids, Places
from .index_spill import PLACE, Column, Spill, blocks

Watch = Callable[[memoryview], None]


@dataclass
class Things:
    """The objects of the instances' file, which wait on disk until all is known of the categories."""

    waiting: Path
    names: dict[int | str, tuple[str, str]] = field(default_factory=dict)
    """Category number -> name and supercategory."""
    has_areas: bool = False
    """Whether any object states one."""

    def __post_init__(self) -> None:
        self.owners, self.kinds = Ids(self.waiting, "owners"), Ids(self.waiting, "kinds")
        self.areas, self.crowds = Spill(self.waiting / "areas", np.float32), Spill(self.waiting / "crowds", np.bool_)

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
        self.crowds.add(np.fromiter([thing.iscrowd for thing in part], np.bool_, len(part)))  # None becomes False
        self.has_areas = self.has_areas or not bool(np.isnan(areas).all())

    def numbers(self) -> list[int | str]:
        return sorted(self.names, key=lambda number: (len(str(number)), str(number)))

    def named(self) -> list[tuple[str, str]]:
        return [self.names[number] for number in self.numbers()]

    def write(self, folder: Path, ids: np.ndarray, width: np.ndarray, height: np.ndarray, findings: Findings) -> None:
        """The objects by category, so that a query reads those of its own alone, and the categories by picture."""
        keys, owner, count = self._keys(Places(ids), findings)
        np.save(folder / "thing_starts.npy", ends_of(count))
        pairs = self._by_category(folder, keys.sort(), owner.read, width, height)
        _by_picture(folder, pairs.sort(), max(len(self.names), 1), len(ids))

    def _keys(self, pictures: Places, findings: Findings) -> tuple[Spill, Spill, np.ndarray]:
        """For each object that counts, its category above its own place; each object's picture; how many each category has."""
        keys, owners = Spill(self.waiting / "things", np.int64), Spill(self.waiting / "seen", np.int32)
        kinds, count = self._kinds(), np.zeros(len(self.names), dtype=np.int64)
        lost = {"categories without a name": 0, "pictures that are not listed or have no caption": 0}
        for span in blocks(len(self.owners)):
            kind, owner = kinds.of(self.kinds[span]), pictures.of(self.owners[span])
            for what, missing in zip(lost, (kind < 0, owner < 0), strict=True):
                lost[what] += int(missing.sum())
            at = np.flatnonzero((kind >= 0) & (owner >= 0))
            counted = kind[at]
            count += np.bincount(counted, minlength=len(count))
            keys.add((counted.astype(np.int64) << 32) + (at + span.start))
            owners.add(owner)
        findings.notes += [f"objects of {what} were not counted: {number}" for what, number in lost.items() if number]
        return keys, owners, count

    def _kinds(self) -> Places:
        """Place of each category's number in `numbers`."""
        numbers = Ids(self.waiting, "categories")
        numbers.add(self.numbers())
        return Places(numbers.all())

    def _by_category(self, folder: Path, keys: np.ndarray, owner: np.ndarray, width: np.ndarray, height: np.ndarray) -> Spill:
        """Each object's picture above its category, for those who want the pictures."""
        picture, share, crowd = (
            Column(folder / f"thing_{name}.npy", kind)
            for name, kind in (("picture", np.int32), ("share", np.float64), ("crowd", np.bool_))
        )
        pairs, names = Spill(self.waiting / "pairs", np.int64), max(len(self.names), 1)
        for span in blocks(len(keys)):
            kind, at = keys[span] >> 32, keys[span] & PLACE
            here = owner[at]
            pixels = width[here].astype(np.float32) * height[here]
            picture.add(here)
            share.add(self.areas.read[at] / np.where(pixels > 0, pixels, np.float32(np.nan)))  # of unknown pictures nobody knows
            crowd.add(self.crowds.read[at])
            pairs.add(here.astype(np.int64) * names + kind)
        for column in (picture, share, crowd):
            column.close()
        return pairs


def _by_picture(folder: Path, pairs: np.ndarray, names: int, count: int) -> None:
    """Which categories are in which picture, in the order of their numbers."""
    kinds, found = Column(folder / "kind_order.npy", np.int64), np.zeros(count, dtype=np.int64)
    for span in blocks(len(pairs)):
        before = pairs[span.start - 1] if span.start else -1
        picture, kind = np.divmod(pairs[span][np.diff(pairs[span], prepend=before) > 0], names)
        kinds.add(kind)
        found += np.bincount(picture, minlength=count)
    kinds.close()
    np.save(folder / "kind_starts.npy", ends_of(found))
