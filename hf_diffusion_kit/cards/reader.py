"""The stock calls that opened a written format, as a record tells them, as lines of Python: plain calls only, whatever the record holds."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..records import Verified
from .markdown import literal

OPENED = re.compile(r"\w*\.from_pretrained\((?:BASE|FOLDER)\)")
"""How every reader begins; the calls after it put something onto the pipeline."""
LONGEST = 110
"""Characters of a line; a longer call has an argument a line."""


def loading(verified: Sequence[Verified], folder: str) -> list[str] | None:
    """The calls after the first, of one format after the other, with `folder` for FOLDER. None when one is not understood."""
    lines = []
    for told in verified:
        first, *calls = told.reader.split(" + ")
        if not OPENED.fullmatch(first):
            return None
        for text in calls:
            try:
                lines.append(line(f"pipe{text}" if text.startswith(".") else text, folder))
            except (SyntaxError, ValueError):
                return None
    return lines if verified else None


def line(text: str, folder: str) -> str:
    """Raises ValueError, or SyntaxError, for anything but a call of something that `pipe` or peft has, with plain arguments."""
    tree = ast.parse(text, mode="eval").body
    if not isinstance(tree, ast.Call):
        raise ValueError(f"is no call: {text}")
    named = attribute(tree.func, ("pipe", "PeftModel"))
    return call(named, list(arguments(tree, folder)))


def call(named: str, given: Sequence[str]) -> str:
    whole = f"{named}({', '.join(given)})"
    return whole if len(whole) <= LONGEST else "\n".join([f"{named}(", *(f"    {one}," for one in given), ")"])


def arguments(tree: ast.Call, folder: str) -> Iterator[str]:
    yield from (value(node, folder) for node in tree.args)
    for word in tree.keywords:
        if word.arg is None:
            raise ValueError("holds **")
        yield f"{word.arg}={value(word.value, folder)}"


def value(node: ast.expr, folder: str) -> str:
    if isinstance(node, ast.Name) and node.id == "FOLDER":
        return literal(folder)
    return plain(node.value) if isinstance(node, ast.Constant) else attribute(node, ("pipe",))


def plain(told: Any) -> str:
    """A text, number or truth value as Python. Raises ValueError for anything else."""
    if not isinstance(told, str | bool | int | float):
        raise ValueError(f"is no plain value: {told!r}")
    return literal(told) if isinstance(told, str) else repr(told)


def attribute(node: ast.expr, owners: Sequence[str]) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in owners:
        return f"{node.value.id}.{node.attr}"
    raise ValueError(f"is not of {', '.join(owners)}")
