"""Captions out of file names, as fast-DreamBooth makes them (`sks dog (3).jpg` is "sks dog"): only where a prompt asks for it.

A trainer that reads file names by itself has trained ten pictures on "COCO val" without a word; here the words are shown.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

FIELD = "{file_name}"
SHOWN = 5
COUNTER = re.compile(r"[\s_-]*(\(\d+\)|[\s_-]\d+|^\d+)$")
"""What numbers the pictures of one subject: `dog (3)`, `dog_003`, `dog-3`; and a name that is nothing but a number."""


def words_of(name: str) -> str:
    """The words in a picture's name, its folder, ending and counter left out; blank when there are none."""
    stem = PurePosixPath(name).name.removesuffix(PurePosixPath(name).suffix)
    while (shorter := COUNTER.sub("", stem)) != stem:
        stem = shorter
    return " ".join(re.sub(r"[_\-]+", " ", stem).split())


def captions_from_names(prompt: str, names: Iterable[str]) -> dict[str, list[str]]:
    """Picture -> the prompt with its words in it; no caption where its name has none."""
    told = {name: words_of(name) for name in names}
    return {name: [prompt.replace(FIELD, words)] if words else [] for name, words in told.items()}


def shown(captions: dict[str, list[str]]) -> str:
    """Which texts that gives, and how often."""
    counts = Counter(text for texts in captions.values() for text in texts)
    most = ", ".join(f"{text!r} ({count})" for text, count in counts.most_common(SHOWN))
    rest = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return f"captions are made of file names, as asked: {most}{rest}"
