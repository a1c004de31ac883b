"""A `Subset` applied row by row. The index of COCO answers the same for all rows at once (query.py); a test compares the two."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import ConfigError
from .base import Findings, Row
from .captions import tidy
from .licenses import is_wanted
from .subset import Subset


def wanted(rows: Iterable[Row], subset: Subset, findings: Findings) -> Iterator[Row]:
    """The rows that meet the choice, `count` apart; the others are counted in `findings` under the first reason that holds."""
    if told := [name for name in ("supercategory", "min_area", "crowd") if name in subset.of_objects]:
        raise ConfigError("is known of COCO's annotations only", where=f"subset: {told[0]}", fix="leave it out", case=1)
    for row in rows:
        kept = captions_left(row, subset, findings)
        reason = unwanted(kept, subset) if kept.captions else "pictures without a caption of the wanted length"
        if reason is None:
            yield kept
        else:
            findings.left_out[reason] += 1


def unwanted(row: Row, subset: Subset) -> str | None:
    """Why a row is not taken, or None."""
    here = {name.casefold() for name in row.categories}
    for name in subset.category:
        if name.casefold() not in here:
            return f"pictures without {name}"
    if subset.any_category and not here & {name.casefold() for name in subset.any_category}:
        return f"pictures without any of {', '.join(subset.any_category)}"
    for name in subset.not_category:
        if name.casefold() in here:
            return f"pictures with {name}"
    if row.width and row.height and (reason := of_size(row.width, row.height, subset)):
        return reason
    if subset.license and not is_wanted(row.license, row.license_url, "", subset.license):
        return f"pictures under another licence than {', '.join(subset.license)}"
    if subset.match and not any(re.search(subset.match, tidy(text), re.IGNORECASE) for text in row.captions):
        return f"pictures whose captions do not match {subset.match!r}"
    return None


def of_size(width: int, height: int, subset: Subset) -> str | None:
    if subset.min_side and min(width, height) < subset.min_side:
        return f"pictures with a side under {subset.min_side} pixels"
    if subset.min_aspect and width / height < subset.min_aspect:
        return f"pictures narrower than {subset.min_aspect:g} (width / height)"
    if subset.max_aspect and width / height > subset.max_aspect:
        return f"pictures wider than {subset.max_aspect:g} (width / height)"
    return None


def captions_left(row: Row, subset: Subset, findings: Findings) -> Row:
    """The row with the captions of the wanted length alone."""
    if subset.min_words is None and subset.max_words is None:
        return row
    least, most = subset.min_words or 0, subset.max_words or float("inf")
    captions = tuple(text for text in row.captions if least <= len(text.split()) <= most)
    if lost := len(row.captions) - len(captions):
        findings.left_out["captions of another length"] += lost
    return replace(row, captions=captions)
