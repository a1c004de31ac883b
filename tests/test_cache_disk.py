"""`hfdk cache`: what is kept of encodings is listed, made smaller by last use, and never taken from under a run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Lora
from hf_diffusion_kit.training import cache_disk, notes
from hf_diffusion_kit.training.cache import Cache, encoded_folder
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path / "hf_diffusion_kit" / "encoded"


def fill(home: Path, base: str, days: list[float]) -> list[Path]:
    """An entry for each, last used so many days ago."""
    cache, paths = Cache(home / base), []
    for number, ago in enumerate(days):
        cache.get((base, number), lambda: {"x": torch.zeros(100)})
        paths.append(cache._path(cache_disk_key(base, number)))
        os.utime(paths[-1], (time.time() - ago * cache_disk.DAY,) * 2)
    return paths


def cache_disk_key(base: str, number: int) -> str:
    from hf_diffusion_kit.training.cache import key_of

    return key_of((base, number))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["cache", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_lists_what_there_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys)["entries"] == 0
    paths = [*fill(home, "one", [50, 2, 0]), *fill(home, "two", [10])]
    size = sum(path.stat().st_size for path in paths)
    found = told(capsys)
    assert (found["folder"], found["entries"], found["bytes"]) == (str(home), 4, size)
    days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * cache_disk.DAY)) for ago in (50, 0)]
    first = found["bases"][0]  # type: ignore[index]
    assert first == {"base": "one", "entries": 3, "bytes": size * 3 // 4, "oldest": days[0], "newest": days[1], "users": 0}
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert "4 encoded pictures or captions, " in out and " of 2 bases in " in out


def test_what_was_not_asked_for_in_so_many_days_goes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, young, other = *fill(home, "one", [50, 2]), *fill(home, "two", [40])
    assert told(capsys, "--older-than", "30")["would_remove"]["entries"] == 2  # type: ignore[index]
    assert old.exists() and other.exists()
    removed = told(capsys, "--prune", "--older-than", "30")["removed"]
    assert removed["entries"] == 2 and removed["left_alone"] == []  # type: ignore[index]
    assert [path.exists() for path in (old, young, other)] == [False, True, False]


def test_the_least_lately_used_go_until_so_much_is_left(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [*fill(home, "one", [5, 1, 3]), *fill(home, "two", [4, 2])]
    size = paths[0].stat().st_size
    Cache(home / "one").get(("one", 0), lambda: {})  # it is asked for again
    assert told(capsys, "--prune", "--max-size", str(3 * size))["removed"]["entries"] == 2  # type: ignore[index]
    assert [path.exists() for path in paths] == [True, True, False, False, True]
    told(capsys, "--prune", "--max-size", "0")
    assert not any(path.exists() for path in paths)


def test_nothing_is_taken_from_a_run_and_what_dead_ones_left_is_no_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = "b" * 40
    fill(home, base[:16], [50, 50])
    used = str(home / base[:16])
    words = f"import pathlib; from hf_diffusion_kit.training.cache_disk import use; use(pathlib.Path({used!r})); print(1, flush=True); input()"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    running = subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert running.stdout is not None and running.stdout.readline() == b"1\n"
    assert told(capsys)["bases"][0]["users"] == 1  # type: ignore[index]
    assert told(capsys, "--prune", "--max-size", "0")["removed"] == {"entries": 0, "bytes": 0, "left_alone": [base[:16]]}
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert len(list((home / base[:16] / "users").iterdir())) == 1
    assert told(capsys, "--prune", "--max-size", "0")["removed"]["entries"] == 2  # type: ignore[index]
    assert not list((home / base[:16] / "users").iterdir())


def test_a_trainer_is_a_user_and_says_when_it_takes_much(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "c" * 40
    data = load_captioned(toyset.folder(tmp_path / "data"))
    settings = TrainSettings(steps=1, resolution=(tiny.HEIGHT, tiny.WIDTH))
    told_trainer = {"identity": {"base": base}, "say": lambda _: None, "progress": False}
    run = Trainer(FAMILIES["sd1"](tiny.pipeline()), Lora(rank=2), settings, data, **told_trainer)  # type: ignore[arg-type]
    run.fit()
    found = told(capsys)
    assert found["bases"][0]["users"] == 1 and found["entries"] == 15  # type: ignore[index]
    assert run.loader.cache.disk_bytes == found["bytes"]
    assert not [note for note in run.notes() if "on disk" in note]
    monkeypatch.setattr(notes, "MUCH", 1)
    assert "what VAE and text encoders said takes 0.0 GB on disk; hfdk cache lists it and makes it smaller" in run.notes()
    again = Trainer(FAMILIES["sd1"](tiny.pipeline()), Lora(rank=2), settings, data, **told_trainer)  # type: ignore[arg-type]
    again.fit()
    assert again.loader.cache.disk_bytes == found["bytes"] and encoded_folder(base).parent == home


@pytest.mark.parametrize(("text", "size"), [("10GB", 1e10), ("1.5 tb", 1.5e12), ("500M", 5e8), ("0", 0), ("12b", 12)])
def test_sizes_are_read(text: str, size: float) -> None:
    assert cache_disk.size_of(text) == size


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prune"], "what is to go?"),
        (["--prune", "--max-size", "much"], "is no size: 'much'"),
        (["--older-than=-1"], "must be 0 or more, got -1.0"),
        (["--older-than", "nan"], "must be 0 or more, got nan"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", *words]) == 2
    assert said in capsys.readouterr().err


def test_no_size_is_less_than_nothing() -> None:
    with pytest.raises(ConfigError, match="is no size"):
        cache_disk.size_of("-1GB")


def test_listing_imports_no_torch(home: Path) -> None:
    code = "import sys; from hf_diffusion_kit.cli import main; main(['cache']); sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode == 0
