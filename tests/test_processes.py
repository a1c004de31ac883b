"""Two processes are one: the same losses, each picture once an epoch, each cache entry made once, and a run passes from one to the other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import shared_run
import toyset
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.launch import free_port, place, watched
from hf_diffusion_kit.training.processes import join

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two processes on a machine that may have other work


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shared")
    toyset.folder(home / "data")
    return home


@pytest.fixture(scope="module")
def told(home: Path) -> list[dict[str, Any]]:
    """What both processes saw."""
    begun = shared_run.run(home / "data", home / "begun")
    for _ in range(3):
        begun.step()
    begun.save()
    words = [sys.executable, str(Path(shared_run.__file__)), *(str(home / name) for name in ("data", "whole", "begun"))]
    port = free_port()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(home / "hf"), "PYTHONPATH": str(Path(__file__).parent)}
    started = [subprocess.Popen(words, env={**env, **place(rank, 2, port)}) for rank in range(2)]
    try:
        assert watched(started) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [json.loads((home / f"told-{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_have_the_losses_of_one(home: Path, told: list[dict[str, Any]]) -> None:
    alone = shared_run.run(home / "data", home / "alone")
    alone.fit()
    for one in told:
        assert one["losses"] == pytest.approx(alone.losses, rel=1e-5)
        assert one["resumed"] == pytest.approx(alone.losses, rel=1e-5)
        assert one["held"] == pytest.approx(alone.measure(), rel=1e-4)
        assert one["ledger"] == sorted([use.image_id, use.text, use.times] for use in alone.ledger())
    for name, values in told[0]["weights"].items():
        torch.testing.assert_close(torch.tensor(values), alone.weights[name].detach().flatten(), rtol=1e-3, atol=1e-5)
    assert told[0]["weights"] == told[1]["weights"]


def test_what_two_processes_saved_one_goes_on_with(home: Path, told: list[dict[str, Any]]) -> None:
    assert sorted(path.name for path in (home / "whole").iterdir()) == ["checkpoint-000003", "checkpoint-000006"]
    (home / "whole" / "checkpoint-000006").rename(home / "last")
    one = shared_run.run(home / "data", home / "whole")
    assert one.resume() == 3
    one.fit()
    assert one.losses == pytest.approx(told[0]["losses"], rel=1e-5)


def test_each_entry_of_the_cache_was_made_once(home: Path, told: list[dict[str, Any]]) -> None:
    files = list((home / "hf").rglob("*.safetensors"))
    assert told[0]["made"] + told[1]["made"] <= len(files)
    assert told[0]["made"] and told[1]["made"]


def test_fewer_processes_than_asked_for_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFDK_PROCESSES", "2")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="2 processes were asked for and 1 came up"):
        join(torch.device("cpu"))
