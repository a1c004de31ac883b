"""Two processes that share out a denoiser, forked from one that is warm (tests/test_sharding.py starts it): whole runs of several kinds,
each told in JSON."""

import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import tiny
import toyruns
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.launch import free_port, place
from hf_diffusion_kit.methods import Batch, DreamBoothFull, Full
from hf_diffusion_kit.training.processes import ALONE, Processes, join
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.sharding import clip, gathered, local
from hf_diffusion_kit.training.trainer import Trainer
from toyruns import CLASS, TEXT_FIRST, Case, Pictures, changed

OFTEN = {"fsdp": True, "adam_epsilon": 1e-3, "gradient_accumulation_steps": 2, "random_flip": True, "learning_rate": 1e-3}
WHOLE = Case(Full(), {**OFTEN, "ema_decay": 0.9, "validation_share": 0.4, "checkpointing_steps": 3, "max_grad_norm": 0.05})
RUNS = {
    "ema": WHOLE,
    "prior": Case(DreamBoothFull(), OFTEN),
    "text first": Case(
        DreamBoothFull(text_encoder=True, prior="base", class_prompts=CLASS),
        {**OFTEN, "first_stage": "joint", **TEXT_FIRST, "max_grad_norm": 0.05},
    ),
    "text alone first": Case(DreamBoothFull(text_encoder=True), {**OFTEN, **TEXT_FIRST}),
    "schedulefree": Case(Full(), {**OFTEN, "optimizer": "schedulefree", "text_encoder_learning_rate": None}),
    "checkpointing": Case(Full(), {**OFTEN, "gradient_checkpointing": True}),
    "bf16": Case(Full(), {**OFTEN, "mixed_precision": "bf16"}),
}


def run(case: Case, data: Path, folder: Path | None = None, processes: Processes = ALONE) -> Trainer:
    """The same pictures a step, however many processes."""
    pictures = Pictures(*(load_captioned(data / name) for name in ("five", "three", "mixed")))
    case = changed(case, batch_size=case.settings.batch_size // processes.world)
    return toyruns.trainer(case, pictures, folder, processes=processes)


def weights(one: Trainer) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in gathered(one.weights, one.processes).items()}


def bytes_held(one: Trainer) -> tuple[dict[str, int], list[float]]:
    """After a backward pass: weights, their gradients, moments and averages, of this process; and the gradients' length, as it was and
    shortened."""
    one.step()
    one._loss(0).backward()
    moments = [value for state in one.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    parts = {
        "weights": list(one.weights.values()),
        "gradients": [p.grad for p in one.weights.values() if p.grad is not None],
        "moments": moments,
        "averages": list(one.ema.averages.values()) if one.ema else [],
    }
    held = {name: sum(local(tensor.detach()).nbytes for tensor in tensors) for name, tensors in parts.items()}
    return held, [float(clip(one.weights.values(), most)) for most in (0.01, 1.0)]


def wide(data: Path, processes: Processes = ALONE) -> Trainer:
    pipe = tiny.pipeline()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "block_out_channels": (64, 128)})
    settings = replace(WHOLE.settings, batch_size=2 // processes.world, validation_share=0.0)
    return Trainer(
        FAMILIES["sd1"](pipe),
        Full(),
        settings,
        load_captioned(data / "five"),
        processes=processes,
        say=lambda _: None,
        progress=False,
    )


def families(data: Path, processes: Processes = ALONE) -> dict[str, list[float]]:
    told = {}
    for name in tiny.TOYS:
        settings = TrainSettings(**{**OFTEN, "batch_size": 2 // processes.world, "steps": 2, "resolution": (32, 64)})  # type: ignore[arg-type]
        one = Trainer(
            FAMILIES[name](tiny.pipeline(name)),
            Full(),
            settings,
            load_captioned(data / "five"),
            processes=processes,
            say=lambda _: None,
            progress=False,
        )
        told[name] = one.fit()
    return told


def skipping(data: Path, processes: Processes) -> dict[str, Any]:
    """Three steps; in the second one the other process is shown what is no number."""
    one = run(WHOLE, data, None, processes)
    shown = one.batch

    def batch(micro: int) -> Batch:
        told = shown(micro)
        return replace(told, latents_BCHW=told.latents_BCHW * torch.nan) if one.done == 1 and not processes.main else told

    one.batch = batch  # type: ignore[method-assign]
    one.step()
    before = weights(one)
    one.step()
    changed = before != weights(one)
    one.step()
    return {"losses": one.losses, "skipped": one.skipped, "changed": changed, "weights": weights(one)}


def share(data: Path, home: Path, runs: list[str]) -> None:
    """What one of the two does."""
    processes = join(torch.device("cpu"))
    told: dict[str, Any] = {}
    for name in runs or RUNS:
        one = run(RUNS[name], data, home / name, processes)
        losses = one.fit()
        told[name] = {"losses": losses, "weights": weights(one), "held": one.measure() if one.validation else None}
    if runs:
        resumed = run(WHOLE, data, home / "begun", processes)
        assert resumed.resume() == 3
        told["resumed"] = resumed.fit()
        told["bytes"] = bytes_held(wide(data, processes))
        told["skipping"] = skipping(data, processes)
    else:
        told["families"] = families(data, processes)
    (home / f"told-{processes.rank}.json").write_text(json.dumps(told))
    processes.close()


def main() -> int:
    """The first exit code that is not 0; the other process goes with it."""
    torch.set_num_threads(1)
    port, running = free_port(), set()
    for rank in range(2):
        if not (pid := os.fork()):
            os.environ.update(place(rank, 2, port))
            try:
                share(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
                os._exit(0)
            finally:  # after an error alone
                traceback.print_exc()
                os._exit(1)
        running.add(pid)
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if code := os.waitstatus_to_exitcode(status):
            for other in running:
                os.kill(other, signal.SIGKILL)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
