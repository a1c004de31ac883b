"""LoRA files as layers: read in any layout, added up, cut down, named for others. Knows torch alone, no model and no pipeline."""

from . import arithmetic, sgm
from .layers import Adapter, Layer, part_of
from .reading import LoraFile, read

__all__ = ["Adapter", "Layer", "LoraFile", "arithmetic", "part_of", "read", "sgm"]
