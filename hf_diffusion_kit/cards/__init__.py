"""RunRecord or SubsetRecord -> README.md. Pure: no network, clock or model; the same record gives the same bytes."""

from .dataset_card import RowFacts, dataset_card
from .merge import merge_card
from .model_card import model_card

__all__ = ["RowFacts", "dataset_card", "merge_card", "model_card"]
