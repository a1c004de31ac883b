"""A resumed run is the same run: equal bytes, wherever it was stopped; and whatever is broken is passed over or refused, by name."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit.data import Captioned, load_captioned
from hf_diffusion_kit.errors import CheckpointError, DivergedError, Stopped
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import DreamBooth, Lora, Method
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

SETTINGS = TrainSettings(
    steps=8,
    learning_rate=1e-2,
    batch_size=2,
    gradient_accumulation_steps=2,
    resolution=(tiny.HEIGHT, tiny.WIDTH),
    random_flip=True,
    caption_dropout=0.2,
    lr_scheduler="cosine",
    lr_warmup_steps=2,
    checkpointing_steps=0,
)
METHODS: dict[str, Method] = {
    "lora": Lora(rank=2, dropout=0.1),
    "text": Lora(rank=2, text_encoder=True),
    "dreambooth": DreamBooth(rank=2),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return load_captioned(toyset.folder(tmp_path_factory.mktemp("data") / "five"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return load_captioned(toyset.folder(tmp_path_factory.mktemp("data") / "three", count=3, captions=1))


def trainer(
    method: Method, data: Captioned, classes: Captioned, folder: Path | None, settings: TrainSettings = SETTINGS
) -> Trainer:
    torch.manual_seed(time.time_ns() % 2**31)  # what ran before must not matter
    family = FAMILIES["sd1"](tiny.pipeline())
    return Trainer(family, method, settings, data, class_data=classes, folder=folder, say=lambda _: None, progress=False)


def bits(run: Trainer) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in run.weights.items()}


@pytest.mark.parametrize("name", METHODS)
def test_resumed_after_any_step_the_weights_are_the_same_bytes(
    name: str, data: Captioned, classes: Captioned, tmp_path: Path
) -> None:
    whole = trainer(METHODS[name], data, classes, None)
    whole.fit()
    for stop in (1, 2, 5, 7):  # within the first epoch, at accumulation's edge, in the third
        folder = tmp_path / str(stop)
        first = trainer(METHODS[name], data, classes, folder)
        for _ in range(stop):
            first.step()
        first.save()
        second = trainer(METHODS[name], data, classes, folder)
        assert second.resume() == stop
        second.fit()
        assert bits(second) == bits(whole)
        assert second.losses == whole.losses
        assert second.ledger() == whole.ledger()


def test_another_seed_is_another_run(data: Captioned, classes: Captioned) -> None:
    one, other = (trainer(METHODS["lora"], data, classes, None, replace(SETTINGS, steps=1, seed=seed)) for seed in (0, 1))
    one.step()
    other.step()
    assert bits(one) != bits(other) and one.losses != other.losses


def saved_at(folder: Path, data: Captioned, classes: Captioned, steps: tuple[int, ...]) -> None:
    run = trainer(METHODS["lora"], data, classes, folder)
    for step in range(1, max(steps) + 1):
        run.step()
        if step in steps:
            run.save()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b""), "weights.safetensors has 0 bytes"),
        (lambda folder: cut(folder / "state.json"), "state.json has"),
        (lambda folder: flip(folder / "weights.safetensors"), "weights.safetensors is not what was written"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_a_broken_checkpoint_is_passed_over_by_name(harm, said, data, classes, tmp_path) -> None:  # type: ignore[no-untyped-def]
    saved_at(tmp_path, data, classes, (2, 3))
    (tmp_path / "checkpoint-final").mkdir()
    harm(tmp_path / "checkpoint-000003")
    heard: list[str] = []
    found = checkpoints.newest(tmp_path, heard.append)
    assert found and found.step == 2
    assert heard and heard[0].startswith("checkpoint-000003 passed over: ") and said in heard[0]


def test_none_valid_is_an_error_and_none_at_all_is_a_start(data: Captioned, classes: Captioned, tmp_path: Path) -> None:
    assert trainer(METHODS["lora"], data, classes, tmp_path / "new").resume() == 0
    saved_at(tmp_path, data, classes, (1,))
    flip(tmp_path / "checkpoint-000001" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        trainer(METHODS["lora"], data, classes, tmp_path).resume()


def test_old_checkpoints_go_and_the_newest_stay(data: Captioned, classes: Captioned, tmp_path: Path) -> None:
    saved_at(tmp_path, data, classes, (1, 2, 3, 4))
    assert checkpoints.steps_in(tmp_path) == [3, 4]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_changed_setting_is_refused_unless_it_is_named(data: Captioned, classes: Captioned, tmp_path: Path) -> None:
    saved_at(tmp_path, data, classes, (2,))
    changed = replace(SETTINGS, learning_rate=5e-3)
    with pytest.raises(CheckpointError, match=r"training\.learning_rate: 0\.01 -> 0\.005"):
        trainer(METHODS["lora"], data, classes, tmp_path, changed).resume()
    with pytest.raises(CheckpointError, match="data: "):
        trainer(METHODS["lora"], classes, classes, tmp_path).resume()
    assert trainer(METHODS["lora"], data, classes, tmp_path, changed).resume(allow=["training.learning_rate"]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_tells_the_exit_code(number, data, classes, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = trainer(METHODS["lora"], data, classes, tmp_path)
    step = run.step
    run.step = lambda: (os.kill(os.getpid(), number) if run.done == 2 else None, step())[1]  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run.fit()
    assert stopped.value.exit_code == 128 + number
    assert checkpoints.steps_in(tmp_path) == [3]
    assert signal.getsignal(number) is before


def test_no_finite_loss_ends_the_run_and_leaves_the_last_good_state(data: Captioned, classes: Captioned, tmp_path: Path) -> None:
    saved_at(tmp_path, data, classes, (2,))
    run = trainer(METHODS["lora"], data, classes, tmp_path)
    run.resume()
    good = bits(run)
    run.method = Lora(rank=2)
    object.__setattr__(run.method, "loss", lambda *_: sum(p.sum() for p in run.weights.values()) * float("nan"))
    with pytest.raises(DivergedError, match="no finite loss in 5 steps"):
        run.fit()
    assert bits(run) == good and checkpoints.steps_in(tmp_path) == [2]


KILLED = """
import sys, pathlib, torch
sys.path[:0] = [{tests!r}, {root!r}]
torch.set_num_threads(1)
import test_resume as t
from hf_diffusion_kit.data import load_captioned
data, classes = load_captioned(sys.argv[1]), load_captioned(sys.argv[2])
run = t.trainer(t.METHODS["lora"], data, classes, pathlib.Path(sys.argv[3]), t.replace(t.SETTINGS, steps=10**6, checkpointing_steps=1))
print("ready", flush=True)
run.fit()
"""


def test_kill_9_at_any_moment_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    """Twelve children are killed while they write a checkpoint a step; what is left must be valid and go on."""
    data, classes = toyset.folder(tmp_path / "data"), toyset.folder(tmp_path / "classes", count=3, captions=1)
    here = Path(__file__).parent
    code = KILLED.format(tests=str(here), root=str(here.parent))
    child = subprocess.Popen([sys.executable, "-c", code, str(data), str(classes), str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"ready\n"
    while len(checkpoints.steps_in(tmp_path / "run")) < 2:
        time.sleep(0.01)
    copies = []
    for k in range(12):  # a copy at a random moment is what a kill at that moment leaves, but for the file being copied
        time.sleep(0.013 + 0.007 * k)
        os.kill(child.pid, signal.SIGSTOP)
        copies.append(shutil.copytree(tmp_path / "run", tmp_path / f"left-{k}"))
        os.kill(child.pid, signal.SIGCONT)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    for folder in [*copies, tmp_path / "run"]:
        found = checkpoints.newest(Path(folder), lambda _: None)
        assert found is not None
        assert json.loads((Path(folder) / f"checkpoint-{found.step:06d}" / "state.json").read_text())["step"] == found.step
    rows = load_captioned(data), load_captioned(classes)
    left = trainer(METHODS["lora"], *rows, tmp_path / "run", replace(SETTINGS, steps=10**6, checkpointing_steps=1))
    step = left.resume()
    whole = trainer(METHODS["lora"], *rows, None, replace(SETTINGS, steps=10**6, checkpointing_steps=1))
    for _ in range(step + 2):
        whole.step()
    left.step()
    left.step()
    assert bits(left) == bits(whole)
