"""What COCO's licences allow, and which pictures a choice of licences means. A guide for choosing, not legal advice.

Numbers 1 to 8 are those of every COCO file (Lin et al. 2014); the Creative Commons ones are version 2.0.
"""

from collections.abc import Iterable

COCO = {
    "1": ("Attribution-NonCommercial-ShareAlike License", "http://creativecommons.org/licenses/by-nc-sa/2.0/"),
    "2": ("Attribution-NonCommercial License", "http://creativecommons.org/licenses/by-nc/2.0/"),
    "3": ("Attribution-NonCommercial-NoDerivs License", "http://creativecommons.org/licenses/by-nc-nd/2.0/"),
    "4": ("Attribution License", "http://creativecommons.org/licenses/by/2.0/"),
    "5": ("Attribution-ShareAlike License", "http://creativecommons.org/licenses/by-sa/2.0/"),
    "6": ("Attribution-NoDerivs License", "http://creativecommons.org/licenses/by-nd/2.0/"),
    "7": ("No known copyright restrictions", "http://flickr.com/commons/usage/"),
    "8": ("United States Government Work", "http://www.usa.gov/copyright.shtml"),
}
"""Number -> name and address."""
WORDS = ("commercial", "modifiable", "redistributable")


def kind(name: str, url: str) -> str | None:
    """`by-nc-sa`, `by`, `free`, `zero` ...; None when nothing is known of it."""
    address = url.casefold()
    for mark in ("creativecommons.org/licenses/", "creativecommons.org/publicdomain/"):
        if mark in address:
            return address.split(mark)[1].split("/")[0]
    known = {told.casefold(): where for told, where in COCO.values()}
    where = known.get(name.casefold(), "" if url else None)
    if where and "creativecommons" in where:
        return kind("", where)
    free = ("flickr.com/commons", "usa.gov", "no known copyright", "government work")
    return "free" if any(mark in f"{address} {name.casefold()}" for mark in free) else None


def allows(word: str, name: str, url: str) -> bool:
    """Whether pictures under a licence may be used commercially, be modified, or be passed on at all. Unknown ones may not."""
    told = kind(name, url)
    if told is None:
        return False
    parts = told.split("-")
    return {"commercial": "nc" not in parts, "modifiable": "nd" not in parts, "redistributable": True}[word]


def is_wanted(name: str, url: str, number: str, license: Iterable[str]) -> bool:
    """`license`: words, which must all hold, and names or numbers, of which one must."""
    told = [entry.casefold() for entry in license]
    named = [entry for entry in told if entry not in WORDS]
    words = [entry for entry in told if entry in WORDS]
    one = not named or name.casefold() in named or (number != "" and number in named)
    return one and all(allows(word, name, url) for word in words)
