"""A `Subset` asked of an index: all pictures at once. Answers what `wanted.py` answers row by row, in the same words."""

import re
from collections.abc import Callable, Iterable

import numpy as np

from ..errors import ConfigError, SourceError, nearest
from .base import Findings
from .captions import pick_key, tidy
from .index_columns import Index
from .licenses import WORDS, is_wanted
from .subset import Subset
from .wanted import Reasons, is_long_enough

Keep = Callable[[np.ndarray, str], None]
PART = 4096
"""Pictures whose captions are read together."""


def query(index: Index, subset: Subset, findings: Findings) -> np.ndarray:
    """int64 places of the pictures that meet every condition but `count`, in the order of their numbers; the others are counted in
    `findings` under the first reason that holds. Raises ConfigError for names that the file does not have, SourceError for what it
    does not say."""
    left = np.ones(len(index), dtype=bool)
    reasons = Reasons(subset)

    def keep(good: np.ndarray, reason: str) -> None:
        nonlocal left
        if lost := int((left & ~good).sum()):
            findings.left_out[reason] += lost
        left = left & good

    if subset.min_words is not None or subset.max_words is not None:
        keep(_long_enough(index, subset, findings), reasons.length)
    if subset.of_objects:
        _objects(index, subset, keep, reasons, findings)
    _sizes(index, subset, keep, reasons)
    if subset.license:
        licenses = index.licenses
        _known_licenses(subset.license, licenses, index)
        good = [is_wanted(name, url, number, subset.license) for number, name, url in licenses]
        good.append(is_wanted("", "", "", subset.license))  # -1, not stated
        keep(np.array(good)[index.arrays["license"]], reasons.license)
    if subset.match:
        keep(_matching(index, subset, left), reasons.match)
    return np.flatnonzero(left)


def draw(index: Index, places: np.ndarray, subset: Subset) -> np.ndarray:
    """`count` of the places in an order that depends on the seed and the pictures' ids alone; all, as they are, without a count.
    Raises SourceError when there are fewer."""
    if subset.count is None:
        return places
    if subset.count > len(places):
        what = f"{subset.count} pictures are asked for and {len(places)} are there"
        raise SourceError(what, where=index.split, fix=f"ask for at most {len(places)}", case=10)
    keys = [pick_key(subset.seed, image_id) for image_id in index.column("image_id", places)]
    return places[sorted(range(len(places)), key=keys.__getitem__)[: subset.count]]


def kinds_of(name: str, known: list[str], kind: str, index: Index) -> list[int]:
    """Places of the categories of this name, whatever the case; merged files may have several. Raises ConfigError with the nearest,
    for the COCO API takes every picture then."""
    folded = [entry.casefold() for entry in known]
    if name in folded and name:
        return [place for place, entry in enumerate(folded) if entry == name]
    above = {entry.casefold() for _, entry in index.facts["categories"]}
    hint = f"it is a supercategory: supercategory={name!r}" if kind == "category" and name in above else None
    where = f"the annotations of {index.split}"
    raise ConfigError(f"unknown {kind} {name!r}; {hint or nearest(name, {*folded} - {''})}", where=where, case=1)


def _objects(index: Index, subset: Subset, keep: Keep, reasons: Reasons, findings: Findings) -> None:
    arrays, names = index.arrays, index.names
    above = [entry for _, entry in index.facts["categories"]]
    if not names:
        fix = f"put instances_{index.split}.json beside the captions, or leave it out"
        what = f"{subset.of_objects[0]} is asked for and no category of objects is known"
        raise SourceError(what, where=f"the annotations of {index.split}", fix=fix, case=7)
    if subset.min_area and not index.facts["areas"]:
        fix = "leave min_area out, or take the official instances_*.json"
        raise SourceError("no object states its area", where=f"the annotations of {index.split}", fix=fix, case=7)

    unknown: dict[int, int] = {}

    def having(kinds: Iterable[int], *, area: bool = True, crowd: bool = True) -> np.ndarray:
        """Pictures with an object of these categories that counts: large enough, and a crowd only where crowds count."""
        good = np.zeros(len(index), dtype=bool)
        for kind in kinds:
            span = slice(*arrays["thing_starts"][kind : kind + 2])
            counted = np.ones(span.stop - span.start, dtype=bool)
            if not subset.crowd and crowd:
                counted &= ~arrays["thing_crowd"][span]
            if subset.min_area and area:
                share = arrays["thing_share"][span]
                unknown[kind] = int(np.isnan(share[counted]).sum())
                with np.errstate(invalid="ignore"):
                    counted &= share >= subset.min_area
            good[arrays["thing_picture"][span][counted]] = True
        return good

    def want(kinds: list[int], missing: str, name: str) -> None:
        """Two conditions, so that each is counted as what it is: that it is there, and that it counts."""
        keep(having(kinds, area=False, crowd=False), missing)
        if subset.min_area or not subset.crowd:
            keep(having(kinds), reasons.lesser(name))

    for name in subset.category:
        want(kinds_of(name, names, "category", index), reasons.without(name), name)
    if subset.any_category:
        found = [kind for name in subset.any_category for kind in kinds_of(name, names, "category", index)]
        want(found, reasons.without_any, " or ".join(subset.any_category))
    for name in subset.not_category:
        keep(~having(kinds_of(name, names, "category", index), area=False), reasons.having(name))
    for name in subset.supercategory:
        want(kinds_of(name, above, "supercategory", index), reasons.without(name), name)
    if not (subset.category or subset.any_category or subset.supercategory):
        if not subset.min_area and not subset.crowd and not subset.not_category:
            what = "says which objects count, and no category is asked for"
            raise ConfigError(what, where="subset: crowd", fix="name a category, or leave it out", case=1)
        if subset.min_area:
            keep(having(range(len(names))), reasons.large)
    if number := sum(unknown.values()):
        findings.notes.append(f"objects that state no area, or of pictures that state no size, were not counted: {number}")


def _sizes(index: Index, subset: Subset, keep: Keep, reasons: Reasons) -> None:
    if not (subset.min_side or subset.min_aspect or subset.max_aspect):
        return
    width, height = index.arrays["width"], index.arrays["height"]
    unknown = (width == 0) | (height == 0)  # the picture itself will tell
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = width / height
    if subset.min_side:
        keep(unknown | (np.minimum(width, height) >= subset.min_side), reasons.small)
    if subset.min_aspect:
        keep(unknown | (aspect >= subset.min_aspect), reasons.narrow)
    if subset.max_aspect:
        keep(unknown | (aspect <= subset.max_aspect), reasons.wide)


def _known_licenses(told: Iterable[str], licenses: list[tuple[str, str, str]], index: Index) -> None:
    known = {text.casefold() for number, name, _ in licenses for text in (number, name)} | set(WORDS)
    for name in told:
        if name.casefold() not in known and name not in map(str, range(1, 9)):
            where = f"the annotations of {index.split}"
            raise ConfigError(f"unknown licence {name!r}; {nearest(name.casefold(), known)}", where=where, case=1)


def _long_enough(index: Index, subset: Subset, findings: Findings) -> np.ndarray:
    """Pictures with a caption of the wanted length; the captions of another are counted."""
    good = np.zeros(len(index), dtype=bool)
    for start, texts in _captions(index, np.arange(len(index))):
        for place, captions in enumerate(texts, start):
            fit = sum(is_long_enough(text, subset) for text in captions)
            good[place] = fit > 0
            if fit < len(captions):
                findings.left_out[Reasons.captions] += len(captions) - fit
    return good


def _matching(index: Index, subset: Subset, left: np.ndarray) -> np.ndarray:
    pattern = re.compile(str(subset.match), re.IGNORECASE)
    good = np.zeros(len(index), dtype=bool)
    places = np.flatnonzero(left)
    limited = subset.min_words is not None or subset.max_words is not None
    for start, texts in _captions(index, places):
        for offset, captions in enumerate(texts):
            kept = [text for text in captions if not limited or is_long_enough(text, subset)]
            good[places[start + offset]] = any(pattern.search(tidy(text)) for text in kept)
    return good


def _captions(index: Index, places: np.ndarray) -> Iterable[tuple[int, list[list[str]]]]:
    for start in range(0, len(places), PART):
        yield start, index.column("captions", places[start : start + PART])
