"""From pictures with captions to a published, verified, fine-tuned text-to-image model on the Hugging Face Hub.

Names are looked up when they are used (PEP 562): importing the package loads neither torch nor anything else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import Captioned, Subset, load_captioned, load_dataset, register
    from .run import Run
    from .trainers import DreamBoothTrainer, FullTrainer, LoraTrainer, TextualInversionTrainer

__version__ = "0.1.0"

_HOME = {
    "Captioned": "data",
    "DreamBoothTrainer": "trainers",
    "FullTrainer": "trainers",
    "LoraTrainer": "trainers",
    "Run": "run",
    "Subset": "data",
    "TextualInversionTrainer": "trainers",
    "load_captioned": "data",
    "load_dataset": "data",
    "register": "data",
}
"""Public name -> the room that has it."""

__all__ = [
    "Captioned",
    "DreamBoothTrainer",
    "FullTrainer",
    "LoraTrainer",
    "Run",
    "Subset",
    "TextualInversionTrainer",
    "load_captioned",
    "load_dataset",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
