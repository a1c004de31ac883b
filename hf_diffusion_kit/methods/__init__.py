"""The training methods. To add one: write its file, add one line to METHODS."""

from ..errors import unknown
from .base import Batch, Method, Trained, denoising_loss
from .dreambooth import DreamBooth
from .lora import Lora

METHODS: dict[str, type[Method]] = {m.name: m for m in (Lora, DreamBooth)}


def method(name: str) -> type[Method]:
    try:
        return METHODS[name]
    except KeyError:
        raise unknown("method", name, METHODS) from None


__all__ = ["METHODS", "Batch", "DreamBooth", "Lora", "Method", "Trained", "denoising_loss", "method"]
