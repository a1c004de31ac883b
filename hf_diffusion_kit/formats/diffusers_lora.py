import json
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ModelError
from ..families import Family
from ..families.quiet import quiet_loading
from .base import Written

FILE = "pytorch_lora_weights.safetensors"
METADATA = (
    *("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora"),
    *("lora_dropout", "bias", "init_lora_weights"),
)
"""Fields of peft's configuration that every version since 0.13 knows; an unknown one makes an older reader fail."""


class DiffusersLora:
    """`pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(repo)` reads, today's stack and older ones alike."""

    name = "diffusers-lora"

    def write(self, family: Family, folder: Path) -> Written:
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, Any] = {}
        for part in (family.denoiser, *family.text_encoders):
            model: Any = family.part(part)
            config = getattr(model, "peft_config", {}).get("default")
            if config is None:
                continue
            told = config.to_dict()
            metadata |= {f"{part}.{key}": portable(told[key]) for key in METADATA if key in told}
            state = convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
            tensors |= {f"{part}.{rooted(part, key)}": value.detach().cpu().contiguous() for key, value in state.items()}
        check(tensors, folder / FILE)
        header = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata, sort_keys=True)}
        half = folder / f"{FILE}.part"
        save_file(tensors, half, metadata=header)
        settle(half)
        half.chmod(0o644)
        half.replace(folder / FILE)
        return Written((folder / FILE,), f'.from_pretrained(BASE) + .load_lora_weights(FOLDER, weight_name="{FILE}")')

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        pipe = family.pipeline(base, revision=revision, dtype=dtype)
        with quiet_loading():
            pipe.load_lora_weights(folder, weight_name=FILE, local_files_only=True)
        if not pipe.get_active_adapters():
            raise ModelError("was read by diffusers without a single weight taken over", where=folder / FILE, case=2)
        return pipe


def rooted(part: str, key: str) -> str:
    """transformers 5.6 dropped `text_model.` from CLIP's names; with it, both older and newer readers find the layers."""
    if part.startswith("text_encoder") and key.startswith(("encoder.", "embeddings.", "final_layer_norm.")):
        return f"text_model.{key}"
    return key


def settle(path: Path) -> None:
    """safetensors writes its metadata in an order that changes from run to run; in a fixed one, equal weights are equal files."""
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[:8], "little")
    told = json.loads(raw[8 : 8 + size])
    told["__metadata__"] = dict(sorted(told["__metadata__"].items()))
    raw[8 : 8 + size] = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
    path.write_bytes(raw)


def portable(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else value


def check(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises ModelError for what diffusers would load without a word: nothing, nothing trained, or no numbers."""
    if not tensors:
        raise ModelError("there is no adapter to write", where=path, case=2)
    if bad := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise ModelError(f"{len(bad)} tensors are not finite ({bad[0]}); nothing was written", where=path, case=2)
    ups = [value for key, value in tensors.items() if ".up." in key or "lora_B" in key or "lora_linear_layer.up" in key]
    if not any(value.any() for value in ups):
        raise ModelError(
            "the adapter was never trained: all of its upper matrices are zero; nothing was written", where=path, case=2
        )
