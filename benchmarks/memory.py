"""What a LoRA takes in memory at a base's usual resolution, computed from the real configurations on the meta device.

    python benchmarks/memory.py [--base "FLUX.1 dev" ...] [--rank 16] [--out benchmarks/results/memory.json]

No weight is made: shapes are followed through a forward pass, and what autograd keeps is counted, each storage once. Weights are bfloat16;
each trained number is float32 with its gradient and AdamW's two moments, 16 bytes. What is alive for a moment only (workspaces; under
gradient checkpointing the block that is computed again, which is in the figure `block`) comes on top.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from real_families import DENOISERS, Denoiser, empty
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.families.targets import linear_ends

GB = 1e9
BITS_4 = 0.5 + 4 / 64
"""Bytes a number in nf4, with a float32 scale for every 64."""
TRAINED_BYTES = 4 * 4
"""Weight, gradient and two moments in float32."""


class Flash(torch.autograd.Function):
    """What flash attention keeps (Dao et al. 2022): its inputs, its answer and a number a row; on the meta device torch takes the plain way,
    which keeps the whole matrix. Nothing goes back through it here."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        answer = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, answer, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return answer


class WithFlash(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            return Flash.apply(*[*args, *(kwargs or {}).values()][:3])
        return func(*args, **(kwargs or {}))


def saved_bytes(model: nn.Module, inputs: dict[str, Any]) -> int:
    """Bytes that autograd keeps between forward and backward, weights apart."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), WithFlash():
        model(**inputs)
    return sum(size for size, _ in kept.values())


def measured(told: Denoiser, rank: int) -> dict[str, Any]:
    presets = FAMILIES[told.family].target_presets if told.family in FAMILIES else {}
    row: dict[str, Any] = {"base": told.base, "resolution": told.pixels}
    for checkpointing in (False, True):
        model = empty(told)
        numbers = sum(p.numel() for p in model.parameters())
        linear = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
        model.add_adapter(LoraConfig(r=rank, target_modules=list(presets.get("attention") or linear_ends(model))))
        model.to(torch.bfloat16)  # as autocast gives the adapters to a product
        trained = [p for p in model.parameters() if p.requires_grad]
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.train()
        kept = saved_bytes(model, told.inputs(told.pixels)) / GB
        row["activations_checkpointed_gb" if checkpointing else "activations_gb"] = round(kept, 2)
    count = sum(p.numel() for p in trained)
    row |= {
        "denoiser_billions": round(numbers / GB, 2),
        "weights_gb": round(numbers * 2 / GB, 2),
        "weights_4bit_gb": round((linear * BITS_4 + (numbers - linear) * 2) / GB, 2),  # convolutions and norms stay as they are
        "lora_millions": round(count / 1e6, 2),
        "trained_gb": round(count * TRAINED_BYTES / GB, 2),
        "encoders_gb": round(sum(told.encoders.values()) * 2, 2),
    }
    row["step_gb"] = round(row["weights_gb"] + row["trained_gb"] + row["activations_gb"], 1)
    row["step_checkpointed_gb"] = round(row["weights_gb"] + row["trained_gb"] + row["activations_checkpointed_gb"], 1)
    row["step_checkpointed_4bit_gb"] = round(row["step_checkpointed_gb"] - row["weights_gb"] + row["weights_4bit_gb"], 1)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", nargs="+", help="only these")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.json"))
    told = parser.parse_args()
    rows = []
    for denoiser in DENOISERS:
        if not told.base or denoiser.base in told.base:
            rows.append(measured(denoiser, told.rank))
            print(json.dumps(rows[-1]), flush=True)
    if not told.base:
        told.out.write_text(json.dumps({"rank": told.rank, "batch": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
