"""Facts -> the text of a README.md: one Jinja environment for every card, in which no value is ever compiled or read as markup."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from . import front_matter
from .markdown import Markdown, code, inline, link
from .merge import END, begin


def page(template: str, metadata: dict[str, Any], facts: dict[str, Any], *, made_from: str) -> str:
    """`template`: a file of this room. `facts`: what it names; `Markdown` values go in as they are, all others are escaped."""
    jinja = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=inline)
    jinja.filters |= {"code": code, "amount": amount, "count": counted, "address": address, "link": link, "percent": percent}
    # Compiled from the package's own file only; facts go in as values, and a value is never compiled.
    text = jinja.from_string(Path(__file__).with_name(template).read_text(encoding="utf-8")).render(facts)
    body = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"{front_matter.written(metadata)}\n{begin(made_from)}\n{body}\n\n{END}\n"


def address(path: str) -> Markdown:
    """A file of the repository, for a link or a picture."""
    return Markdown(quote(path))


def counted(number: int, one: str, many: str = "") -> str:
    """1 step, 1,000 steps."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {many or one + 's'}"


def percent(share: float) -> str:
    """5%, 0.5%."""
    return f"{100 * share:.3g}%"


def amount(value: Any, unit: str = "") -> str:
    """Numbers as people write them: 1,234; 0.1234; 12.3 MiB; 1 min 35 s."""
    if unit == "bytes":
        return f"{value / 2**20:,.1f} MiB" if value >= 2**20 else f"{value:,} bytes"
    if unit == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes:,} min {seconds} s" if minutes else f"{value:.1f} s"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
