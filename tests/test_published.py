"""What a card says under "How to use it" is run as it stands, by stock packages, from the Hub; and nothing is published but what was verified."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
import toyset
from hf_diffusion_kit import Run
from hf_diffusion_kit.cards import front_matter
from hf_diffusion_kit.cards.model_card import LOSS, PROGRESS
from hf_diffusion_kit.cli import export as verb
from hf_diffusion_kit.errors import HubError, ModelError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.hub.rules import card_faults
from hf_diffusion_kit.hub.secrets import scan_file
from hf_diffusion_kit.job import train
from hf_diffusion_kit.methods import METHODS
from hf_diffusion_kit.publish import check, stage_run
from hf_diffusion_kit.recipe import Recipe
from hf_diffusion_kit.testing import LocalHub

pytestmark = pytest.mark.slow

WORDS = {"tokens": ["<dog>", "<toy>"], "vectors": 2}
LOUD = {"learning_rate": 0.05, "token_learning_rate": 2.0}
MEASURED = {"validation_share": 0.4, "validation_steps": 1, "buckets": True, "bucket_step": 8}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lora": ("sd1", {"name": "lora", "rank": 4, "alpha": 8, "text_encoder": True}, {**LOUD, **MEASURED}),
    "loha": ("sd2", {"name": "lora", "adapter": "loha", "rank": 4, "text_encoder": True}, {**LOUD, "zero_terminal_snr": True}),
    "dreambooth": ("sd1", {"name": "dreambooth", "rank": 4, "prior": "base", "class_prompts": ["a cat"]}, LOUD),
    "full": ("sdxl", {"name": "full"}, {"learning_rate": 0.01, "ema_decay": 0.5}),
    "dreambooth-full": (
        "sd1",
        {"name": "dreambooth-full", "text_encoder": True, "prior_weight": 0.0},
        {"learning_rate": 0.01, "text_encoder_steps": 1},
    ),
    "word": ("sdxl", {"name": "textual-inversion", "tokens": ["<dog>"]}, LOUD),
    "words": ("sd1", {"name": "textual-inversion", **WORDS}, {**LOUD, "sample_steps": 0}),
    "pivotal": ("sdxl", {"name": "pivotal", "rank": 4, **WORDS}, LOUD),
}
"""Name -> family, [method], [training]: at least one of each method, all so loud that two steps change the picture."""
READ = """
import sys
from pathlib import Path
from huggingface_hub import constants
for name in sys.argv[1:]:
    exec(compile(Path(f"{name}.py").read_text(), name, "exec"), {})
    Path("picture.png").rename(f"{name}.png")
assert constants.ENDPOINT.startswith("http://127.0.0.1")
assert not [name for name in sys.modules if name.startswith("hf_diffusion_kit")]
"""


def trained(name: str, place: Path) -> Run:
    family, method, training = CASES[name]
    base, pictures = place / "bases" / family, place / "pictures"
    if not base.exists():
        tiny.pipeline(family).save_pretrained(base)
    if not pictures.exists():
        toyset.folder(pictures)
    words = " ".join(method.get("tokens", ()))
    sections = {
        "base": {"id": str(base), "license": "mit"},
        "method": method,
        "training": {
            "steps": 2,
            "resolution": (tiny.HEIGHT, tiny.WIDTH),
            "report_to": ["none"],
            "caption_template": f"{{caption}} {words}",
            **training,
        },
        "data": {"path": str(pictures)},
        "gallery": {"captions": [f"a cat {words}", f"the {words}"], "steps": 2, "guidance": 2.0},
    }
    return train(Recipe.of(sections, where=name), place / "runs" / name, say=lambda _: None, progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    place = tmp_path_factory.mktemp("published")
    return {name: trained(name, place) for name in CASES}


@pytest.fixture(scope="module")
def online_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with pytest.MonkeyPatch.context() as patch, LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture(scope="module")
def published(runs: dict[str, Run], online_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> what lies on the Hub, fetched by nobody we know; `<name>.png` beside it is what the card's snippet drew."""
    for name, run in runs.items():
        pushed = run.publish(f"you/{name}", hub=online_hub.endpoint, token=online_hub.token, say=lambda _: None)
        assert pushed.verified and pushed.changed
    place = next(iter(runs.values())).folder.parent.parent / "bases"  # a stranger's copies of the bases lie where he is
    for name in runs:
        (place / f"{name}.py").write_text(how_to_use(fetched(online_hub, name)))
    environment = {**os.environ, **online_hub.environment(), "HF_HOME": str(tmp_path_factory.mktemp("stranger"))}
    done = subprocess.run(
        [sys.executable, "-c", READ, *runs], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: place / f"{name}.png" for name in runs}


def fetched(hub: LocalHub, name: str) -> str:
    from huggingface_hub import HfApi

    path = HfApi(hub.endpoint, token=hub.token).hf_hub_download(f"you/{name}", "README.md")
    return Path(path).read_text(encoding="utf-8")


def how_to_use(card: str) -> str:
    (found,) = re.findall(r"^```python\n(.*?)\n```$", card, re.MULTILINE | re.DOTALL)
    return str(found)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.int16)


def test_every_method_is_here() -> None:
    assert {method["name"] for _, method, _ in CASES.values()} == set(METHODS)
    assert {family for family, _, _ in CASES.values()} == {name for name, kind in FAMILIES.items() if kind.learns_words}


@pytest.mark.parametrize("name", CASES)
def test_the_snippet_of_the_card_draws_the_first_picture_of_the_gallery(
    name: str, runs: dict[str, Run], published: dict[str, Path]
) -> None:
    shown = runs[name].record.gallery[0]
    drawn, ours = pixels(published[name]), pixels(runs[name].folder / shown.file)
    assert np.abs(drawn - ours).max() <= 1
    assert np.abs(drawn - pixels(runs[name].folder / str(shown.before))).max() > 8, "the training changed nothing"


@pytest.mark.parametrize("name", CASES)
def test_what_is_staged_is_what_was_verified_and_no_more(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    run, stage = runs[name], tmp_path / "stage"
    pages = stage_run(run.record, run.folder, stage)
    staged = {path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()}
    pictures = {picture for shown in run.record.gallery for picture in (shown.file, shown.before)}
    assert staged == {"run.json", *pages, *pictures, *(file.file for file in run.record.weights)}
    assert LOSS in pages and (PROGRESS in pages) == (name != "words")  # which was never looked at
    if FORMATS[run.record.verified[0].format].whole:
        assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"} <= staged
    for path in stage.rglob("*"):
        assert path.is_dir() or str(run.folder.parent.parent).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_the_hub_takes_the_card(name: str, runs: dict[str, Run], published: dict[str, Path], online_hub: LocalHub) -> None:
    card, record = fetched(online_hub, name), runs[name].record
    told = front_matter.read(card)
    assert not card_faults(told) and told["license"] == "mit" and told["pipeline_tag"] == "text-to-image"
    formats = {line.format for line in record.verified}
    assert ("lora" in told["tags"]) == ("template:sd-lora" in told["tags"]) == ("diffusers-lora" in formats)
    assert ("textual_inversion" in told["tags"]) == ("textual-inversion" in formats)
    body = front_matter.split(card)[1].partition("## All settings")[0]
    assert ("adapter" in body.lower()) == bool(formats & {"diffusers-lora", "peft"})
    assert ("from_pretrained(BASE)" in body) == ("pipeline" not in formats)
    assert not re.search(r"None|\{\{|\{%|\n\n\n", body)


def test_the_scheduler_of_a_changed_noise_schedule_is_told(runs: dict[str, Run], published: dict[str, Path]) -> None:
    assert runs["loha"].record.scheduler == {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    code = (published["loha"].with_suffix(".py")).read_text()
    assert "pipe.scheduler = DDIMScheduler.from_config(" in code and "rescale_betas_zero_snr=True" in code
    assert "scheduler" not in published["lora"].with_suffix(".py").read_text()


def test_what_was_held_out_and_how_pictures_were_cut_is_told(
    runs: dict[str, Run], published: dict[str, Path], online_hub: LocalHub
) -> None:
    record, card = runs["lora"].record, fetched(online_hub, "lora")
    assert [step for step, _ in record.validations] == [1, 2] and Run.open(runs["lora"].folder).record == record
    assert f"| held-out loss | {record.validations[0][1]:.4g} at step 1, {record.validations[1][1]:.4g} at step 2 |" in card
    assert record.data.buckets and sum(row["pictures"] for row in record.data.buckets) == 3
    assert (record.data.rows, record.data.held_out) == (5, 2)
    assert "trained on 3 captioned pictures" in card and "Of these 2 were held out: never trained on, only measured." in card
    assert "| height × width | pictures | cut away, on average | at most | enlarged |" in card
    assert not runs["loha"].record.data.buckets and "cut away, on average" not in fetched(online_hub, "loha")


def test_a_part_that_was_not_loaded_back_is_refused(runs: dict[str, Run]) -> None:
    run = runs["pivotal"]
    check(run.record, run.folder)
    with pytest.raises(ModelError, match=r"learned_embeds-dog\.safetensors was never loaded back"):
        check(replace(run.record, verified=run.record.verified[:1]), run.folder)
    nameless = replace(run.record, base_model=replace(run.record.base_model, license=None))
    with pytest.raises(HubError, match="licence of the base sdxl is not known, and what was made of it inherits it"):
        check(nameless, run.folder)


def test_whoever_is_called_like_a_word_may_publish_a_pipeline(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (tmp_path / name).write_text('{"alice</w>": 1}')
        assert not scan_file(tmp_path / name, names=frozenset({"alice"}))
    (tmp_path / "config.json").write_text('{"by": "alice"}')
    assert scan_file(tmp_path / "config.json", names=frozenset({"alice"}))
    (tmp_path / "vocab.json").write_text('{"hf_' + "a" * 34 + '": 1}')
    assert scan_file(tmp_path / "vocab.json")


# Other formats


@pytest.mark.parametrize("name", CASES)
def test_every_method_is_exported_as_one_pipeline(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    run, heard = runs[name], list[str]()
    files = run.export("merged", tmp_path / "merged", say=heard.append)
    assert {path.relative_to(tmp_path / "merged").as_posix() for path in files} >= {"model_index.json", "tokenizer/merges.txt"}
    assert any(line.startswith("verified:") for line in heard)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert bool(pipe.scheduler.config.get("rescale_betas_zero_snr")) == (name == "loha")
    shown = run.record.gallery[0]
    pipe.set_progress_bar_config(disable=True)
    told = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_inference_steps": shown.steps, "guidance_scale": shown.guidance}
    import torch

    drawn = pipe(shown.caption, generator=torch.Generator().manual_seed(shown.seed), **told).images[0]
    assert np.abs(np.asarray(drawn, np.int16) - pixels(run.folder / shown.file)).max() <= 3


@pytest.mark.parametrize(
    ("name", "form", "same"),
    [
        ("lora", "diffusers-lora", True),
        ("lora", "peft", False),
        ("loha", "peft", True),
        ("words", "textual-inversion", True),
        ("full", "pipeline", True),
    ],
)
def test_a_run_is_exported_as_what_it_is(name: str, form: str, same: bool, runs: dict[str, Run], tmp_path: Path) -> None:
    run, heard = runs[name], list[str]()
    files = run.export(form, tmp_path / "out", say=heard.append)
    assert files and any("they are copied" in line for line in heard) == same
    for path in files if same else ():
        assert path.read_bytes() == (run.folder / path.relative_to(tmp_path / "out")).read_bytes()


@pytest.mark.parametrize(
    ("name", "form", "said"),
    [
        ("pivotal", "diffusers-lora", "is an adapter and new words, and diffusers-lora takes an adapter alone.*--format merged"),
        ("word", "peft", "is new words, and peft takes an adapter alone"),
        ("lora", "textual-inversion", "is an adapter, and textual-inversion takes new words alone"),
        ("full", "diffusers-lora", "was trained in all its weights.*--format merged"),
        ("loha", "diffusers-lora", "diffusers reads no loha adapter of a sd2.*peft"),
    ],
)
def test_what_cannot_be_exported_is_one_line(name: str, form: str, said: str, runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as told:
        runs[name].export(form, tmp_path / "out", say=lambda _: None)
    assert "\n" not in told.value.line() and not list(tmp_path.rglob("*.*"))


def test_the_help_lists_the_formats_that_there_are() -> None:
    assert sorted(verb.FORMATS) == sorted(FORMATS)
    assert all(re.search(rf"^  {form}  +\S", verb.HELP, re.MULTILINE) for form in FORMATS)


def test_a_run_is_staged_beside_its_weights(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked, not copied: a pipeline has gigabytes, and the system's own temporary folder may be small."""
    from hf_diffusion_kit import publish

    seen: list[int] = []

    def pushed(_door: Any, stage: Path, *_: Any, **__: Any) -> Any:
        seen.append((stage / "unet" / "diffusion_pytorch_model.safetensors").stat().st_nlink)
        return SimpleNamespace()

    monkeypatch.setattr(publish, "push", pushed)
    runs["full"].publish("you/full", hub="local", say=lambda _: None)
    assert seen[0] >= 2 and not list(runs["full"].folder.glob(".stage-*"))
