"""The metadata at the top of a README.md: YAML between two lines of `---`."""

import re
from typing import Any

import yaml  # type: ignore[import-untyped]


def split(card: str) -> tuple[str | None, str]:
    """The YAML (None when there is none) and the text after it."""
    match = re.match(r"\ufeff?\s*---[ \t]*(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\r|\n|$)(.*)", card, re.DOTALL)
    return (match[1], match[2]) if match else (None, card)


def read(card: str) -> dict[str, Any]:
    """The metadata of a card; empty when there is none. Raises ValueError, with the line, when it cannot be read."""
    raw, _ = split(card)
    try:
        found = yaml.safe_load(raw or "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 2})" if mark else ""
        raise ValueError(f"the metadata is not YAML{place}: {getattr(error, 'problem', None) or 'cannot be read'}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError("the metadata is not a list of `key: value` lines")
    return {str(key): value for key, value in found.items()}


def written(metadata: dict[str, Any]) -> str:
    """The lines that `read` reads back, keys in the order given, `---` above and below."""
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=False)
    return f"---\n{text}---\n"
