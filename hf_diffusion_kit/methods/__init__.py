"""The training methods. To add one: write its file, add one line to METHODS."""

from ..errors import unknown
from ..families import Family
from .base import Batch, Method, Trained, denoising_loss
from .dreambooth import DreamBooth, DreamBoothFull
from .full import Full
from .lora import Lora
from .pivotal import Pivotal
from .textual_inversion import TextualInversion
from .tokens import Tokens

METHODS: dict[str, type[Method]] = {m.name: m for m in (Lora, DreamBooth, Full, DreamBoothFull, TextualInversion, Pivotal)}


def method(name: str) -> type[Method]:
    try:
        return METHODS[name]
    except KeyError:
        raise unknown("method", name, METHODS) from None


def fits(kind: type[Method], family: type[Family]) -> bool:
    """Whether a method makes sense for a family: new words need a text side that stock readers take them into."""
    return family.learns_words or not issubclass(kind, Tokens)


__all__ = [
    "METHODS",
    "Batch",
    "DreamBooth",
    "DreamBoothFull",
    "Full",
    "Lora",
    "Method",
    "Pivotal",
    "TextualInversion",
    "Trained",
    "denoising_loss",
    "fits",
    "method",
]
