"""How a trained adapter is written down. To add one: write its file, add one line to FORMATS."""

from ..errors import unknown
from .base import Format, Written
from .diffusers_lora import DiffusersLora
from .merged import Merged

FORMATS: dict[str, Format] = {f.name: f for f in (DiffusersLora(), Merged())}


def format(name: str) -> Format:
    try:
        return FORMATS[name]
    except KeyError:
        raise unknown("format", name, FORMATS) from None


__all__ = ["FORMATS", "Format", "Written", "format"]
