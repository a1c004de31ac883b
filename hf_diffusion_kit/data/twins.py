"""Near-duplicates: pictures that differ in size, compression, brightness or a small mark alone.

Each picture becomes 256 bits, the difference hash of ImageHash (is a point brighter than its right neighbour, on 17 x 16 points);
two pictures are near when at most NEAR bits differ. Of 159 pictures of COCO, 155 or more are found again as a JPEG of quality 30, at
half, a quarter or twice the size, stretched to a square, grey, with a white box in a corner or a fifth brighter, and no two different
ones are nearer than 68 bits. What is cropped by 2 % on each side lies at 28 to 47 and is found with `near` 48 alone, a mirrored
picture lies anywhere and is not found.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image, ImageOps

from .pictures import BROKEN, FORMATS, open_rgb

SIDE = 16
NEAR = 24
"""Bits of 256."""
FARTHEST = 64
"""Of `near`: farther apart lie pictures that have nothing to do with each other."""
PLAIN = 4
"""Of pictures that are nearly all one colour few bits are set; no more than one in so many of those may differ (more in proportion
where more than NEAR may)."""
BRIGHTNESS = 64
"""Greatest difference of mean brightness (0 to 255): blank pages, black and white, have the same bits."""
ROWS, COLUMNS = 64, 4096
"""Pictures compared at a time: the block of distances stays in the processor's cache."""


class Mark(NamedTuple):
    """A picture in 33 bytes."""

    bits: bytes
    """32 bytes, the difference hash."""
    brightness: int
    """Mean, 0 to 255."""


@dataclass(frozen=True)
class Pair:
    first: int
    """Places in the lists that were compared."""
    second: int
    distance: int
    """Bits of 256 that differ."""


def mark_of(content: bytes) -> Mark:
    """The mark of a picture that can be decoded, 1 ms. Of a JPEG a quarter or an eighth of the size is decoded."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        image.draft("L", (4 * SIDE, 4 * SIDE))
        small = ImageOps.exif_transpose(image).convert("L")
    except BROKEN:
        small = open_rgb(content).convert("L")
    bits = imagehash.dhash(small, SIDE).hash
    return Mark(np.packbits(bits).tobytes(), round(float(np.asarray(small.resize((SIDE, SIDE))).mean())))


def pairs(marks: Sequence[Mark], others: Sequence[Mark] | None = None, *, near: int = NEAR) -> list[Pair]:
    """All pairs that are near, within one list or between two; of pictures with one and the same mark each with the first alone.

    Exact, and quadratic in numpy's inner loops: 7 s for 82,783 pictures, where decoding them takes 300 s.
    """
    first, second = _Marks.of(marks), _Marks.of(others) if others is not None else None
    found = [*_same(first)] if second is None else []
    found += _near(first, second or first, near, within=second is None)
    return sorted(found, key=lambda pair: (pair.first, pair.second))


class _Marks(NamedTuple):
    """One list without repetitions."""

    words_4N: np.ndarray
    """uint64."""
    brightness_N: np.ndarray
    places: list[list[int]]
    """Of each mark: where in the list it stands."""

    @classmethod
    def of(cls, marks: Sequence[Mark]) -> "_Marks":
        places: dict[Mark, list[int]] = {}
        for place, mark in enumerate(marks):
            places.setdefault(mark, []).append(place)
        words_N4 = np.frombuffer(b"".join(mark.bits for mark in places), np.uint64).reshape(-1, 4)
        brightness_N = np.array([mark.brightness for mark in places], np.int16)
        return cls(np.ascontiguousarray(words_N4.T), brightness_N, list(places.values()))


def _same(marks: _Marks) -> Iterator[Pair]:
    for places in marks.places:
        yield from (Pair(places[0], place, 0) for place in places[1:])


def _near(marks: _Marks, others: _Marks, near: int, *, within: bool) -> Iterator[Pair]:
    a_4N, b_4M = marks.words_4N, others.words_4N
    for top in range(0, a_4N.shape[1], ROWS):
        for left in range(top if within else 0, b_4M.shape[1], COLUMNS):
            a_4R1, b_41C = a_4N[:, top : top + ROWS, None], b_4M[:, None, left : left + COLUMNS]
            half_RC = np.bitwise_count(a_4R1[0] ^ b_41C[0]) + np.bitwise_count(a_4R1[1] ^ b_41C[1])
            for flat in np.flatnonzero(half_RC <= near):  # few are left after half of the bits
                row, column = top + int(flat) // half_RC.shape[1], left + int(flat) % half_RC.shape[1]
                if within and column <= row:
                    continue
                a_4, b_4 = a_4N[:, row], b_4M[:, column]
                distance = int(np.bitwise_count(a_4 ^ b_4).sum())
                most = min(near, max(near, NEAR) * int(np.bitwise_count(a_4 | b_4).sum()) // (PLAIN * NEAR))
                dark, bright = int(marks.brightness_N[row]), int(others.brightness_N[column])
                if distance <= most and abs(dark - bright) <= BRIGHTNESS:
                    yield from _told(marks.places[row], others.places[column], distance, within)


def _told(first: list[int], second: list[int], distance: int, within: bool) -> Iterator[Pair]:
    if within:
        low, high = sorted((first[0], second[0]))
        yield Pair(low, high, distance)
    else:
        yield from (Pair(place, other, distance) for other in second for place in first[:1])
