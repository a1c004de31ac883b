"""The training methods. To add one: write its file, add one line to METHODS."""

from ..errors import unknown
from .base import Batch, Method, Trained, denoising_loss
from .dreambooth import DreamBooth, DreamBoothFull
from .full import Full
from .lora import Lora
from .pivotal import Pivotal
from .textual_inversion import TextualInversion

METHODS: dict[str, type[Method]] = {m.name: m for m in (Lora, DreamBooth, Full, DreamBoothFull, TextualInversion, Pivotal)}


def method(name: str) -> type[Method]:
    try:
        return METHODS[name]
    except KeyError:
        raise unknown("method", name, METHODS) from None


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
    "method",
]
