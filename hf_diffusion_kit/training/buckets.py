"""Aspect-ratio buckets: the sizes there are, which picture is trained at which, and what that costs it. Pure functions of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, log

from ..data.pixels import Crop
from ..errors import ConfigError, positive
from .plan import Plan

Shape = tuple[int, int]
"""Height and width in pixels."""
SEEN = 0.005
"""A smaller share of a picture is no crop that anybody would call one."""


def sizes(
    resolution: int | Sequence[int], step: int = 64, min_side: int | None = None, max_side: int | None = None
) -> list[Shape]:
    """All (height, width) that pictures are trained at, by kohya's rule (`enable_bucket`): with each side from the shortest to the
    longest in steps goes the longest other side at which the area is still at most that of the resolution; both ways round, and the
    largest square. Every side is a multiple of `step`; None is half the resolution's side, and twice it.

    Raises ConfigError when there is none.
    """
    positive("training", bucket_step=step)
    sides = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[-1])
    area = sides[0] * sides[1]
    shortest = -(-(min_side or isqrt(area) // 2) // step) * step
    longest = (max_side or 2 * isqrt(area)) // step * step
    square = isqrt(area) // step * step
    found = {(square, square)} if shortest <= square <= longest else set()
    for side in range(max(step, shortest), longest + 1, step):
        other = min(longest, area // side // step * step)
        if other >= shortest and other:
            found |= {(side, other), (other, side)}
    if not found:
        what = f"no size of {sides[0]}x{sides[1]} pixels has sides from {shortest} to {longest} that are multiples of {step}"
        fix = "make bucket_step or bucket_min_side smaller, or resolution larger"
        raise ConfigError(what, where="training: bucket_step", fix=fix, case=1)
    return sorted(found)


@dataclass(frozen=True)
class Buckets:
    shapes: tuple[Shape, ...]
    """Of each picture, as it is."""
    size_of: tuple[Shape, ...]
    """Of each picture, in training."""

    @cached_property
    def members(self) -> dict[Shape, tuple[int, ...]]:
        """Size -> its pictures; sizes without any are not there."""
        found: dict[Shape, list[int]] = {}
        for index, size in enumerate(self.size_of):
            found.setdefault(size, []).append(index)
        return {size: tuple(found[size]) for size in sorted(found)}

    def plan(self, group_size: int, seed: int, name: str) -> Plan:
        return Plan(tuple(self.members.values()), group_size, seed, name)

    def report(self) -> list[dict[str, int | float]]:
        """A row a bucket, as plain data: height, width, pictures, cut_mean and cut_most (shares of a picture's area), enlarged (pictures)."""
        rows: list[dict[str, int | float]] = []
        for size, members in self.members.items():
            crops = [Crop(self.shapes[index], size) for index in members]
            cut = [crop.cut for crop in crops]
            row: dict[str, int | float] = {"height": size[0], "width": size[1], "pictures": len(members)}
            row |= {"cut_mean": round(sum(cut) / len(cut), 4), "cut_most": round(max(cut), 4)}
            rows.append(row | {"enlarged": sum(crop.scale > 1 for crop in crops)})
        return rows

    def lines(self) -> list[str]:
        """The same as a table to read."""
        head = f"{'bucket':>11}  {'pictures':>8}  {'cut away':>8}  {'at most':>7}  {'enlarged':>8}"
        return [head] + [
            f"{row['height']:>5}x{row['width']:<5}  {row['pictures']:>8}  {row['cut_mean']:>8.1%}  {row['cut_most']:>7.1%}  {row['enlarged']:>8}"
            for row in self.report()
        ]

    def notes(self, role: str, group_size: int = 1) -> list[str]:
        """What training at these sizes cuts away, enlarges or repeats, a sentence each."""
        crops = [Crop(shape, size) for shape, size in zip(self.shapes, self.size_of, strict=True)]
        cropped, enlarged = [c.cut for c in crops if c.cut > SEEN], [c.scale for c in crops if c.scale > 1]
        (height, width), several = self.size_of[0], len(self.members) > 1
        size = f"the nearest of {len(self.members)} buckets" if several else f"{height}x{width}"
        notes = []
        if cropped:
            share = f"{sum(cropped) / len(cropped):.0%} of their area on average, {max(cropped):.0%} at most"
            notes.append(f"{len(cropped)} of {len(crops)} {role} pictures were cropped to {size}: {share}")
        if enlarged:
            what = "their bucket" if several else size
            most = f"up to {max(enlarged):.1f} times"
            notes.append(f"{len(enlarged)} of {len(crops)} {role} pictures are smaller than {what} and were enlarged, {most}")
        if several and (small := [members for members in self.members.values() if len(members) < group_size]):
            what = f"{len(small)} of {len(self.members)} buckets hold fewer {role} pictures than the {group_size} shown at once"
            notes.append(f"{what}: theirs come more than once in a batch, as often as all others in the run")
        return notes


def assign(shapes: Sequence[Shape], sizes: Sequence[Shape], upscale: bool = True, *, step: int = 64) -> Buckets:
    """Each picture to the size of the nearest aspect ratio: the one at which the least of it is cut away.

    Without `upscale` a picture that is smaller than that gets the largest size that it fills instead, sides multiples of `step`, in the
    area and the longest side of `sizes`; only one with a side below `step` is enlarged even so.
    """
    known: dict[Shape, Shape] = {}
    for shape in shapes:
        if shape not in known:
            near = min(sizes, key=lambda size: (round(_unlike(shape, size), 9), -size[0] * size[1], size))
            fills = shape[0] >= near[0] and shape[1] >= near[1]
            known[shape] = near if upscale or fills else _filled(shape, sizes, step)
    return Buckets(tuple(shapes), tuple(known[shape] for shape in shapes))


def _unlike(shape: Shape, size: Shape) -> float:
    """How far two aspect ratios lie apart: 0 for the same; exp(-it) is the share of the picture that is kept."""
    return abs(log(shape[0] * size[1] / (shape[1] * size[0])))


def _filled(shape: Shape, sizes: Sequence[Shape], step: int) -> Shape:
    area, longest = max(height * width for height, width in sizes), max(max(size) for size in sizes)
    grown = max(1.0, step / min(shape))
    height, width = int(shape[0] * grown + 1e-6), int(shape[1] * grown + 1e-6)
    found = []
    for across in range(step, max(step, min(width, longest)) + 1, step):
        down = min(height, longest, area // across) // step * step
        if down:
            found.append((down, across))
    return max(found, key=lambda size: (size[0] * size[1], -_unlike(shape, size), size), default=min(sizes))
