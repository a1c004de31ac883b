"""What a step costs besides the model: the denoiser of Stable Diffusion 1.5 answers what it was asked, and everything else is as ever.

    python benchmarks/overhead.py [--steps 300] [--scratch /tmp/hfdk-bench] [--profile]

Batches, noise, loss, the way back, clipping, AdamW, ledger, bar and log are there. The gradients of all 256 thin matrices of a rank 16 LoRA
come from a tensor of zeros. `lean` is the same with one trained number, so that arithmetic on 3 million weights is out of it. One thread.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import real_size
import torch
from torch import Tensor


def zeros(weights: Sequence[Tensor]) -> list[Tensor]:
    """One tensor of them, seen as many."""
    flat = torch.zeros(sum(p.numel() for p in weights))
    return [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in weights]), weights, strict=True)]


class Touched(torch.autograd.Function):
    """Answers its first argument; gives every other one a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.zeros = zeros(weights)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.zeros


def blank(pixels: Tensor) -> Any:
    """In the VAE's place: what it says of a picture does not matter here."""
    from hf_diffusion_kit.families.base import Posterior

    latents = torch.zeros(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8)
    return Posterior(latents, torch.ones_like(latents))


def measure(scratch: Path, steps: int, *, lean: bool, profile: bool) -> dict[str, float]:
    """CPU milliseconds a step of `Trainer.fit`, its bar included."""
    from hf_diffusion_kit.data import load_captioned
    from hf_diffusion_kit.families import detect
    from hf_diffusion_kit.methods import Lora
    from hf_diffusion_kit.training.settings import TrainSettings
    from hf_diffusion_kit.training.trainer import Trainer

    base, pictures = real_size.folder("sd15", scratch), real_size.pictures(scratch, 10, 256)
    family: Any = detect(base).open(base, dtype=torch.bfloat16)
    settings = TrainSettings(
        steps=steps, resolution=(256,), mixed_precision="bf16", checkpointing_steps=0, disk_cache=False, report_to=("none",)
    )
    trainer = Trainer(family, Lora(rank=16), settings, load_captioned(pictures), progress=True, say=lambda _: None)
    family.posterior = blank
    weights = list(trainer.weights.values())[: 1 if lean else None]
    family.predict = lambda noisy, time_B, cond: Touched.apply(noisy, *weights)
    if lean:
        for p in list(trainer.weights.values())[1:]:
            p.requires_grad_(False)
    trainer.fill()
    ends: list[float] = []
    trainer.after_step.append(lambda run: ends.append(time.process_time()))
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    trainer.fit()
    profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)
    each = [after - before for before, after in pairwise(ends)]
    return {"median_ms": round(1000 * statistics.median(each), 3), "mean_ms": round(1000 * statistics.mean(each), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    told = parser.parse_args()
    torch.set_num_threads(1)
    told.scratch.mkdir(parents=True, exist_ok=True)
    results = {
        name: measure(told.scratch, told.steps, lean=name == "lean", profile=told.profile) for name in ("all weights", "lean")
    }
    told.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
