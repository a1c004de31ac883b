"""The model families. To add one: write its file, add one line to FAMILIES."""

from functools import cache, partial
from pathlib import Path

from ..errors import FamilyError
from .aura_flow import AuraFlow
from .base import Conditioning, Family, Posterior, TokenCount
from .chroma import Chroma
from .flux import Flux, FluxSchnell
from .flux2 import Flux2Klein
from .lumina2 import Lumina2
from .opening import class_name_of, config_of
from .qwen_image import QwenImage
from .sana import Sana
from .sd3 import SD3
from .sdxl import SDXL
from .stable_diffusion import SD1, SD2
from .z_image import ZImage

KINDS = (SD1, SD2, SDXL, SD3, Flux, FluxSchnell, Flux2Klein, ZImage, QwenImage, Sana, Lumina2, AuraFlow, Chroma)
FAMILIES: dict[str, type[Family]] = {kind.name: kind for kind in KINDS}


def detect(base: str | Path, *, revision: str | None = None) -> type[Family]:
    """The family of a base (Hub id or folder), told by its configuration files alone.

    Raises ModelError when there is no such base, FamilyError when its family is not among `FAMILIES`.
    """
    name = class_name_of(base, revision=revision)
    kinds = [kind for kind in FAMILIES.values() if kind.pipeline_class.__name__ == name]
    config = cache(partial(config_of, base, revision=revision))
    for kind in kinds:
        if kind.accepts(config):
            return kind
    known = ", ".join(f"{kind.pipeline_class.__name__} ({kind.name})" for kind in FAMILIES.values())
    what = "a kind of it that no family here opens" if kinds else "which no family here opens"
    raise FamilyError(f"is a {name}, {what}; known: {known}", where=f"{base}: model_index.json", case=3)


__all__ = ["FAMILIES", "Conditioning", "Family", "Posterior", "TokenCount", "detect"]
