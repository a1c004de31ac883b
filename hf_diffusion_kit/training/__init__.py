"""The loop and what makes it exact: seeded streams, seeded order, atomic checkpoints. It knows no family and no method by name."""

from .settings import TrainSettings
from .trainer import Trainer

__all__ = ["TrainSettings", "Trainer"]
