"""A run on a base in fewer bits is compared with a reader who has it in as few, and says so."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit import LoraTrainer
from hf_diffusion_kit.cards import model_card
from hf_diffusion_kit.records import RunRecord
from hf_diffusion_kit.run import Run

RECORD = Path(__file__).parents[1] / "model_cards" / "records" / "coco-cats-lora.json"


def test_a_run_on_an_int8_base_is_compared_with_an_int8_base(tmp_path: Path) -> None:
    pytest.importorskip("torchao", exc_type=ImportError)
    tiny.pipeline().save_pretrained(tmp_path / "base")
    told = {"steps": 2, "resolution": [tiny.HEIGHT, tiny.WIDTH], "report_to": ["none"], "sample_steps": 0, "learning_rate": 1e-2}
    run = LoraTrainer(base=str(tmp_path / "base"), quantize="int8", rank=4, out=tmp_path / "run", **told).fit(
        toyset.folder(tmp_path / "data"), say=lambda _: None, progress=False
    )
    assert [line.quantize for line in run.record.verified] == ["int8"]
    assert run.record.verified[0].max_difference < 1e-5
    assert max(run.evaluate().values()) < 1e-5
    kinds = {type(m.weight).__name__ for m in Run.open(run.folder).reopened().unet.modules() if isinstance(m, torch.nn.Linear)}
    assert "Int8Tensor" in kinds


def test_the_card_says_what_was_compared() -> None:
    record = RunRecord.load(RECORD)
    told = "Both had the base's denoiser in int8, as it was in training"
    assert told not in model_card(record, "me/cats")
    less = [replace(line, quantize="int8") for line in record.verified]
    assert told in model_card(replace(record, verified=less), "me/cats")
