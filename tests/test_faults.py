"""What can go wrong in a run ends in one line with a fixed exit code, and what was learnt before is still there.

The cases of facts/reliability.md, section 5, and where each is held:

    TRAIN-1   weights that get no gradient            test_faults::test_weights_that_get_no_gradient_are_found_in_the_first_step
    TRAIN-1   words that no caption holds             test_faults::test_a_caption_that_is_dropped_in_the_first_step_is_no_fault
    TRAIN-2   memory used up                          test_faults::test_memory_that_ends_is_one_line_and_what_was_learnt_is_saved
    TRAIN-2   memory used up elsewhere                test_faults::test_what_means_that_memory_ended
    TRAIN-3   another rate, rank, length, batch ...   test_faults::test_a_resumed_run_is_told_what_is_not_as_it_was
    TRAIN-3   other data                              test_resume::test_a_changed_setting_is_refused_unless_it_is_named
    TRAIN-4   a finished run                          test_faults::test_a_finished_run_takes_no_step
    TRAIN-4   a run that ended early                  test_resume::test_an_early_end_and_the_best_weights_are_the_same_wherever_it_was_stopped
    TRAIN-5   more in a batch than there are          test_faults::test_so_many_steps_as_were_asked_for_whatever_the_batch
    TRAIN-6   a loader's worker that dies             there are none: encodings are kept, and a batch is a function of its step
    TRAIN-7   class pictures that are the subject's   test_faults::test_class_pictures_that_are_the_subjects_own_are_refused
    TRAIN-7   fewer class pictures than asked for     test_faults::test_fewer_class_pictures_than_asked_for_are_drawn_or_said
    TRAIN-8   two runs in one folder                  test_run::test_two_runs_do_not_share_a_folder
    TRAIN-8   a lock whose owner was killed           test_checkpoints::test_a_folder_is_free_again_when_its_run_was_killed
    CKPT-1    a newest checkpoint that is broken      test_resume::test_a_broken_checkpoint_is_passed_over_by_name
    CKPT-1    none that is valid                      test_resume::test_none_valid_is_an_error_and_none_at_all_is_a_start
    CKPT-2    old ones go                             test_resume::test_old_checkpoints_go_and_the_newest_stay
    CKPT-2    the new one is looked at first          test_checkpoints::test_the_old_one_stays_until_the_new_one_has_been_read_back
    CKPT-2    the best stays                          test_resume::test_a_run_that_goes_back_gives_out_no_weights_of_a_future_that_did_not_come
    CKPT-2    a limit of 0 or less                    test_checkpoints::test_a_limit_that_would_keep_none_is_refused
    CKPT-3    no folder can be made there             test_checkpoints::test_a_place_where_nothing_can_be_written_is_found_before_the_first_step
    CKPT-3    the folder is removed in mid-run        test_checkpoints::test_a_folder_that_is_removed_in_mid_run_is_made_again
    CKPT-4    another format's version                test_checkpoints::test_a_newer_format_is_not_written_over

and the rules of section 4 that a run has to keep:

    1   one rename, newest valid wins                 test_resume::test_a_save_that_ends_anywhere_leaves_the_newest_finished_checkpoint
    2   safetensors and JSON, no pickle               test_checkpoints::test_a_checkpoint_holds_no_pickle
    3   all randomness is a function of the step      test_resume::test_resumed_after_any_step_the_state_is_the_same_bytes
    4   old -> new                                    test_faults::test_a_resumed_run_is_told_what_is_not_as_it_was
    5   the first signal saves                        test_resume::test_a_signal_saves_after_the_step_and_tells_the_exit_code
    5   the second one ends at once                   test_faults::test_a_second_signal_ends_at_once
    6   never NaN over good weights                   test_faults::test_weights_that_are_not_finite_are_never_saved
    6   a bad step changes nothing                    test_faults::test_a_step_that_is_not_finite_changes_nothing_and_is_counted
    6   and many of them end the run                  test_resume::test_no_finite_loss_ends_the_run_and_leaves_the_last_good_state
    7   room for the checkpoints                      test_checkpoints::test_a_disk_that_cannot_hold_the_checkpoints_is_told_before_the_first_step

Kills, disks that fill up and every single step are in test_kills and test_exact, which are slow.
"""

import json
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny
import toyset
from hf_diffusion_kit import DreamBoothTrainer, job, load_captioned
from hf_diffusion_kit.class_pictures import class_pictures
from hf_diffusion_kit.errors import CheckpointError, ConfigError, ModelError
from hf_diffusion_kit.evaluation import Shot
from hf_diffusion_kit.methods import DreamBooth, Lora
from hf_diffusion_kit.training.shortage import memory_ended
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


def test_every_test_that_is_named_above_is_there() -> None:
    named = re.findall(r"(test_\w+)::(test_\w+)", str(__doc__))
    here = Path(__file__).parent
    gone = [f"{file}::{test}" for file, test in named if f"\ndef {test}(" not in (here / f"{file}.py").read_text()]
    assert not gone and len(named) > 25


# Steps that go wrong


def test_weights_that_get_no_gradient_are_found_in_the_first_step(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(LORA, pictures, tmp_path)
    elsewhere = torch.ones((), requires_grad=True)  # what the loss hangs on is not what the optimizer was given
    monkeypatch.setattr(Lora, "loss", lambda *_: elsewhere * 2)
    with pytest.raises(ModelError, match=r"^method: targets: no trained weight has a gradient after the first step\.$") as caught:
        run.fit()
    assert caught.value.exit_code == 4 and not list(tmp_path.iterdir())


def test_a_caption_that_is_dropped_in_the_first_step_is_no_fault(pictures: Pictures) -> None:
    run = trainer(changed(CASES["word"], caption_dropout=1.0), pictures)
    run.step()
    assert run.done == 1 and {use.text for use in run.ledger()} == {""}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    value: str, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(changed(CASES["full"], batch_size=1), pictures)
    run.step()
    before = state(run)
    with monkeypatch.context() as patch:
        patch.setattr(type(run.method), "loss", lambda *_: sum(p.sum() for p in run.weights.values()) * float(value))
        run.step()
    told = {"losses", "skipped", "bad_in_a_row", "step", "rates", "ledger", "ledger lines"}
    assert (run.skipped, run.bad_in_a_row) == (1, 1) and set(differences(before, state(run))) <= told
    assert json.loads(state(run)["losses"])[1] is None, "as JSON has it"
    run.step()
    assert (run.skipped, run.bad_in_a_row) == (1, 0)
    assert any("1 steps had no finite loss or gradient and changed nothing" in note for note in run.notes())


def test_weights_that_are_not_finite_are_never_saved(pictures: Pictures, tmp_path: Path) -> None:
    run = trainer(LORA, pictures, tmp_path)
    run.step()
    run.save()
    with torch.no_grad():
        next(iter(run.weights.values()))[0] = float("nan")
    run.done = 2
    with pytest.raises(ModelError, match=r"1 trained weights are not finite \(.*\); nothing was saved") as caught:
        run.save()
    assert caught.value.exit_code == 4 and [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001"]


@pytest.mark.parametrize("micro", [0, 1])
def test_memory_that_ends_is_one_line_and_what_was_learnt_is_saved(
    micro: int, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the third step, with its first and with its second batch; what is resumed is the run that never ended."""
    case = changed(CASES["dreambooth"], gradient_accumulation_steps=2, batch_size=2, steps=4)
    whole = trainer(case, pictures)
    whole.fit()
    run, calls, loss = trainer(case, pictures, tmp_path), [0], DreamBooth.loss

    def ends(*told: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5 + micro:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return loss(*told)

    monkeypatch.setattr(DreamBooth, "loss", ends)
    with pytest.raises(ModelError) as caught:
        run.fit()
    line = caught.value.line()
    assert caught.value.exit_code == 4 and "\n" not in line and calls[0] == 5 + micro, "nothing is tried again"
    assert "the device's memory is used up in step 3; saved as checkpoint-000002. Fix: hfdk resume with one or more of" in line
    assert len(re.findall(r"(training|method)\.\w+", line)) >= 4 and "training.batch_size=1" in line
    resumed = trainer(case, pictures, tmp_path)
    assert resumed.resume() == 2
    resumed.fit()
    assert not differences(state(resumed), state(whole))


def test_what_means_that_memory_ended(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert memory_ended(caught.value) and memory_ended(MemoryError()) and memory_ended(torch.OutOfMemoryError("x"))
    assert not memory_ended(RuntimeError("shapes do not match"))
    with pytest.raises(ModelError, match=r"the device's memory is used up\. Fix: training\.batch_size=1"), job.one_line(tmp_path):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="shapes"), job.one_line(tmp_path):
        raise RuntimeError("shapes do not match")


def test_a_second_signal_ends_at_once(pictures: Pictures, tmp_path: Path) -> None:
    run = trainer(LORA, pictures, tmp_path)

    def twice() -> float:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it did not end")

    run.step = twice  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# How long it is, and when it has ended


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 1), (4, 1), (5, 1), (7, 2), (3, 8)])
def test_so_many_steps_as_were_asked_for_whatever_the_batch(batch: int, accumulation: int, pictures: Pictures) -> None:
    """Of five pictures. A batch runs on over the end of an epoch: each is full, and no picture comes before its turn."""
    case = changed(LORA, steps=3, batch_size=batch, gradient_accumulation_steps=accumulation, caption_dropout=0.0)
    run = trainer(case, pictures)
    run.fit()
    seen = Counter({row["image_id"]: 0 for row in run.loader.rows})
    for use in run.ledger():
        seen[use.image_id] += use.times
    shown = 3 * batch * accumulation
    assert run.done == len(run.losses) == 3 and sum(seen.values()) == shown
    assert len(seen) == 5 and set(seen.values()) <= {shown // 5, -(-shown // 5)}


def test_a_finished_run_takes_no_step(pictures: Pictures, tmp_path: Path) -> None:
    case = changed(LORA, steps=2)
    run = trainer(case, pictures, tmp_path)
    run.fit()
    done, written = state(run), (tmp_path / "checkpoint-000002" / "manifest.json").stat().st_mtime_ns
    again = trainer(case, pictures, tmp_path)
    assert again.resume() == 2
    again.step = lambda: pytest.fail("it took a step")  # type: ignore[method-assign]
    again.fit()
    assert not differences(state(again), done) and list(again) == []
    assert (tmp_path / "checkpoint-000002" / "manifest.json").stat().st_mtime_ns == written
    longer = trainer(changed(case, steps=3), pictures, tmp_path)
    with pytest.raises(CheckpointError, match=r"training\.steps: 2 -> 3"):
        longer.resume()
    assert longer.resume(allow=["training.steps"]) == 2 and len(longer.fit()) == 3


@pytest.mark.parametrize(
    ("changes", "method", "said"),
    [
        ({"learning_rate": 5e-3}, {}, "training.learning_rate: 0.01 -> 0.005"),
        ({"steps": 7}, {}, "training.steps: 6 -> 7"),
        ({"batch_size": 3}, {}, "pictures a step: 1 -> 3"),
        ({"gradient_accumulation_steps": 2}, {}, "training.gradient_accumulation_steps: 1 -> 2"),
        ({"seed": 1}, {}, "training.seed: 0 -> 1"),
        ({"optimizer": "adafactor"}, {}, "training.optimizer: adamw -> adafactor"),
        ({"resolution": (16, 16)}, {}, "training.resolution: [16, 24] -> [16, 16]"),
        ({"mixed_precision": "bf16"}, {}, "training.mixed_precision: no -> bf16"),
        ({"lr_scheduler": "linear"}, {}, "training.lr_scheduler: cosine -> linear"),
        ({"validation_share": 0.2}, {}, "training.validation_share: 0.0 -> 0.2"),
        ({}, {"rank": 3}, "method.rank: 2 -> 3"),
        ({}, {"text_encoder": True}, "method.text_encoder: False -> True"),
    ],
)
def test_a_resumed_run_is_told_what_is_not_as_it_was(
    changes: dict[str, Any], method: dict[str, Any], said: str, pictures: Pictures, once: Path
) -> None:
    other = replace(changed(LORA, **changes), method=replace(LORA.method, **method))
    run = trainer(other, pictures, once)
    before = state(run)
    with pytest.raises(CheckpointError) as caught:
        run.resume()
    assert caught.value.exit_code == 4 and said in str(caught.value) and "--allow-change" in str(caught.value)
    assert not differences(state(run), before)
    if method:  # it cannot be done even if it is allowed
        with pytest.raises(CheckpointError, match="holds other weights than this method trains"):
            run.resume(allow=[said.split(":")[0]])


@pytest.fixture(scope="module")
def once(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    run = trainer(LORA, pictures)
    run.step()
    return saved(run, tmp_path_factory.mktemp("once"))


def test_what_changes_no_weight_may_be_another(pictures: Pictures, once: Path) -> None:
    free = {
        "checkpointing_steps": 3,
        "checkpoints_total_limit": 1,
        "sample_steps": 0,
        "report_to": ("none",),
        "disk_cache": False,
    }
    heard: list[str] = []
    assert trainer(changed(LORA, **free), pictures, once, say=heard.append).resume() == 1 and not heard
    with pytest.raises(
        ConfigError, match=r"--allow-change training\.sead: is no setting of this run; did you mean 'training\.seed'"
    ):
        trainer(LORA, pictures, once).resume(allow=["training.sead"])


# Class pictures


def told(method: DreamBooth, path: Path | None, heard: list[str]) -> Any:
    recipe = SimpleNamespace(method=method, data=SimpleNamespace(class_path=path and str(path)))
    return SimpleNamespace(recipe=recipe, say=heard.append)


def test_class_pictures_that_are_the_subjects_own_are_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "p2.png").unlink()
    (copied / "metadata.jsonl").write_text("".join(f'{{"file_name": "p{i}.png", "text": "a dog"}}\n' for i in range(2)))
    rows = load_captioned(folder)
    with pytest.raises(ConfigError, match="class_path: holds the very pictures that are to be learnt") as caught:
        DreamBoothTrainer(str(base), out=tmp_path / "run", **SMALL).fit(
            folder, class_data=folder, say=lambda _: None, progress=False
        )
    assert caught.value.exit_code == 2 and not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(ConfigError, match="the very pictures"):
        job.told_apart(told(DreamBooth(), copied, []), load_captioned(copied), rows)
    heard: list[str] = []
    mixed = toyset.folder(tmp_path / "five", count=5)
    (mixed / "p0.png").write_bytes((mixed / "p4.png").read_bytes())
    job.told_apart(told(DreamBooth(class_count=5), mixed, heard), rows, load_captioned(mixed))
    assert heard == ["data: class_path: 2 of 4 class pictures are also among those to be learnt"]


def test_fewer_class_pictures_than_asked_for_are_drawn_or_said(folder: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    few = toyset.folder(tmp_path / "few", count=2, size=(40, 40))
    rows = job.class_rows(told(DreamBooth(class_count=6), few, heard), None, load_captioned(folder))  # type: ignore[arg-type]
    assert rows is not None and len(rows) == 2
    assert heard == ["data: class_path: 2 class pictures, fewer than class_count = 6; each is shown more often"]
    shots = [Shot("a dog", seed, 1, 1.0, (16, 16)) for seed in range(3)]
    drawn: Callable[[], Any] = lambda: class_pictures(tiny.pipeline(), shots, tmp_path / "made", base="toy", progress=False)  # noqa: E731
    whole = drawn()
    (place,) = (tmp_path / "made").iterdir()
    (place / "0001.png").unlink()
    assert drawn().fingerprint == whole.fingerprint and len(list(place.glob("*.png"))) == 3
    assert [path.name for path in (tmp_path / "made").iterdir()] == [place.name]
