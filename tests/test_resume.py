"""A resumed run is the same run: equal bytes, wherever it was stopped; and whatever is broken is passed over or refused, by name."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import toyruns
from fragile import Fragile
from hf_diffusion_kit.errors import CheckpointError, DivergedError, Stopped
from hf_diffusion_kit.methods import METHODS
from hf_diffusion_kit.recipe import BaseSettings, Recipe
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training import optimizers
from hf_diffusion_kit.training import trainer as trainers
from hf_diffusion_kit.training.checkpoint import Checkpoint
from hf_diffusion_kit.training.trainer import Trainer
from hf_diffusion_kit.watch import Watch
from toyruns import CASES, Case, Pictures, differences, saved, state, trainer

LORA = replace(CASES["lora"], changes={"checkpoints_total_limit": 2})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures.made(tmp_path_factory.mktemp("pictures"))


def test_every_method_and_optimizer_is_tried() -> None:
    assert {type(case.method) for case in CASES.values()} == set(METHODS.values())
    assert {case.settings.optimizer for case in CASES.values()} == optimizers.BUILDERS.keys()
    assert {case.settings.mixed_precision for case in CASES.values()} == {"no", "bf16", "fp16"}


@pytest.mark.parametrize("name", CASES)
def test_resumed_after_any_step_the_state_is_the_same_bytes(name: str, pictures: Pictures, tmp_path: Path) -> None:
    """In the middle of an epoch, and before, at and after a stage's edge. What is equal in all its state goes on alike."""
    case = CASES[name]
    if (package := optimizers.EXTRAS.get(case.settings.optimizer)) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    whole, states = trainer(case, pictures), {}
    for _ in whole:
        states[whole.done] = state(whole)
        if whole.done in case.stops:
            saved(whole, tmp_path / str(whole.done))
        if whole.done > max(4, *case.stops) and name != "lora":
            break
    assert states[1]["losses"] != states[2]["losses"]
    for stop in case.stops:
        run = trainer(case, pictures, tmp_path / str(stop))
        assert run.resume() == stop
        assert not differences(state(run), states[stop])
        while run.done < (max(states) if name == "lora" else max(4, stop + 1) if case.stops == toyruns.EDGE else stop + 1):
            run.step()
            assert not differences(state(run), states[run.done]), f"resumed at {stop}, after step {run.done}"


def test_another_seed_is_another_run(pictures: Pictures) -> None:
    one, other = (trainer(replace(LORA, changes={"seed": seed}), pictures) for seed in (0, 1))
    one.step()
    other.step()
    assert {"losses", "ledger"} < set(differences(state(one), state(other)))


@pytest.mark.parametrize("name", ["full", "schedulefree"])
def test_to_save_and_to_look_changes_nothing(name: str, pictures: Pictures, tmp_path: Path) -> None:
    case = replace(CASES[name], changes={**CASES[name].changes, "steps": 3, "validation_share": 0.2})
    quiet, watched = trainer(case, pictures), trainer(case, pictures, tmp_path)
    quiet.fill()
    while watched.done < 3:
        quiet.step()
        watched.batch(0)
        watched.step()
        watched.save()
        watched.measure()
        watched.batch(0)
        with watched.shown():
            watched.notes()
    assert not differences(state(quiet), state(watched))


def test_fp16_goes_on_with_its_scale_and_what_it_skipped(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "FIRST_SCALE", 2.0**25)
    whole, states = trainer(CASES["fp16"], pictures), {}
    for _ in whole:
        states[whole.done] = state(whole)
        saved(whole, tmp_path / str(whole.done))
    assert 1 <= whole.skipped < 6 and whole.bad_in_a_row == 0
    monkeypatch.undo()
    for stop in (1, whole.skipped + 1):
        run = trainer(CASES["fp16"], pictures, tmp_path / str(stop))
        run.resume()
        run.fit()
        assert not differences(state(run), states[6])


# Validation, the best, an early end

HELD = Case(
    LORA.method,
    {
        **{"steps": 40, "learning_rate": 0.1, "lr_scheduler": "constant", "validation_share": 0.2, "validation_steps": 2},
        **{"early_stop": 2, "checkpointing_steps": 4, "checkpoints_total_limit": 1, "sample_steps": 0, "report_to": ("none",)},
    },
)


def watched(pictures: Pictures, folder: Path) -> tuple[Trainer, list[str]]:
    heard: list[str] = []
    run = trainer(HELD, pictures, folder, say=heard.append)
    run.resume()
    Watch(run, Recipe(BaseSettings("toy"), HELD.method, HELD.settings), folder, [], [], say=heard.append)
    return run, heard


def test_an_early_end_and_the_best_weights_are_the_same_wherever_it_was_stopped(pictures: Pictures, tmp_path: Path) -> None:
    whole, heard = watched(pictures, tmp_path / "whole")
    steps: list[int] = []

    def copy(run: Trainer) -> None:
        steps.append(run.done)
        shutil.copytree(run.folder or tmp_path, tmp_path / str(run.done))  # what a kill would leave

    whole.after_step.append(copy)
    whole.fit()
    best = min(whole.validations, key=lambda pair: pair[1])[0]
    assert (
        whole.ended_early
        and best == whole.done - 4
        and heard == [f"given out: the weights of step {best}, the best by the held-out pictures"]
    )
    for folder in ("5", str(best), str(whole.done), "whole"):
        run, said = watched(pictures, tmp_path / folder)
        assert run.done == (whole.done if folder == "whole" else (int(folder) - 1) // 4 * 4)
        run.fit()
        assert not differences(state(run), state(whole)) and said == heard
        assert (run.done, run.validations, run.ended_early) == (whole.done, whole.validations, True)


def test_a_run_that_goes_back_gives_out_no_weights_of_a_future_that_did_not_come(pictures: Pictures, tmp_path: Path) -> None:
    run, _ = watched(pictures, tmp_path)
    run.after_step.append(lambda run: run.validations.__setitem__(-1, (run.done, 10.0 - run.done)) if run.done % 2 == 0 else None)
    while run.done < 6:
        run.step()
        for watch in run.after_step:
            watch(run)
        if run.done == 4:
            run.save()
    assert checkpoints.steps_in(tmp_path / "best") == [4, 6]
    back, heard = watched(pictures, tmp_path)
    assert back.done == 4 and checkpoints.steps_in(tmp_path / "best") == [4]
    shutil.rmtree(tmp_path / "best")
    back.give_out()
    assert heard == [
        "the best weights, those of step 4, cannot be given out, and the last ones are: checkpoint-000004: it has no manifest.json"
    ]


# What is broken


def made(step: int) -> Checkpoint:
    values = {"unet.a": torch.arange(40.0) + step, "unet.b": torch.full((3, 5), float(step))}
    return Checkpoint(step, values, {"unet.a.step": torch.tensor(float(step))}, {"losses": [0.5] * step}, values)


def same(found: Checkpoint | None, step: int) -> bool:
    told = made(step)
    return (
        found is not None
        and (found.step, found.state) == (step, told.state)
        and all(
            torch.equal(value, getattr(found, kind)[name])
            for kind in ("weights", "optimizer", "ema")
            for name, value in getattr(told, kind).items()
        )
    )


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
        (lambda folder: flip(folder / "ema.safetensors"), "ema.safetensors is not what was written"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_bytes(b""), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format": "x", "files": [1]}'),
            "does not name weights.safetensors",
        ),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 1, "files": {}}'), "does not name weights.safetensors"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "it has no manifest.json"),
    ],
)
def test_a_broken_checkpoint_is_passed_over_by_name(harm: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    for step in (2, 3):
        checkpoints.save(tmp_path, made(step), keep=2)
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-000009").write_text("a file")
    harm(tmp_path / "checkpoint-000003")
    heard: list[str] = []
    assert same(checkpoints.newest(tmp_path, heard.append), 2)
    assert len(heard) == 1 and heard[0].startswith("checkpoint-000003 passed over: ") and said in heard[0]


def test_none_valid_is_an_error_and_none_at_all_is_a_start(pictures: Pictures, tmp_path: Path) -> None:
    assert trainer(LORA, pictures, tmp_path / "new").resume() == 0
    checkpoints.save(tmp_path, made(1), keep=2)
    flip(tmp_path / "checkpoint-000001" / "weights.safetensors")
    heard: list[str] = []
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        checkpoints.newest(tmp_path, heard.append)
    assert len(heard) == 1 and "passed over" in heard[0]


def test_old_checkpoints_go_and_the_newest_stay(tmp_path: Path) -> None:
    for step in range(1, 5):
        checkpoints.save(tmp_path, made(step), keep=2)
    assert checkpoints.steps_in(tmp_path) == [3, 4]
    assert not list(tmp_path.glob(".tmp-*"))


class Died(BaseException):
    pass


def die() -> None:
    raise Died


def save_of_three(folder: Path, at: int, power_cut: bool) -> list[str]:
    """What the save of step 3, the third of two that are kept, does to the disk up to its death."""
    for step in (1, 2):
        checkpoints.save(folder, made(step), keep=2)
    with pytest.MonkeyPatch.context() as patch:
        disk = Fragile(patch, at, die, power_cut=power_cut)
        if at:
            with pytest.raises(Died):
                checkpoints.save(folder, made(3), keep=2)
        else:
            checkpoints.save(folder, made(3), keep=2)
    return disk.told


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power cut"])
def test_a_save_that_ends_anywhere_leaves_the_newest_finished_checkpoint(power_cut: bool, tmp_path: Path) -> None:
    all_of_it = save_of_three(tmp_path / "whole", 0, power_cut)
    renamed, durable = all_of_it.index("rename .tmp-checkpoint-000003"), all_of_it.index("sync whole")
    assert len(all_of_it) > 25 and "remove half of checkpoint-000001" in all_of_it[durable:]
    for at in range(1, len(all_of_it) + 1):
        folder = tmp_path / str(at)
        save_of_three(folder, at, power_cut)
        heard: list[str] = []
        found = checkpoints.newest(folder, heard.append)
        assert same(found, 3 if at > (durable + 1 if power_cut else renamed + 1) else 2), (at, all_of_it[at - 1])
        assert not heard, "what is not whole has no name that a checkpoint has"
        checkpoints.save(folder, made(3), keep=2)
        checkpoints.save(folder, made(4), keep=2)
        assert same(checkpoints.newest(folder, heard.append), 4) and not heard
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-000003", "checkpoint-000004"]


# What is refused


def test_a_changed_setting_is_refused_unless_it_is_named(pictures: Pictures, tmp_path: Path) -> None:
    run = trainer(LORA, pictures)
    run.step()
    saved(run, tmp_path)
    changed = replace(LORA, changes={"learning_rate": 5e-3})
    with pytest.raises(CheckpointError, match=r"training\.learning_rate: 0\.01 -> 0\.005"):
        trainer(changed, pictures, tmp_path).resume()
    with pytest.raises(CheckpointError, match="data: "):
        trainer(LORA, replace(pictures, plain=pictures.classes), tmp_path).resume()
    assert trainer(changed, pictures, tmp_path).resume(allow=["training.learning_rate"]) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_tells_the_exit_code(
    number: signal.Signals, pictures: Pictures, tmp_path: Path
) -> None:
    run = trainer(LORA, pictures, tmp_path)
    step = run.step
    run.step = lambda: (os.kill(os.getpid(), number) if run.done == 2 else None, step())[1]  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run.fit()
    assert stopped.value.exit_code == 128 + number
    assert checkpoints.steps_in(tmp_path) == [3]
    assert signal.getsignal(number) is before


def test_no_finite_loss_ends_the_run_and_leaves_the_last_good_state(pictures: Pictures, tmp_path: Path) -> None:
    run = trainer(replace(LORA, changes={"steps": 20}), pictures, tmp_path)
    run.step()
    run.save()
    good = state(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.method), "loss", lambda *_: sum(p.sum() for p in run.weights.values()) * float("nan"))
        with pytest.raises(DivergedError, match="no finite loss in 5 steps") as caught:
            run.fit()
    assert caught.value.exit_code == 7 and run.skipped == 5 and checkpoints.steps_in(tmp_path) == [1]
    assert set(differences(good, state(run))) == {"losses", "skipped", "bad_in_a_row", "step", "rates", "ledger", "ledger lines"}
