"""The folder of a run and its checkpoints, where something is wrong with them. The table of cases is that of test_faults."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
import toyset
from hf_diffusion_kit import LoraTrainer, job
from hf_diffusion_kit.errors import CheckpointError, ConfigError, StorageError
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training.trainer import Trainer
from toyruns import CASES, Pictures, changed, differences, saved, state, trainer

LORA = CASES["noise"]
"""The quickest to step."""
SMALL: dict[str, Any] = {
    **{"rank": 2, "steps": 3, "learning_rate": 1e-2, "resolution": (tiny.HEIGHT, tiny.WIDTH), "pictures": 1, "license": "mit"},
    **{"checkpointing_steps": 1, "sample_steps": 0, "guidance": 1.0},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures.made(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a user has one."""
    return toyset.folder(tmp_path_factory.mktemp("mine") / "mine", count=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "toy-base"
    tiny.pipeline().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def once(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    run = trainer(LORA, pictures)
    run.step()
    return saved(run, tmp_path_factory.mktemp("once"))


# The folder


HOLDS = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_free_again_when_its_run_was_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="another run works in this folder") as caught, job.locked(tmp_path):
            pytest.fail("it was let in")
        assert caught.value.exit_code == 5
    finally:
        child.kill()
        child.communicate()
    assert (tmp_path / ".lock").exists()
    with job.locked(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["below a file", "a file", "where the system writes"])
def test_a_place_where_nothing_can_be_written_is_found_before_the_first_step(
    kind: str, base: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    places = {
        "below a file": tmp_path / "file" / "run",
        "a file": tmp_path / "file",
        "where the system writes": Path("/proc/run"),
    }
    if kind == "where the system writes" and not Path("/proc/self").exists():
        pytest.skip("only Linux has /proc")
    with pytest.raises(StorageError, match="could not be read or written") as caught:
        LoraTrainer(str(base), out=places[kind], **SMALL).fit(folder, say=lambda _: None, progress=False)
    assert caught.value.exit_code == 5 and "\n" not in caught.value.line() and str(places[kind]) in caught.value.line()


@pytest.mark.slow
def test_a_folder_that_is_removed_in_mid_run_is_made_again(
    base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def gone(run: Trainer) -> float:
        if run.done == 1:
            shutil.rmtree(tmp_path / "run")
        return step(run)

    whole = LoraTrainer(str(base), out=tmp_path / "whole", **SMALL).fit(folder, say=lambda _: None, progress=False)
    monkeypatch.setattr(Trainer, "step", gone)
    heard: list[str] = []
    run = LoraTrainer(str(base), out=tmp_path / "run", **SMALL).fit(folder, say=heard.append, progress=False)
    assert run.record.weights == whole.record.weights
    assert {"run.toml", "run.json", "checkpoint-000003", "log.jsonl"} <= {path.name for path in run.folder.iterdir()}
    assert sum("log.jsonl cannot be written now" in line for line in heard) == 1
    assert "Traceback" not in capsys.readouterr().err


# Checkpoints


def test_the_old_one_stays_until_the_new_one_has_been_read_back(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(changed(LORA, checkpoints_total_limit=1), pictures, tmp_path)
    run.step()
    run.save()
    run.step()
    sync = checkpoints.sync

    def flips(path: Path) -> None:  # a disk that keeps something else than it was given
        sync(path)
        if path.name == "weights.safetensors":
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 1
            path.write_bytes(raw)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync", flips)
        with pytest.raises(CheckpointError, match=r"was written and cannot be read back: weights\.safetensors is not what was"):
            run.save()
    assert checkpoints.steps_in(tmp_path) == [1, 2]
    heard: list[str] = []
    back = trainer(changed(LORA, checkpoints_total_limit=1), pictures, tmp_path, say=heard.append)
    assert back.resume() == 1 and "checkpoint-000002 passed over" in heard[0]
    back.step()
    back.save()
    assert checkpoints.steps_in(tmp_path) == [2] and not differences(state(back), state(run))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_would_keep_none_is_refused(limit: int) -> None:
    with pytest.raises(ConfigError, match=f"checkpoints_total_limit: must be above 0, got {limit}"):
        changed(LORA, checkpoints_total_limit=limit).settings  # noqa: B018


def test_a_newer_format_is_not_written_over(pictures: Pictures, once: Path, tmp_path: Path) -> None:
    place = shutil.copytree(once, tmp_path / "run")
    newer = shutil.copytree(place / "checkpoint-000001", place / "checkpoint-000002")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "format": checkpoints.FORMAT + 1, "layout": "new"}))
    with pytest.raises(CheckpointError) as caught:
        trainer(LORA, pictures, place).resume()
    line = caught.value.line()
    assert caught.value.exit_code == 4 and f"{newer}: has format 2, and this version of hf-diffusion-kit reads up to 1" in line
    assert "Fix: update hf-diffusion-kit" in line and newer.is_dir()
    newer.rename(tmp_path / "away")
    assert trainer(LORA, pictures, place).resume() == 1


@pytest.mark.parametrize("name", ["full", "schedulefree", "by-the-base"])
def test_a_checkpoint_holds_no_pickle(name: str, pictures: Pictures, tmp_path: Path) -> None:
    run = trainer(CASES[name], pictures)
    run.step()
    files = [path for path in saved(run, tmp_path).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        raw = path.read_bytes()
        json.loads(raw if path.suffix == ".json" else raw[8 : 8 + int.from_bytes(raw[:8], "little")])


def test_a_disk_that_cannot_hold_the_checkpoints_is_told_before_the_first_step(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = changed(CASES["full"], checkpointing_steps=2, checkpoints_total_limit=2)
    run = trainer(case, pictures, tmp_path / "run")
    run.step()
    size = sum(path.stat().st_size for path in run.save().glob("*.safetensors"))  # type: ignore[union-attr]
    told = shutil.disk_usage(tmp_path)

    def room(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: told._replace(free=free))

    fresh = trainer(case, pictures, tmp_path / "fresh")
    room(int(2.9 * size))
    with pytest.raises(StorageError, match=r"the disk is too full: [\d,]+ bytes are free, and this run.*take [\d,]+\.") as caught:
        fresh.fit()
    assert caught.value.exit_code == 5 and fresh.done == 0 and "checkpoints_total_limit=1" in caught.value.line()
    room(int(3.4 * size))
    fresh.fit()
    room(int(0.1 * size))
    again = trainer(case, pictures, tmp_path / "fresh")
    again.resume()
    again.fit()  # what is finished needs no room
