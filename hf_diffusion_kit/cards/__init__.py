"""RunRecord -> README.md. Pure: no network, clock or model; the same record gives the same bytes."""

from .merge import merge_card
from .model_card import model_card

__all__ = ["merge_card", "model_card"]
