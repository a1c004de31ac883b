"""A `Subset` applied row by row. The index of COCO answers the same for all rows at once (query.py); a test compares the two."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..errors import ConfigError, nearest
from .base import Findings, Row
from .captions import tidy
from .licenses import WORDS, is_wanted
from .subset import Subset


@dataclass(frozen=True)
class Reasons:
    """Why pictures or captions are left out, in the words that the user reads."""

    subset: Subset
    captions = "captions of another length"
    length = "pictures without a caption of the wanted length"

    @staticmethod
    def without(name: str) -> str:
        return f"pictures without {name}"

    @staticmethod
    def having(name: str) -> str:
        return f"pictures with {name}"

    @property
    def without_any(self) -> str:
        return f"pictures without any of {', '.join(self.subset.any_category)}"

    def lesser(self, name: str) -> str:
        least = f"under {self.subset.min_area:g} of the picture" if self.subset.min_area else ""
        return f"pictures whose {name} is {' or '.join(filter(None, (least, '' if self.subset.crowd else 'only a crowd')))}"

    @property
    def large(self) -> str:
        return f"pictures without an object of {self.subset.min_area:g} of the picture"

    @property
    def small(self) -> str:
        return f"pictures with a side under {self.subset.min_side} pixels"

    @property
    def narrow(self) -> str:
        return f"pictures narrower than {self.subset.min_aspect:g} (width / height)"

    @property
    def wide(self) -> str:
        return f"pictures wider than {self.subset.max_aspect:g} (width / height)"

    @property
    def license(self) -> str:
        return f"pictures under another licence than {', '.join(self.subset.license)}"

    @property
    def match(self) -> str:
        return f"pictures whose captions do not match {self.subset.match!r}"


def wanted(rows: Iterable[Row], subset: Subset, findings: Findings) -> Iterator[Row]:
    """The rows that meet the choice, `count` apart; the others are counted in `findings` under the first reason that holds."""
    if told := [name for name in ("supercategory", "min_area", "crowd") if name in subset.of_objects]:
        raise ConfigError("is known of COCO's annotations only", where=f"subset: {told[0]}", fix="leave it out", case=1)
    seen: set[str] = set()
    for row in rows:
        seen.update(name.casefold() for name in (*row.categories, row.license))
        kept = captions_left(row, subset, findings)
        reason = unwanted(kept, subset) if kept.captions else Reasons.length
        if reason is None:
            yield kept
        else:
            findings.left_out[reason] += 1
    _known(subset, seen - {""})


def _known(subset: Subset, seen: set[str]) -> None:
    """Raises ConfigError for a name that no row has: it is misspelt, or the rows say nothing of such things."""
    for field, kind in (
        ("category", "category"),
        ("any_category", "category"),
        ("not_category", "category"),
        ("license", "licence"),
    ):
        for name in getattr(subset, field):
            if name not in seen and not (field == "license" and name in WORDS):
                hint = nearest(name, seen) if seen else "the rows state none"
                raise ConfigError(f"no row has the {kind} {name!r}; {hint}", where=f"subset: {field}", case=1)


def unwanted(row: Row, subset: Subset) -> str | None:
    """Why a row is not taken, or None."""
    reasons = Reasons(subset)
    here = {name.casefold() for name in row.categories}
    for name in subset.category:
        if name not in here:
            return reasons.without(name)
    if subset.any_category and not here & set(subset.any_category):
        return reasons.without_any
    for name in subset.not_category:
        if name in here:
            return reasons.having(name)
    if row.width and row.height and (reason := of_size(row.width, row.height, subset)):
        return reason
    if subset.license and not is_wanted(row.license, row.license_url, "", subset.license):
        return reasons.license
    if subset.match and not any(re.search(subset.match, tidy(text), re.IGNORECASE) for text in row.captions):
        return reasons.match
    return None


def of_size(width: int, height: int, subset: Subset) -> str | None:
    reasons = Reasons(subset)
    if subset.min_side and min(width, height) < subset.min_side:
        return reasons.small
    if subset.min_aspect and width / height < subset.min_aspect:
        return reasons.narrow
    if subset.max_aspect and width / height > subset.max_aspect:
        return reasons.wide
    return None


def is_long_enough(text: str, subset: Subset) -> bool:
    return (subset.min_words or 0) <= len(tidy(text).split()) <= (subset.max_words or float("inf"))


def captions_left(row: Row, subset: Subset, findings: Findings) -> Row:
    """The row with the captions of the wanted length alone; the others are counted."""
    kept = trimmed(row, subset)
    if lost := len(row.captions) - len(kept.captions):
        findings.left_out[Reasons.captions] += lost
    return kept


def trimmed(row: Row, subset: Subset) -> Row:
    if subset.min_words is None and subset.max_words is None:
        return row
    return replace(row, captions=tuple(text for text in row.captions if is_long_enough(text, subset)))
