"""The licences of a subset's pictures as its card tells them: what each allows and wants, and what the Hub is told of all of them."""

import re
from collections.abc import Mapping

from ..cards.dataset_card import License
from ..hub.rules import LICENSES
from .licenses import allows, kind

WANTS = {"by": "name the author", "sa": "share alike"}
"""Part of a Creative Commons licence -> what it wants in return."""
KNOWN = frozenset({"by", "nc", "nd", "sa", "zero", "mark", "free"})
"""Parts that are understood; a licence with any other is one of which nothing is known."""


def license_of(name: str, url: str, number: int) -> License:
    """`number`: pictures under it. A licence may be called by its name, its address or its id on the Hub."""
    parts = (kind(name, url or _address(name)) or "").split("-")
    if not set(parts) <= KNOWN:
        return License(name, url, number, None, None)
    may = {word: allows(word, name, url or _address(name)) for word in ("commercial", "modifiable")}
    asks = ", ".join(WANTS[part] for part in parts if part in WANTS)
    return License(name, url, number, may["commercial"], may["modifiable"], asks)


def licenses_of(counts: Mapping[tuple[str, str], int], stated: str | None = None) -> tuple[License, ...]:
    """(name, address) -> pictures, as licences, the most frequent first. `stated`: a licence id of the Hub, for pictures that name
    none of their own."""
    total: dict[tuple[str, str], int] = {}
    for (name, url), number in counts.items():
        told = (name, url) if name or url or not stated else (stated, _address(stated))
        total[told] = total.get(told, 0) + number
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return tuple(license_of(name or url, url, number) for (name, url), number in ranked)


def hub_id(licenses: tuple[License, ...]) -> str:
    """What stands as `license` at the top of a card: an id when all pictures are under one that the Hub knows."""
    if all(not entry.name for entry in licenses):
        return "unknown"
    ids = {_id(entry.name, entry.url) for entry in licenses}
    return ids.pop() if len(ids) == 1 else "other"


def _id(name: str, url: str) -> str:
    mark = re.search(r"creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/zero)/(\d\.\d)(?:/|$)", url)
    told = (f"cc-{mark[1]}-{mark[2]}" if mark[1] else f"cc0-{mark[2]}") if mark else name.casefold()
    return told if told in LICENSES else "other"


def _address(name: str) -> str:
    """Where the text of a Creative Commons licence stands that is called by its id on the Hub; empty for others."""
    told = name.casefold()
    if told == "cc0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    mark = re.fullmatch(r"cc-(by(?:-nc)?(?:-nd|-sa)?)-(\d\.\d)", told)
    return f"https://creativecommons.org/licenses/{mark[1]}/{mark[2]}/" if mark else ""
