"""Every step of two epochs is a place to stop at, and two runs with one seed are one (facts/reliability.md, G2, G9, G10).

A loader has no workers that could be 0 or 2: encodings are kept, and a batch is a function of its step. What else might play a part (who
filled the cache on disk, how Python hashes strings, what was trained before) is tried here.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit.data import Captioned
from hf_diffusion_kit.methods import DreamBooth, Full, Lora, TextualInversion
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training.checkpoint import Checkpoint
from hf_diffusion_kit.training.randomness import number
from toyruns import CALLED, WORD, Case, Pictures, differences, state, trainer

pytestmark = pytest.mark.slow

STEPS = 24
"""Two epochs."""
TARGETS = ("attn1.to_q", "attn2.to_v", "attn2.to_out.0")
METHODS = {
    "lora": Lora(rank=2, dropout=0.1, targets=TARGETS),
    "dreambooth": DreamBooth(rank=2, targets=TARGETS),
    "full": Full(),
    "word": TextualInversion(tokens=WORD, vectors=2),
}
SETTINGS: dict[str, Any] = {
    **{"steps": STEPS, "batch_size": 1, "random_flip": True, "caption_dropout": 0.1, "lr_warmup_steps": 3},
    **{"checkpointing_steps": 1, "checkpoints_total_limit": STEPS},
}
MORE: dict[str, dict[str, Any]] = {"full": {"ema_decay": 0.9}, "word": {"caption_template": CALLED}}
IDENTITY = {"identity": {"base": "toy" * 10}}
"""So that encodings are kept on disk, for a run begins 50 times."""


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_resumed_at_every_step_once_and_twice(name: str, accumulation: int, tmp_path: Path) -> None:
    """From each step on to another one, where all of its state is that of the run that was never stopped; from there, in a third session, to
    the end, where it is again."""
    pictures = Pictures.made(tmp_path / "pictures", count=12 * accumulation)
    case = Case(METHODS[name], {**SETTINGS, **MORE.get(name, {}), "gradient_accumulation_steps": accumulation})
    whole, states = trainer(case, pictures, tmp_path / "whole", **IDENTITY), {}
    for _ in whole:
        whole.save()
        states[whole.done] = state(whole)
    seen = Counter(row["image_id"] for row in whole.loader.rows)
    for use in whole.ledger():
        seen[use.image_id] += use.times if use.role == "instance" else 0
    assert len(seen) == 12 * accumulation and set(seen.values()) == {1 + 2}, "two epochs"
    for stop in range(1, STEPS + 1):
        place = tmp_path / str(stop) / f"checkpoint-{stop:06d}"
        shutil.copytree(tmp_path / "whole" / place.name, place)
        once = trainer(case, pictures, place.parent, **IDENTITY)
        assert once.resume() == stop and not differences(state(once), states[stop])
        again = stop + number(0, name, accumulation, stop) % (STEPS + 1 - stop)
        while once.done < again:
            once.step()
        assert not differences(state(once), states[again]), f"resumed at {stop}, after step {again}"
        once.save()
        twice = trainer(case, pictures, place.parent, **IDENTITY)
        assert twice.resume() == again
        for _ in twice:
            pass
        assert not differences(state(twice), states[STEPS]), f"resumed at {stop} and at {again}"
        shutil.rmtree(place.parent)


RUN = """
import sys
from pathlib import Path
from hf_diffusion_kit import LoraTrainer
base, data, out = sys.argv[1:]
told = {"rank": 2, "steps": 5, "learning_rate": 1e-2, "resolution": (%d, %d), "random_flip": True, "caption_dropout": 0.2, "batch_size": 2,
        "pictures": 1, "sample_steps": 0, "checkpointing_steps": 0, "license": "mit", "report_to": ("none",), "text_encoder": %s}
heard = []
LoraTrainer(base, out=out, **told).fit(data, say=heard.append, progress=False)
"""


@pytest.mark.parametrize("text", [False, True])
def test_two_runs_with_one_seed_are_the_same_files(text: bool, tmp_path: Path) -> None:
    """In processes of their own: one that fills the cache, one that finds it filled, one with another home and other hashes."""
    tiny.pipeline().save_pretrained(tmp_path / "toy-base")
    data = toyset.folder(tmp_path / "data")
    files, made = [], []
    for name, home, seed in (("first", "home", "1"), ("second", "home", "2"), ("third", "elsewhere", "3")):
        environment = {**os.environ, "HF_HOME": str(tmp_path / home), "PYTHONHASHSEED": seed}
        words = [
            sys.executable,
            "-c",
            RUN % (tiny.HEIGHT, tiny.WIDTH, text),
            str(tmp_path / "toy-base"),
            str(data),
            str(tmp_path / name),
        ]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "run.json").read_text())
        raw = (tmp_path / name / "pytorch_lora_weights.safetensors").read_bytes()
        files.append((hashlib.sha256(raw).hexdigest(), record["losses"], record["captions"]))
        made.append(len(list((tmp_path / home).rglob("encoded/**/*.safetensors"))))
    assert files[0] == files[1] == files[2]
    assert made[0] == made[1] == made[2] > 0


# What it costs (G9)


def test_a_checkpoint_of_an_adapter_costs_little(tmp_path: Path) -> None:
    """8 MB of weights and 16 of moments: written, synced, hashed, renamed, read back."""
    weights = {f"unet.{i}": torch.randn(128, 128) for i in range(128)}
    moments = {f"{name}.{kind}": torch.randn(128, 128) for name in weights for kind in ("exp_avg", "exp_avg_sq")}
    took, worked = [], []
    for step in range(1, 12):
        begun, cpu = time.perf_counter(), time.process_time()
        checkpoints.save(tmp_path, Checkpoint(step, weights, moments, {"losses": [0.1] * 2000}), keep=2)
        took.append(time.perf_counter() - begun)
        worked.append(time.process_time() - cpu)
    print(f"a checkpoint of 25 MB: {statistics.median(took) * 1e3:.0f} ms, {statistics.median(worked) * 1e3:.0f} ms of a core")
    assert min(worked) < 0.15


def many(pictures: Pictures, count: int) -> Captioned:
    """So many rows, each with an id of its own."""
    rows = pictures.plain.dataset.to_dict()
    told = {name: [values[i % len(values)] for i in range(count)] for name, values in rows.items()}
    told["image_id"] = [f"{i:06d}" for i in range(count)]
    told["file_name"] = [f"{i:06d}.png" for i in range(count)]
    return Captioned(datasets.Dataset.from_dict(told, features=pictures.plain.dataset.features), pictures.plain.record)


def test_a_run_on_many_pictures_goes_on_at_once(tmp_path: Path) -> None:
    """100,000 pictures, in the middle of the second epoch: nothing is played back, and the ledger is read in one go."""
    pictures = Pictures.made(tmp_path / "pictures")
    few = Case(Lora(rank=2), {"steps": 200_000, "batch_size": 1})
    large = replace(pictures, plain=many(pictures, 100_000))
    run = trainer(few, large)
    run.losses, run.done, run.folder = [0.125] * 149_999, 149_999, tmp_path / "run"
    for row in run.loader.rows:
        run.loader.used[row["image_id"], "a red"] = run.loader.chosen[row["image_id"], "a red"] = 1
    run.save()
    expected = run.step()

    def cost(at: Pictures, folder: Path | None) -> float:
        begun = time.process_time()
        one = trainer(few, at, folder)
        one.resume()
        if folder:
            assert one.step() == expected
        return time.process_time() - begun

    cost(pictures, None)
    fresh, resumed = min(cost(large, None) for _ in range(3)), min(cost(large, tmp_path / "run") for _ in range(3))
    print(f"100,000 pictures: {fresh:.2f} s to a fresh trainer, {resumed - fresh:.2f} s more to resume and take a step")
    assert resumed - fresh < 1.0 and fresh < 5.0
