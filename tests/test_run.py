"""The README's promise, whole, on toys: captioned pictures in, a verified and published adapter out, and nothing in silence."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

import pictured
import tiny
import toyset
from hf_diffusion_kit import DreamBoothTrainer, LoraTrainer, Run, job, load_captioned
from hf_diffusion_kit.errors import ConfigError, HubError, ModelError, SourceError, Stopped, StorageError
from hf_diffusion_kit.job import train
from hf_diffusion_kit.testing import LocalHub

SMALL = {"rank": 2, "steps": 4, "learning_rate": 1e-2, "resolution": (tiny.HEIGHT, tiny.WIDTH), "pictures": 2, "license": "mit"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-base"
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toyset.folder(tmp_path_factory.mktemp("pictures") / "mine")


@pytest.fixture(scope="module")
def run(base: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "first"
    return LoraTrainer(str(base), out=out, **SMALL).fit(load_captioned(pictures), say=lambda _: None, progress=False)


def test_the_ledger_says_what_the_model_was_given(run: Run) -> None:
    uses = run.record.captions
    told = {(use.file_name, use.text) for use in uses}
    assert sum(use.times for use in uses) == run.record.samples == 4
    for file_name, text in told:
        colour = toyset.COLOURS[int(file_name[1])]
        assert text in (f"a {colour}", f"b {colour}"), "a caption was given to a picture that is not its own"
    assert all(use.tokens > 2 and use.tokens_cut == 0 for use in uses)
    assert any("1 of 5 pictures were not reached" in note for note in run.record.notes)


def test_rows_without_pixels_are_refused_before_anything_is_made(base: Path, tmp_path: Path) -> None:
    notes = pictured.coco(tmp_path / "set") / "annotations"
    data = load_captioned("coco", annotations=notes, pixels="none")
    for given in (data, data.save(tmp_path / "saved")):
        with pytest.raises(SourceError, match="addresses of its pictures, not their pixels") as caught:
            LoraTrainer(str(base), out=tmp_path / "run", **SMALL).fit(given, say=lambda _: None, progress=False)
        assert "\n" not in caught.value.line() and not (tmp_path / "run").exists()


def test_what_the_doctor_cannot_read_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise SourceError("cannot be read", where="row 3")

    monkeypatch.setattr(job, "check", refuse)
    monkeypatch.setattr(job, "training_size", lambda *_: (32, 32))
    said: list[str] = []
    told: Any = SimpleNamespace(recipe=SimpleNamespace(training=None), progress=False, say=said.append)
    family: Any = SimpleNamespace(lengths=lambda: {"tokenizer": 77})
    job.examine(told, family, None)  # type: ignore[arg-type]
    assert len(said) == 1 and said[0].startswith("data: the doctor could not look: ") and "row 3" in said[0]


def test_the_record_explains_the_run(run: Run) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    assert record["steps"] == 4 and record["family"] == "sd1" and record["method"] == "lora"
    assert record["verified"][0]["max_difference"] == 0
    assert record["weights"][0]["file"] == "pytorch_lora_weights.safetensors"
    assert record["base_model"]["id"] == "toy-base" and len(record["base_model"]["sha256"]) == 3
    assert "cropped" in " ".join(record["notes"]) or "enlarged" in " ".join(record["notes"])
    assert {"run.toml", "run.json", "images", "checkpoint-000004", "pytorch_lora_weights.safetensors"} <= {
        path.name for path in run.folder.iterdir()
    }
    assert sorted(path.name for path in (run.folder / "images").iterdir()) == [
        "00-before.png",
        "00.png",
        "01-before.png",
        "01.png",
        "before_after.png",
        "loss.png",
        "progress.png",
        "samples",
    ]


def test_what_is_published_holds_no_path_of_this_machine(run: Run, tmp_path: Path, online: None) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        pushed = run.publish("you/first-lora", hub=hub.endpoint, token=hub.token, say=lambda _: None)
        code = (
            "import sys, pathlib\nfrom huggingface_hub import snapshot_download\n"
            "print(snapshot_download('you/first-lora', revision=sys.argv[1]))\n"
            "assert not any(n.startswith('hf_diffusion_kit') for n in sys.modules)"
        )
        environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code, pushed.oid], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        again = run.publish("you/first-lora", hub=hub.endpoint, token=hub.token, say=lambda _: None)
    got = Path(done.stdout.strip())
    names = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}
    assert {"README.md", "run.json", "pytorch_lora_weights.safetensors", "images/00.png", "images/before_after.png"} <= names
    assert not any(name.startswith(("checkpoint", "run.toml", ".lock")) for name in names)
    for path in got.rglob("*"):
        assert path.is_dir() or str(run.folder.parent).encode() not in path.read_bytes()
    assert pushed.verified and pushed.changed and not again.changed
    assert (got / "pytorch_lora_weights.safetensors").read_bytes() == (
        run.folder / "pytorch_lora_weights.safetensors"
    ).read_bytes()


def test_the_same_run_again_gives_the_same_file(run: Run, base: Path, pictures: Path, tmp_path: Path) -> None:
    again = LoraTrainer(str(base), out=tmp_path / "again", **SMALL).fit(pictures, say=lambda _: None, progress=False)
    assert again.record.weights[0].sha256 == run.record.weights[0].sha256
    assert Run.open(again.folder).evaluate() == {"images/00.png": 0.0, "images/01.png": 0.0}


def test_a_run_is_not_written_over(run: Run, base: Path, pictures: Path) -> None:
    trainer = LoraTrainer(str(base), out=run.folder, **SMALL)
    with pytest.raises(StorageError, match=r"holds a run already.*hfdk resume"):
        trainer.fit(pictures, say=lambda _: None, progress=False)
    heard: list[str] = []
    assert trainer.fit(pictures, resume=True, say=heard.append, progress=False).record.weights == run.record.weights
    assert "already at 4/4" in heard


def test_dreambooth_makes_its_class_pictures_once(base: Path, pictures: Path, tmp_path: Path) -> None:
    told: dict[str, Any] = {**SMALL, "class_prompts": ["a cat", "a dog"], "class_count": 5, "guidance": 1.0, "steps": 2}
    one = DreamBoothTrainer(str(base), out=tmp_path / "one", **told).fit(pictures, say=lambda _: None, progress=False)
    folders = list((tmp_path / "one" / "class_images").iterdir())
    assert len(folders) == 1 and len(list(folders[0].glob("*.png"))) == 5
    roles = {use.role for use in one.record.captions}
    assert roles == {"instance", "class"}
    assert {use.text for use in one.record.captions if use.role == "class"} <= {"a cat", "a dog"}
    with pytest.raises(ConfigError, match="say what the class is"):
        DreamBoothTrainer(str(base), out=tmp_path / "two", **SMALL).fit(pictures, say=lambda _: None, progress=False)


def test_captions_that_exist_and_would_not_be_used_are_an_error(pictures: Path) -> None:
    with pytest.raises(SourceError, match="caption"):
        load_captioned(pictures, prompt="COCO val")


def test_a_changed_file_is_not_published(run: Run, base: Path, pictures: Path, tmp_path: Path) -> None:
    other = LoraTrainer(str(base), out=tmp_path / "other", **SMALL).fit(pictures, say=lambda _: None, progress=False)
    path = other.folder / "pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match="is not the file that was verified"):
        other.publish("you/x", hub="local")


def test_no_token_is_said_and_never_another_hub_instead(run: Run) -> None:
    with pytest.raises(HubError, match=r"no token to push with.*--hub local"):
        run.publish("you/x")


def test_an_unknown_licence_is_refused(base: Path, pictures: Path, tmp_path: Path) -> None:
    told = {key: value for key, value in SMALL.items() if key != "license"}
    plain = LoraTrainer(str(base), out=tmp_path / "plain", **told).fit(pictures, say=lambda _: None, progress=False)
    with pytest.raises(HubError, match=r"licence of the base toy-base is not known.*--license"):
        plain.publish("you/x", hub="local")


def test_merged_export_opens_without_the_base(run: Run, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    run.export("merged", tmp_path / "merged", say=lambda _: None)
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "merged")).__name__ == "StableDiffusionPipeline"


def test_a_run_started_from_python_is_resumed_by_its_folder(base: Path, pictures: Path, tmp_path: Path) -> None:
    """Its pictures were in memory only, and the base lies under a relative name: both are in the folder's own settings."""
    from hf_diffusion_kit.recipe import Recipe
    from hf_diffusion_kit.training.trainer import Trainer

    out, step = tmp_path / "run", Trainer.step

    def interrupted(self: Trainer) -> float:
        if self.done == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(Stopped, match="saved as checkpoint-000003"):
            LoraTrainer(str(base), out=out, **SMALL).fit(load_captioned(pictures), say=lambda _: None, progress=False)
    heard: list[str] = []
    resumed = train(Recipe.read(out / "run.toml", [], {}), out, resume=True, say=heard.append, progress=False)
    whole = LoraTrainer(str(base), out=tmp_path / "whole", **SMALL).fit(pictures, say=lambda _: None, progress=False)
    assert "resumed at step 3 of 4" in heard
    assert resumed.record.weights[0].sha256 == whole.record.weights[0].sha256
    assert {use.text: use.times for use in resumed.record.captions} == {use.text: use.times for use in whole.record.captions}


def test_the_sheet_that_is_published_names_no_folder(
    base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_diffusion_kit import outcome

    titles: list[str] = []
    draw = outcome.sheet
    monkeypatch.setattr(outcome, "sheet", lambda *a, **k: (titles.append(k["title"]), draw(*a, **k))[1])
    LoraTrainer(str(base), out=tmp_path / "run", **SMALL).fit(pictures, say=lambda _: None, progress=False)
    assert titles == ["toy-base + lora"]


def test_settings_that_nobody_would_read_are_refused(base: Path, pictures: Path, tmp_path: Path) -> None:
    trainer = LoraTrainer(str(base), out=tmp_path / "run", **SMALL)
    with pytest.raises(ConfigError, match="class pictures were given, and lora"):
        trainer.fit(pictures, class_data=pictures, say=lambda _: None, progress=False)
    told: dict[str, Any] = {**SMALL, "class_prompts": ["a cat"]}
    with pytest.raises(ConfigError, match=r"class_prompts: is set beside data\.class_path"):
        DreamBoothTrainer(str(base), out=tmp_path / "run", **told).fit(pictures, class_data=pictures, progress=False)
    with pytest.raises(ConfigError, match=r"base: device: 'cuda:9' is not here; here is: .*cpu"):
        LoraTrainer(str(base), out=tmp_path / "run", device="cuda:9", **SMALL).fit(pictures, progress=False)


def test_two_runs_do_not_share_a_folder(base: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(StorageError, match="another run works in this folder"):
        LoraTrainer(str(base), out=out, **SMALL).fit(pictures, progress=False)


def test_a_full_disk_is_one_line(base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "pytorch_lora_weights.safetensors.part")

    monkeypatch.setattr("hf_diffusion_kit.formats.base.save_file", full)
    out = tmp_path / "run"
    with pytest.raises(StorageError, match=r"safetensors\.part: could not be read or written: No space left.*hfdk resume"):
        LoraTrainer(str(base), out=out, **SMALL).fit(pictures, say=lambda _: None, progress=False)
    monkeypatch.undo()
    heard: list[str] = []
    LoraTrainer(str(base), out=out, **SMALL).fit(pictures, resume=True, say=heard.append, progress=False)
    assert "already at 4/4" in heard


def test_a_trainer_names_the_nearest_setting() -> None:
    with pytest.raises(ConfigError, match="no setting 'lerning_rate'; did you mean 'learning_rate'"):
        LoraTrainer("digits", lerning_rate=1)
