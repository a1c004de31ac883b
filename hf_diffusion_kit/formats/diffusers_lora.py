import json
from pathlib import Path
from typing import Any, ClassVar

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from ..errors import ModelError
from ..families import Family
from ..families.quiet import quiet_loading
from .base import Format, Written, adapter_of, adapter_state, check, rooted, save

FILE = "pytorch_lora_weights.safetensors"
METADATA = (
    *("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora"),
    *("lora_dropout", "bias", "init_lora_weights"),
)
"""Fields of peft's configuration that every version since 0.13 knows; an unknown one makes an older reader fail."""


class DiffusersLora(Format):
    """`pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(repo)` reads, today's stack and older ones alike."""

    name: ClassVar[str] = "diffusers-lora"

    def write(self, family: Family, folder: Path) -> Written:
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, Any] = {}
        for part in (family.denoiser, *family.text_encoders):
            if (found := adapter_of(model := family.part(part))) is None:
                continue
            name, told = found[0], found[1].to_dict()
            if told["peft_type"] != "LORA":
                what = f"diffusers reads no {told['peft_type'].lower()} adapter of a {family.name}"
                raise ModelError(what, where=folder, fix="write it as peft, or merged", case=4)
            metadata |= {f"{part}.{key}": portable(told[key]) for key in METADATA if key in told}
            tensors |= {f"{part}.{in_diffusers(part, key)}": value for key, value in adapter_state(model, name).items()}
        check(tensors, folder / FILE)
        save(tensors, folder / FILE, lora_adapter_metadata=json.dumps(metadata, sort_keys=True))
        return Written((folder / FILE,), f'.from_pretrained(BASE) + .load_lora_weights(FOLDER, weight_name="{FILE}")')

    def add(self, pipe: Any, folder: Path) -> None:
        with quiet_loading():
            pipe.load_lora_weights(folder, weight_name=FILE, local_files_only=True)
        if not pipe.get_active_adapters():
            raise ModelError("was read by diffusers without a single weight taken over", where=folder / FILE, case=2)

    def as_read(self, family: Family) -> None:
        for part in (family.denoiser, *family.text_encoders):
            for layer in (module for module in family.part(part).modules() if isinstance(module, BaseTunerLayer)):
                for name in layer.adapter_layer_names:
                    getattr(layer, name).to(family.dtype)


def in_diffusers(part: str, key: str) -> str:
    """peft's name of a tensor -> diffusers'. Its own converter knows attention only, and its reader tells the layout by the first name."""
    if part == "transformer":  # as peft names them, since there are such
        return key
    if not part.startswith("text_encoder"):
        return key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up.")
    if key.endswith("lora_magnitude_vector"):
        key = f"{key}.weight"  # transformers 5 passes over a DoRA length without it
    return rooted(part, key.replace(".lora_A.", ".lora_linear_layer.down.").replace(".lora_B.", ".lora_linear_layer.up."))


def portable(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else value
