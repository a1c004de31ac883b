"""A denoiser that is shared out over two processes learns as it does whole in one, is written as one, and is half in each."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sharded_run
import tiny
import toyset
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.launch import launch
from hf_diffusion_kit.methods import METHODS, Full, Lora
from hf_diffusion_kit.run import Run
from hf_diffusion_kit.training import sharding
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer
from sharded_run import RUNS, WHOLE
from toyruns import Pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two processes on a machine that may have other work


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shared out")
    Pictures.made(home / "data")
    return home


def both(home: Path, *runs: str) -> list[dict[str, Any]]:
    """What each of the two processes tells."""
    words = [sys.executable, str(Path(sharded_run.__file__)), str(home / "data"), str(home), *runs]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    running = subprocess.Popen(words, env=env, start_new_session=True)
    try:
        assert running.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # both of them too
        running.wait()
    return [json.loads((home / f"told-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def told(home: Path) -> list[dict[str, Any]]:
    begun = sharded_run.run(WHOLE, home / "data", home / "begun")
    for _ in range(3):
        begun.step()
    begun.save()
    return both(home, "ema")


@pytest.fixture(scope="module")
def alone(home: Path) -> Trainer:
    one = sharded_run.run(WHOLE, home / "data", home / "alone")
    one.fit()
    return one


def same_weights(told: dict[str, list[float]], one: Trainer, apart: float = 1e-4) -> None:
    """To rounding: where a gradient is almost 0, Adam makes a step of any size up to the learning rate's of its last bit."""
    assert told.keys() == one.weights.keys()
    for name, values in told.items():
        torch.testing.assert_close(torch.tensor(values), one.weights[name].detach().flatten(), rtol=1e-4, atol=apart)


def test_shared_out_it_is_the_run_of_one_process(told: list[dict[str, Any]], alone: Trainer) -> None:
    for one in told:
        assert one["ema"]["losses"] == pytest.approx(alone.losses, rel=1e-5)
        assert one["ema"]["held"] == pytest.approx(alone.measure(), rel=1e-5)
        assert one["resumed"] == pytest.approx(alone.losses, rel=1e-5)
    same_weights(told[0]["ema"]["weights"], alone)
    assert not told[1]["ema"]["weights"], "rank 0 alone is told whole weights"


def test_each_process_holds_half_of_all_that_is_trained(home: Path, told: list[dict[str, Any]]) -> None:
    one, lengths = sharded_run.bytes_held(sharded_run.wide(home / "data"))
    assert one["moments"] == pytest.approx(2 * one["weights"], rel=1e-3) and one["averages"] == one["gradients"] == one["weights"]
    assert lengths[0] > 0.02 and lengths[1] == pytest.approx(0.01, rel=1e-3)
    for process in told:
        held, told_lengths = process["bytes"]
        for name, size in held.items():
            assert size == pytest.approx(one[name] / 2, rel=0.01), name
        assert told_lengths == pytest.approx(lengths, rel=1e-5)


def test_a_checkpoint_is_that_of_one_process(home: Path, told: list[dict[str, Any]], alone: Trainer) -> None:
    folders = [home / name / "checkpoint-000006" for name in ("ema", "alone")]
    names = [
        "ema.safetensors",
        "manifest.json",
        "optimizer.safetensors",
        "pictures.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [names, names]
    for name in ("weights", "optimizer", "ema"):
        one, other = (load_file(folder / f"{name}.safetensors") for folder in folders)
        assert list(one) == list(other)
        for key, value in one.items():
            assert (value.shape, value.dtype) == (other[key].shape, other[key].dtype)
            torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4, msg=f"{name}: {key}")


def test_what_two_processes_saved_one_goes_on_with(home: Path, told: list[dict[str, Any]], alone: Trainer) -> None:
    (home / "ema" / "checkpoint-000006").rename(home / "last")
    one = sharded_run.run(WHOLE, home / "data", home / "ema")
    assert one.resume() == 3
    one.fit()
    (home / "ema" / "checkpoint-000006").rename(home / "again")
    (home / "last").rename(home / "ema" / "checkpoint-000006")
    assert one.losses == pytest.approx(alone.losses, rel=1e-5)
    assert one.measure() == pytest.approx(alone.measure(), rel=1e-5)
    assert "fsdp did nothing: one process has nobody to share the denoiser with" in one.notes()


def test_a_step_that_is_not_finite_in_one_is_skipped_by_both(told: list[dict[str, Any]]) -> None:
    for one in told:
        assert [isnan(loss) for loss in one["skipping"]["losses"]] == [False, True, False]
        assert one["skipping"]["skipped"] == 1 and not one["skipping"]["changed"]
    assert all(torch.isfinite(torch.tensor(values)).all() for values in told[0]["skipping"]["weights"].values())


@pytest.mark.parametrize("name", METHODS)
def test_what_trains_little_is_refused(name: str) -> None:
    settings = TrainSettings(fsdp=True)
    if name in ("full", "dreambooth-full"):
        sharding.check(settings, METHODS[name]())
    else:
        with pytest.raises(ConfigError, match=f"{name} trains little beside it"):
            sharding.check(settings, METHODS[name]())


@pytest.mark.parametrize("settings", [{"optimizer": "adafactor"}, {"optimizer": "adamw8bit"}, {"mixed_precision": "fp16"}])
def test_what_would_not_come_out_alike_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"training: fsdp: does not go with {next(iter(settings.values()))}"):
        sharding.check(TrainSettings(fsdp=True, **settings), Full())


def test_accelerates_own_word_for_it_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="accelerate was told to use FSDP"):
        sharding.check(TrainSettings(), Lora())


def test_every_denoiser_has_blocks_that_are_shared_out_one_by_one() -> None:
    for name in tiny.TOYS:
        pipe = tiny.pipeline(name)
        model = getattr(pipe, "unet", None) or pipe.transformer
        lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
        repeated = {p for module in lists for p in module.parameters()}
        inner = {p for block in sharding.blocks(model) for p in block.parameters()}
        assert sum(p.numel() for p in inner) > 0.5 * sum(p.numel() for p in repeated), name


@pytest.mark.slow
def test_every_kind_of_run_and_every_family(home: Path) -> None:
    told = both(home)
    for name, case in RUNS.items():
        one = sharded_run.run(case, home / "data")
        one.fit()
        # bfloat16 rounds the weights of norms too, which autocast leaves in float32; the text side's rate is high
        rel, apart = {"bf16": (5e-3, 1e-2), "text first": (1e-4, 5e-3)}.get(name, (1e-5, 5e-4))
        for process in told:
            assert process[name]["losses"] == pytest.approx(one.losses, rel=rel), name
        if name != "bf16":
            same_weights(told[0][name]["weights"], one, apart)
    for name, losses in sharded_run.families(home / "data").items():
        assert told[0]["families"][name] == pytest.approx(losses, rel=1e-5), name


@pytest.mark.slow
def test_a_whole_job_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, the best weights, an early end, files, the proof that they open: rank 0 writes, and both compute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    tiny.pipeline().save_pretrained("base")
    toyset.folder(Path("data"))
    settings = (
        "training.fsdp=true training.ema_decay=0.9 training.validation_share=0.2 training.validation_steps=2 training.early_stop=2 "
        "training.checkpointing_steps=2 training.report_to=none gallery.steps=2 gallery.pictures=2 base.license=mit"
    )
    words = f"train --base base --data data --method full --resolution 16 24 --steps 6 {settings}".split()
    assert launch([*words, "--batch-size", "1", "--out", "two"], 2) == 0
    run = Run.open("two")
    assert run.record.verified[0].max_difference == 0
    assert run.evaluate() == dict.fromkeys((shown.file for shown in run.record.gallery), 0.0)
    assert run.record.validations and not [note for note in run.record.notes if "fsdp" in note]
