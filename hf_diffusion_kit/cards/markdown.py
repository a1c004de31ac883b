"""Text from outside -> Markdown that shows it as it is: no tag, link, heading or table cell comes out of a caption."""

import json
import re
from urllib.parse import quote

UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of writing (they can make a text look like another), halves of characters."""
LONGEST = 300
"""Characters of one text that a card shows."""


class Markdown(str):
    """Text that is Markdown already; everything else is escaped when it goes into a card."""


def inline(value: object) -> Markdown:
    """Any value as one line of plain text, for a sentence, a list item or a table cell."""
    if isinstance(value, Markdown):
        return value
    text = " ".join(UNSEEN.sub("\ufffd", str(value)).split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    text = re.sub(r"[\\`*\[\]~|$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"^(\d+)(?=[.)](?: |$))", r"\1\\", text)  # at the start of a line these would begin a list or a heading
    return Markdown(re.sub(r"^[#+=-]", r"\\\g<0>", text))


def code(value: object) -> Markdown:
    """A name or a hash in typewriter letters; as plain text when it holds what would end them."""
    text = str(value)
    if not text.strip() or UNSEEN.search(text) or re.search(r"[`|\r\n]", text):
        return inline(text)
    return Markdown(f"`{text}`")


def is_web(address: str) -> bool:
    return re.match(r"https?://[\w.-]+(?:[:/?#]|$)", address) is not None


def link(text: object, address: str) -> Markdown:
    """A link to a page of the web; the text alone where the address is none."""
    return Markdown(f"[{inline(text)}]({quote(address, safe=':/?#@!$&*+,=%~')})") if is_web(address) else inline(text)


def fenced(text: str, language: str = "") -> Markdown:
    """A block of code, behind a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{UNSEEN.sub(chr(0xFFFD), text.rstrip())}\n{fence}")


def literal(text: str) -> str:
    """A Python literal on one line, with nothing in it that cannot be seen."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)
