"""Activations that are computed twice rather than kept give the same losses, on every family."""

from pathlib import Path

import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Lora
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

OFTEN = ("sd1", "sd3")
CELLS = [
    pytest.param(name, precision, marks=[] if name in OFTEN else [pytest.mark.slow])
    for name in FAMILIES
    for precision in ("no", "bf16")
]


@pytest.mark.parametrize(("name", "precision"), CELLS)
def test_losses_are_the_same(name: str, precision: str, tmp_path: Path) -> None:
    data, told = load_captioned(toyset.folder(tmp_path / "data")), []
    for checkpointing in (False, True):
        pipe = tiny.pipeline(name).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        settings = TrainSettings(
            steps=2,
            learning_rate=1e-2,
            resolution=tiny.size(pipe),
            mixed_precision=precision,  # type: ignore[arg-type]
            gradient_checkpointing=checkpointing,
            disk_cache=False,
        )
        trainer = Trainer(FAMILIES[name](pipe), Lora(rank=2, dropout=0.1), settings, data, say=lambda _: None, progress=False)
        told.append(trainer.fit())
        kept = {module for module in trainer.family.model.modules() if getattr(module, "gradient_checkpointing", False)}
        assert bool(kept) == checkpointing
    assert told[0] == pytest.approx(told[1], rel=1e-6)
