"""Pictures that two sets share: what is trained on must not be what is tested with."""

from dataclasses import dataclass

from .looks import Looks, numbers
from .twins import NEAR, pairs


@dataclass(frozen=True)
class Leak:
    """One picture in two sets."""

    first: str
    second: str
    how: str
    """`same bytes`, `COCO 391895`, or `near-duplicate, 5 of 256 bits differ`."""
    places: tuple[int, int] = (0, 0)
    """Where it stands in the two sets."""


def leaks(first: Looks, second: Looks, *, near: int = NEAR) -> tuple[list[Leak], list[str]]:
    """The shared pictures, each under the surest sign; and those of one COCO number that are not one picture."""
    found: dict[tuple[int, int], str] = {}
    places = {sha256: place for place, sha256 in reversed(list(enumerate(first.sha256)))}
    for other, sha256 in enumerate(second.sha256):
        if sha256 in places:
            found[places[sha256], other] = "same bytes"
    alike = {(pair.first, pair.second): pair.distance for pair in pairs(first.marks, second.marks, near=near)}
    mine, others = numbers(first.names), numbers(second.names)
    unlike = []
    for number in sorted(mine.keys() & others.keys()):
        pair = mine[number], others[number]
        # The lists name only the first of several copies, so the two are compared themselves.
        if first.sha256[pair[0]] == second.sha256[pair[1]]:
            continue
        if pair in alike or pairs([first.marks[pair[0]]], [second.marks[pair[1]]], near=near):
            found[pair] = f"COCO {number}"
        else:
            unlike.append(f"{first.names[pair[0]]} and {second.names[pair[1]]}")
    seen = {other for _, other in found}
    for (place, other), distance in alike.items():
        if other not in seen:
            found.setdefault((place, other), f"near-duplicate, {distance} of 256 bits differ")
    told = [Leak(first.names[a], second.names[b], how, (a, b)) for (a, b), how in sorted(found.items())]
    return told, unlike
