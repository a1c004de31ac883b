"""The captions of a file: which are said of which picture, in the order of their numbers."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .annotations import Caption
from .arrow import ends_of
from .base import Findings
from .index_ids import Ids, Places, by_number, repeated
from .index_pictures import Pictures
from .index_spill import PLACE, Column, Spill, TextWriter, blocks, whole_lists

SAID = re.compile("[^\\s\x00-\x1f\x7f-\x9f\ufeff\u200b\u2060]")
"""What makes a caption more than blank: any sign that `captions.tidy` would keep."""


@dataclass
class Spoken:
    """Pictures that have captions, sorted by number, and where each one's begin in `caption_order`."""

    kept: np.ndarray
    """Places in the file."""
    starts: np.ndarray
    """One more at the end."""


class Captions:
    """Texts go into the index as they come; numbers, owners and which are blank wait on disk."""

    def __init__(self, folder: Path, waiting: Path) -> None:
        self.folder, self.waiting = folder, waiting
        self.texts = TextWriter(folder, "captions")
        self.numbers, self.owners = Ids(waiting, "captions"), Ids(waiting, "spoken")
        self.blank = Spill(waiting / "blank", np.bool_)

    def add(self, part: list[Caption]) -> None:
        told = [note.caption or "" for note in part]
        self.blank.add(_blank(told, *self.texts.add(told)))
        self.numbers.add([note.id for note in part])
        self.owners.add([note.image_id for note in part])

    def spoken(self, pictures: Pictures, findings: Findings) -> Spoken:
        """Writes `caption_order`. Raises SourceError where a number stands for two pictures."""
        ids = pictures.ids.all()
        order = np.lexsort(by_number(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
        again = _listed_again(ids, order, pictures)
        rank = np.empty(len(ids), dtype=np.int32)
        rank[order] = np.arange(len(ids))
        keys, count = self._keys(Places(ids), rank, findings)
        twice = repeated(self.numbers)
        if twice and self._are_numbered():
            findings.notes.append(
                f"{pictures.file.name}: {twice} annotation numbers are used more than once; every caption is kept"
            )
        has = count > 0
        silent = order[~has]
        for place in silent[~np.isin(silent, again)]:
            findings.fault("pictures without a caption", pictures.names[int(place)].as_py())
        spoken = Spoken(order[has], ends_of(count[has]))
        self._order(keys.sort(), spoken.starts, bool(twice))
        return spoken

    def _keys(self, places: Places, rank: np.ndarray, findings: Findings) -> tuple[Spill, np.ndarray]:
        """For each caption that is kept, the rank of its picture above its own place; and how many each rank has."""
        keys, count = Spill(self.waiting / "keys", np.int64), np.zeros(len(rank), dtype=np.int64)
        faults: dict[str, list[str]] = {"captions of pictures that are not listed": [], "blank captions": []}
        for span in blocks(len(self.owners)):
            owner = places.of(self.owners[span])  # the first, where a picture is listed twice
            lost, blank = owner < 0, self.blank.read[span]
            for wrong, names in zip((lost, blank & ~lost), faults.values(), strict=True):
                if len(at := np.flatnonzero(wrong)):
                    told = zip(self.numbers[at + span.start], self.owners[at + span.start], strict=True)
                    names += [f"annotation {number} of image {picture}" for number, picture in told]
            at = np.flatnonzero(~(lost | blank))
            ranks = rank[owner[at]]
            count += np.bincount(ranks, minlength=len(rank))
            keys.add((ranks.astype(np.int64) << 32) + (at + span.start))
        findings.faults |= {reason: names for reason, names in faults.items() if names}
        return keys, count

    def _are_numbered(self) -> bool:
        """A file whose numbers are all 0 numbers none."""
        parts = (self.numbers[span] for span in blocks(len(self.numbers)))
        return any(bool((part != ("0" if part.dtype.kind == "U" else 0)).any()) for part in parts)

    def _order(self, keys: np.ndarray, starts: np.ndarray, twice: bool) -> None:
        column = Column(self.folder / "caption_order.npy", np.int32)
        for span in whole_lists(starts):
            at = keys[span] & PLACE
            column.add(at[_by_rank_and_number(keys[span] >> 32, self.numbers[at], twice)].astype(np.int32))
        column.close()


def _by_rank_and_number(ranks: np.ndarray, numbers: np.ndarray, twice: bool) -> np.ndarray:
    """The order; of captions with one number, that of the file."""
    if numbers.dtype.kind != "U" and len(numbers) and numbers.min() >= 0 and numbers.max() < 1 << 32:
        keys = (ranks << 32) | numbers
        return np.argsort(keys, kind="stable" if twice else None)  # a third of lexsort's time
    return np.lexsort([*by_number(numbers), ranks]) if len(numbers) else np.zeros(0, dtype=np.int64)


def _listed_again(ids: np.ndarray, order: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Places of pictures that are listed before, too. Raises SourceError where a number stands for two files."""
    ordered = ids[order]
    same = np.concatenate([[False], ordered[1:] == ordered[:-1]])[: len(ids)]
    begins, again = np.flatnonzero(~same), np.flatnonzero(same)
    first = order[begins[np.searchsorted(begins, again, side="right") - 1]]
    for place, before in sorted(zip(order[again].tolist(), first.tolist(), strict=True)):
        one, other = pictures.names[before].as_py(), pictures.names[place].as_py()
        if one != other:
            fix = "give each picture a number of its own"
            raise SourceError(f"image id {ids[place]} is {one!r} and {other!r}", where=pictures.file, fix=fix, case=7)
    return order[again]


def _blank(texts: list[str], content: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which say nothing: looked at one by one only where the first byte is no ordinary sign."""
    blank = lengths == 0
    told = np.flatnonzero(~blank)
    first = content[(np.cumsum(lengths) - lengths)[told]]
    for place in told[(first <= 32) | (first >= 127)]:
        blank[place] = SAID.search(texts[place]) is None
    return blank
