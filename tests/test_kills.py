"""Killed, cut off or without a byte to write to, at any moment: the newest finished checkpoint is there, and the run that goes on from it
ends as one that was never stopped, byte for byte (facts/reliability.md, G1, G3, G4).

Real processes and real signals: see killed.py, which forks them from one that is warm. Disks are real too, but small (tmpfs).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def experiment(name: str, folder: Path, count: int = 0, before: tuple[str, ...] = ()) -> dict[str, Any]:
    words = [*before, sys.executable, str(HERE / "killed.py"), name, str(folder), str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(name, told)
    return told


def test_200_kills_lose_no_checkpoint_and_change_no_bit(tmp_path: Path) -> None:
    told = experiment("kills", tmp_path, 200)
    assert told["kills"] >= 200 and told["runs"] >= 5
    assert (told["lost"], told["unusable"], told["different"]) == (0, 0, 0)
    assert told["in a save"] >= 10 and told["most lives"] >= 4, "they did not hit where it matters"


def test_a_kill_and_a_power_cut_at_every_place_of_a_save(tmp_path: Path) -> None:
    told = experiment("writes", tmp_path)
    assert told["places"] > 25 and told["bad"] == []
    assert set(told["went on from"]) == {"2", "3"} and sum(told["went on from"].values()) == told["deaths"]


def test_30_signals_end_after_the_step_with_all_of_it_saved(tmp_path: Path) -> None:
    told = experiment("signals", tmp_path, 30)
    assert told["right"] == 30 and (told["not the last step"], told["different"]) == (0, 0)
    assert set(told["codes"]) == {"130", "143"}


def test_30_full_disks_are_one_line_each_and_go_on_when_there_is_room(tmp_path: Path) -> None:
    alone = ("unshare", "--map-root-user", "--mount")
    works = (
        shutil.which("unshare")
        and subprocess.run([*alone, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=False).returncode == 0
    )
    if not works:
        pytest.skip("no small disk can be mounted here (unshare --map-root-user --mount)")
    told = experiment("disks", tmp_path, 33, alone)
    assert told["bad"] == [] and told["full"] >= 30, told
    assert len(told["where"]) >= 8, "at different places of its life"
