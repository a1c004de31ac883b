"""Training that begins from a LoRA: it goes on from it, or builds upon it; another model's is refused with what fits and what does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
import toyset
from hf_diffusion_kit import DreamBoothTrainer, LoraTrainer, lora_files
from hf_diffusion_kit.errors import CheckpointError, ConfigError, KitError, ModelError
from hf_diffusion_kit.families import FAMILIES, Family
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.formats.layers import layers_of
from hf_diffusion_kit.loras import arithmetic, sgm
from hf_diffusion_kit.methods import DreamBooth, Lora, Pivotal
from test_formats import adapted, base, picture
from toyruns import Case, Pictures, differences, saved, state, trainer

FILES = {"diffusers": "diffusers-lora", "kohya": "kohya", "peft": "peft"}
TEXT = Lora(rank=4, alpha=2, preset="attention+ff", text_encoder=True)


def made(name: str, method: Lora, folder: Path, layout: str = "diffusers") -> tuple[str, Family]:
    """(where a LoRA lies, the family that has it)."""
    folder.mkdir(parents=True, exist_ok=True)
    family = adapted(name, method)
    files = FORMATS[FILES[layout]].write(family, folder).files
    return str(folder if layout == "peft" else files[0]), family


def begun(name: str, method: Lora) -> Family:
    family = FAMILIES[name](tiny.pipeline(name))
    method.adapt(family, seed=0)
    return family


def moved(family: Family) -> None:
    """A little training, so to say."""
    generator = torch.Generator().manual_seed(5)
    for part in (family.denoiser, *family.text_encoders):
        for parameter in family.part(part).parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def reopened(family: Family, folder: Path, name: str) -> torch.Tensor:
    folder.mkdir()
    FORMATS["diffusers-lora"].write(family, folder)
    return picture(FORMATS["diffusers-lora"].read(type(family), base(name), folder, revision=None, dtype=torch.float32))


@pytest.mark.parametrize("layout", FILES)
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_it_begins_as_the_file_is_and_goes_on(name: str, layout: str, tmp_path: Path) -> None:
    place, before = made(name, TEXT, tmp_path / "file", layout)
    family = begun(name, Lora(init_from=place, text_encoder=True))
    assert (picture(family.pipe) - picture(before.pipe)).abs().max() < 1e-5
    assert {layer.alpha for layer in layers_of(family).values()} == {2.0}
    moved(family)
    assert (picture(family.pipe) - picture(before.pipe)).abs().max() > 0.01
    assert (reopened(family, tmp_path / "out", name) - picture(family.pipe)).abs().max() == 0


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_ranks_that_differ_by_layer_go_on(name: str, tmp_path: Path) -> None:
    adapter = layers_of(adapted(name, Lora(rank=4, alpha=3, preset="conv", text_encoder=True)))
    cuts = arithmetic.resize(adapter, arithmetic.Rule(dynamic="sv_fro", value=0.9))
    small = {key: cut.layer for key, cut in cuts.items()}
    (path,) = lora_files.write(small, tmp_path / "small.safetensors", "kohya", family=name, blocks=sgm.Blocks(1))
    family = begun(name, Lora(init_from=str(path), text_encoder=True))
    assert {key: layer.rank for key, layer in layers_of(family).items()} == {key: layer.rank for key, layer in small.items()}
    for key, layer in layers_of(family).items():
        assert (layer.delta() - small[key].delta()).abs().max() < 1e-5
    moved(family)
    assert (reopened(family, tmp_path / "out", name) - picture(family.pipe)).abs().max() == 0


def test_a_dora_goes_on(tmp_path: Path) -> None:
    place, before = made("sd1", Lora(rank=4, alpha=2, dora=True, preset="conv"), tmp_path / "file")
    family = begun("sd1", Lora(init_from=place))
    assert (picture(family.pipe) - picture(before.pipe)).abs().max() < 1e-5
    moved(family)
    assert (reopened(family, tmp_path / "out", "sd1") - picture(family.pipe)).abs().max() == 0


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_stack_is_both_in_one_file(name: str, text: bool, tmp_path: Path) -> None:
    place, below = made(name, TEXT, tmp_path / "file", "kohya")
    family = begun(name, method := Lora(init_from=place, init_stack=True, rank=2, preset="conv", text_encoder=text))
    assert (picture(family.pipe) - picture(below.pipe)).abs().max() < 1e-5
    learning = [p for p in family.model.parameters() if p.requires_grad]
    assert learning and all(2 in p.shape for p in learning)
    moved(family)
    expected = picture(family.pipe)
    method.settle(family)
    assert (picture(family.pipe) - expected).abs().max() < 1e-5
    assert (picture(below.pipe) - expected).abs().max() > 0.01
    ranks = {layer.rank for key, layer in layers_of(family).items() if "attn" in key and key.startswith("unet")}
    assert ranks == {6} and (reopened(family, tmp_path / "out", name) - picture(family.pipe)).abs().max() == 0


def test_the_base_answers_without_it(tmp_path: Path) -> None:
    """A prior by the base's own answers is the base's, not that of what training began from."""
    place, _ = made("sd1", Lora(rank=4), tmp_path)
    plain = picture(tiny.pipeline("sd1"))
    for stacked in (False, True):
        method = DreamBooth(init_from=place, init_stack=stacked, prior="base", class_prompts=("a",))
        family = FAMILIES["sd1"](tiny.pipeline())
        method.adapt(family, seed=0)
        learning = {name for name, p in family.model.named_parameters() if p.requires_grad}
        with method.untouched(family):
            assert torch.equal(picture(family.pipe), plain)
        assert not torch.equal(picture(family.pipe), plain)
        assert {name for name, p in family.model.named_parameters() if p.requires_grad} == learning


def test_new_words_and_a_stack_settle_together(tmp_path: Path) -> None:
    place, _ = made("sd1", Lora(rank=4), tmp_path / "file")
    method = Pivotal(tokens=("<dog>",), init_from=place, init_stack=True, rank=2)
    family = FAMILIES["sd1"](tiny.pipeline())
    method.adapt(family, seed=0)
    moved(family)
    expected = picture(family.pipe)
    method.settle(family)
    assert family.learned and (picture(family.pipe) - expected).abs().max() < 1e-5


# What is refused


def wide(place: str) -> str:
    tensors = load_file(place)
    key = next(key for key in tensors if key.endswith("lora_down.weight"))
    tensors[key] = torch.ones(4, 999)
    save_file(tensors, place)
    return place


def test_another_models_is_refused_with_counts(tmp_path: Path) -> None:
    there = len(layers_of(adapted("sdxl", Lora(rank=4))))
    place, _ = made("sdxl", Lora(rank=4), tmp_path / "xl")
    with pytest.raises(ModelError, match=rf"not for this model: \d+ of its {there} layers fit, unet.* in the file and") as error:
        begun("sd1", Lora(init_from=place))
    assert "name a LoRA of this sd1" in str(error.value) and error.value.line().count("\n") == 0
    count = len(layers_of(adapted("sd1", Lora(rank=4))))
    place = wide(made("sd1", Lora(rank=4), tmp_path / "one", "kohya")[0])
    with pytest.raises(ModelError, match=rf"{count - 1} of its {count} layers fit, .*x 999 in the file"):
        begun("sd1", Lora(init_from=place))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "init_from has .* of rank 4, alpha 2": ({}, {"rank": 8}),
    "method: alpha = 4": ({}, {"alpha": 4.0}),
    "method: rslora": ({}, {"rslora": True}),
    "method: dora": ({}, {"dora": True}),
    "method: preset = conv": ({}, {"preset": "conv"}),
    "method: targets": ({}, {"targets": ("to_q",)}),
    "adapts the text_encoder too": ({"text_encoder": True}, {}),
    "is a DoRA, on which nothing is stacked": ({"dora": True}, {"init_stack": True}),
    "not loha": ({}, {"adapter": "loha"}),
    "a DoRA is not stacked": ({}, {"init_stack": True, "dora": True}),
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_setting_that_the_file_contradicts_is_named(said: str, tmp_path: Path) -> None:
    file, asked = REFUSED[said]
    place, _ = made("sd1", Lora(**{"rank": 4, "alpha": 2, **file}), tmp_path)
    with pytest.raises(KitError, match=said) as error:
        begun("sd1", Lora(init_from=place, **asked))
    assert "\n" not in error.value.line()


def test_a_setting_that_says_the_same_as_the_file_is_welcome(tmp_path: Path) -> None:
    place, _ = made("sd1", Lora(rank=4, alpha=2, preset="attention+ff"), tmp_path)
    begun("sd1", Lora(init_from=place, rank=4, alpha=2, preset="attention+ff", dropout=0.1))


def test_a_stack_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="set without init_from"):
        Lora(init_stack=True)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    place, _ = made("sd1", Lora(adapter="lokr", rank=2), tmp_path, "kohya")
    with pytest.raises(ModelError, match="is a lokr, and only LoRA goes on learning"):
        begun("sd1", Lora(init_from=place))


# Runs


@pytest.mark.parametrize("stack", [False, True])
def test_a_resumed_run_is_the_same_bytes(stack: bool, tmp_path: Path) -> None:
    place, _ = made("sd1", TEXT, tmp_path / "file", "kohya")
    pictures = Pictures.made(tmp_path / "pictures")
    case = Case(Lora(init_from=place, init_stack=stack, text_encoder=True, dropout=0.1))
    told: dict[str, Any] = {"identity": {"init_from": "the file's sha256"}}
    whole = trainer(case, pictures, **told)
    for _ in range(2):
        whole.step()
    saved(whole, tmp_path / "stopped")
    again = trainer(case, pictures, tmp_path / "stopped", **told)
    assert again.resume() == 2
    for run in (whole, again):
        run.step()
    assert not differences(state(whole), state(again))
    with pytest.raises(CheckpointError, match=r"init_from: the file's sha256 -> another's"):
        trainer(case, pictures, tmp_path / "stopped", identity={"init_from": "another's"}).resume()


def test_a_run_says_what_it_began_from(tmp_path: Path) -> None:
    """From settings to files; the LoRA is known by its content, and its path stays on this machine."""
    place, before = made("sd1", Lora(rank=4, alpha=2), tmp_path / "style")
    data = toyset.folder(tmp_path / "pictures")
    told: dict[str, Any] = {"steps": 2, "resolution": (tiny.HEIGHT, tiny.WIDTH), "gallery_steps": 2, "gallery_pictures": 1}
    said: list[str] = []
    run = LoraTrainer(str(base("sd1")), out=tmp_path / "run", init_from=place, learning_rate=1e-2, **told).fit(
        data, say=said.append, progress=False
    )
    note = next(note for note in run.record.notes if "began from the LoRA" in note)
    assert (
        note in said and "of rank 4, alpha 2: it went on learning" in note and "pytorch_lora_weights.safetensors (sha256" in note
    )
    assert run.record.settings["method"]["init_from"] == "pytorch_lora_weights.safetensors"
    assert str(tmp_path) not in json.dumps(run.record.settings) and place in (tmp_path / "run" / "run.toml").read_text()
    pipe = tiny.pipeline()
    pipe.load_lora_weights(run.folder, weight_name="pytorch_lora_weights.safetensors")
    apart = (picture(pipe) - picture(before.pipe)).abs().max()
    assert 0 < apart < (picture(tiny.pipeline()) - picture(before.pipe)).abs().max()
    other, _ = made("sd1", Lora(rank=4, alpha=3), tmp_path / "style")
    assert other == place
    with pytest.raises(CheckpointError, match="init_from:"):
        LoraTrainer(str(base("sd1")), out=tmp_path / "run", init_from=place, learning_rate=1e-2, **{**told, "steps": 3}).fit(
            data, resume=True, allow_change=["training.steps"], say=said.append, progress=False
        )


def test_dreambooth_begins_from_one_too(tmp_path: Path) -> None:
    place, _ = made("sd1", Lora(rank=4), tmp_path / "style")
    trained = DreamBoothTrainer(str(base("sd1")), out=tmp_path / "run", init_from=place, prior_weight=0.0, resolution=(16, 24))
    loop = trained.loop(toyset.folder(tmp_path / "pictures"), say=lambda _: None)
    assert isinstance(loop.method, DreamBooth) and next(iter(loop)) > 0
    assert {layer.rank for layer in layers_of(loop.family).values()} == {4}


def test_the_settings_of_a_method_without_it_are_as_before() -> None:
    assert replace(Lora(), rank=2).init_from is None
