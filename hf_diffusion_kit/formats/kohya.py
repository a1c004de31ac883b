from pathlib import Path
from typing import Any, ClassVar

from ..errors import ModelError
from ..families import Family
from ..families.quiet import quiet_loading
from ..loras import Adapter, kohya, read, sgm
from .base import Format, Written, check, save
from .layers import fold, layers_of

FILE = "lora_kohya.safetensors"
FLUX_WIDTH = 3072


class Kohya(Format):
    """One file as kohya's sd-scripts, ComfyUI and the WebUIs read it. So does diffusers, but for DoRA's lengths, which it passes over, and
    for LoHa and LoKr: those are added to the base's weights by ourselves where they are compared."""

    name: ClassVar[str] = "kohya"

    @classmethod
    def takes(cls, family: type[Family]) -> bool:
        return family.name in kohya.KOHYA

    def write(self, family: Family, folder: Path) -> Written:
        names = kohya.names_of(family.name)
        adapter = layers_of(family)
        blocks = sgm.Blocks.of(family.model.config) if names.original else sgm.SDXL  # type: ignore[arg-type]
        tensors = kohya.tensors(adapter, names, blocks)
        check(tensors, folder / FILE)
        save(tensors, folder / FILE, **kohya.metadata(adapter, names))
        call = f'.from_pretrained(BASE) + .load_lora_weights(FOLDER, weight_name="{FILE}")'
        return Written((folder / FILE,), call if stock(adapter) else "ComfyUI: Load LoRA")

    def add(self, pipe: Any, folder: Path) -> None:
        file = folder / FILE
        unet = getattr(pipe, "unet", None)
        adapter = read(file, blocks=None if unet is None else blocks_of(unet)).layers
        if not stock(adapter) or not of_known_size(pipe):
            fold(pipe, adapter)
            return
        with quiet_loading():
            pipe.load_lora_weights(folder, weight_name=FILE, local_files_only=True)
        if not pipe.get_active_adapters():
            raise ModelError("was read by diffusers without a single weight taken over", where=file, case=2)


def stock(adapter: Adapter) -> bool:
    """Whether diffusers reads all of it."""
    return all(layer.kind == "lora" and layer.magnitude_O is None for layer in adapter.values())


def of_known_size(pipe: Any) -> bool:
    """diffusers takes FLUX.1's joined layers apart at the real model's widths alone."""
    transformer = getattr(pipe, "transformer", None)
    return transformer is None or getattr(transformer, "inner_dim", FLUX_WIDTH) == FLUX_WIDTH


def blocks_of(unet: Any) -> sgm.Blocks | None:
    """None of a U-Net whose layers go by no original names; a file of such uses diffusers' names."""
    try:
        return sgm.Blocks.of(unet.config)
    except ModelError:
        return None
