"""One of two processes that share a run (tests/test_processes.py starts both): a whole run, then one that a single process began."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

import tiny
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Lora
from hf_diffusion_kit.training.processes import ALONE, Processes, join
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

SETTINGS = TrainSettings(
    steps=6,
    learning_rate=1e-2,
    batch_size=2,
    gradient_accumulation_steps=2,
    resolution=(tiny.HEIGHT, tiny.WIDTH),
    random_flip=True,
    caption_dropout=0.2,
    validation_share=0.2,
    checkpointing_steps=3,
)


def run(data: Path, folder: Path, processes: Processes = ALONE) -> Trainer:
    settings = replace(SETTINGS, batch_size=SETTINGS.batch_size // processes.world)
    family = FAMILIES["sd1"](tiny.pipeline())
    told = {"folder": folder, "identity": {"base": "toy" * 10}, "processes": processes}
    return Trainer(family, Lora(rank=2), settings, load_captioned(data), **told, say=lambda _: None, progress=False)


def main() -> None:
    torch.set_num_threads(1)
    data, whole, begun = map(Path, sys.argv[1:])
    processes = join(torch.device("cpu"))
    one = run(data, whole, processes)
    one.fit()
    second = run(data, begun, processes)
    assert second.resume() == 3
    second.fit()
    told = {
        "losses": one.losses,
        "resumed": second.losses,
        "held": one.measure(),
        "made": one.loader.cache.made,
        "ledger": sorted([use.image_id, use.text, use.times] for use in one.ledger()),
        "weights": {name: p.flatten().tolist() for name, p in one.weights.items()},
    }
    whole.with_name(f"told-{processes.rank}.json").write_text(json.dumps(told))
    processes.close()


if __name__ == "__main__":
    main()
