"""What is written is what was trained: every format, reopened by stock classes, draws the same picture."""

import atexit
import functools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

import fitting
import tiny
from hf_diffusion_kit.errors import ConfigError, ModelError
from hf_diffusion_kit.evaluation.gallery import call_of
from hf_diffusion_kit.families import FAMILIES, Family
from hf_diffusion_kit.formats import FORMATS, reopen
from hf_diffusion_kit.methods import METHODS, DreamBoothFull, Full, Lora, Method, Pivotal, TextualInversion

WORDS = ("<dog>", "<toy>")
METHOD: dict[str, Method] = {
    "plain": Lora(rank=4),
    "alpha": Lora(rank=4, alpha=16, preset="attention+ff"),
    "rslora": Lora(rank=4, alpha=8, rslora=True),
    "dora": Lora(rank=4, alpha=2, dora=True, preset="conv"),
    "conv": Lora(rank=4, alpha=2, preset="conv"),
    "linear": Lora(rank=2, preset="all-linear"),
    "text": Lora(rank=4, alpha=2, text_encoder=True),
    "text-dora": Lora(rank=4, alpha=2, dora=True, text_encoder=True),
    "loha": Lora(adapter="loha", rank=4, alpha=2, preset="conv", text_encoder=True),
    "lokr": Lora(adapter="lokr", rank=2, alpha=4, preset="conv", text_encoder=True),
    "oft": Lora(adapter="oft", rank=4, text_encoder=True),
    "full": Full(),
    "full-text": Full(text_encoder=True),
    "word": TextualInversion(tokens=WORDS[:1]),
    "words": TextualInversion(tokens=WORDS, vectors=3),
    "pivotal": Pivotal(tokens=WORDS, vectors=2, rank=4, alpha=2, text_encoder=True),
    "pivotal-loha": Pivotal(tokens=WORDS, adapter="loha", rank=4),
}
EVERYWHERE = {("text-dora", False), ("lokr", False), ("lokr", True), ("full-text", False), ("words", False)}
"""(method, merged): one a format, tried on every family at each run of the tests."""
SOMEWHERE = {("dora", True), ("oft", True), ("pivotal", True), *((how, False) for how in METHOD)}
"""Tried on one family each; the slow tests try all that there is."""


def table() -> list[Any]:
    """(family, method, formats) for all there are."""
    cells, names = [], list(FAMILIES)
    for place, (how, method) in enumerate(METHOD.items()):
        for forms in (method.formats, ("merged",)):
            for name in [name for name, other in fitting.cells(METHOD) if other == how]:
                what = (how, forms == ("merged",))
                often = what in EVERYWHERE or (what in SOMEWHERE and name == names[place % len(names)])
                marks = [] if often else [pytest.mark.slow]
                cells.append(pytest.param(name, how, forms, id=f"{name}-{how}-{'+'.join(forms)}", marks=marks))
    return cells


@functools.cache
def base(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hfdk-base-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny.pipeline(name).save_pretrained(folder)
    return folder


@functools.cache
def before(name: str) -> torch.Tensor:
    return picture(tiny.pipeline(name))


def picture(pipe: Any, caption: str = "cat <toy> <dog> a") -> torch.Tensor:
    call = {"num_inference_steps": 2, **tiny.sized(pipe), "output_type": "pt", **call_of(pipe, 4.0)}
    pipe.set_progress_bar_config(disable=True)
    return pipe(prompt=caption, generator=torch.Generator().manual_seed(7), **call).images


def adapted(name: str, method: Method, pipe: Any = None) -> Family:
    """As after a training louder than any: the picture must change."""
    family, method = FAMILIES[name](pipe or tiny.pipeline(name)), fitting.fitted(method, name)
    method.prepare(family)
    generator = torch.Generator().manual_seed(0)
    for part in method.adapt(family, seed=0):
        for key, parameter in part.parameters.items():
            if "magnitude" in key or "pipeline" in method.formats:
                parameter.data.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
            else:
                parameter.data.normal_(std=1.0 if key == "tokens" else 0.3, generator=generator)
    method.settle(family)
    return family


@pytest.mark.parametrize(("name", "how", "forms"), table())
def test_the_reopened_pipeline_draws_the_same_picture(name: str, how: str, forms: tuple[str, ...], tmp_path: Path) -> None:
    family = adapted(name, METHOD[how])
    expected = picture(family.pipe)
    for form in forms:
        written = FORMATS[form].write(family, tmp_path)
        assert written.files and all(path.is_file() for path in written.files)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    fresh = reopen(forms, type(family), base(name), tmp_path, revision=None, dtype=torch.float32)
    assert type(fresh) is family.pipeline_class
    assert (before(name) - expected).abs().max() > 0.01
    assert (picture(fresh) - expected).abs().max() <= (1e-3 if forms == ("merged",) and adapters(METHOD[how]) else 0)


def adapters(method: Method) -> bool:
    return isinstance(method, Lora)


def test_every_method_is_written_in_formats_that_there_are() -> None:
    assert {type(method) for method in METHOD.values()} | {METHODS["dreambooth"], DreamBoothFull} == set(METHODS.values())
    assert {form for kind in METHODS.values() for form in kind().formats} <= FORMATS.keys()
    tried = {form for cell in table() for form in cell.values[2]}
    assert set(FORMATS) == tried | {"kohya", "single-file"}  # test_kohya.py, test_single_file.py


@pytest.mark.parametrize(("name", "how"), [("sd1", "alpha"), ("sd2", "full"), ("sdxl", "word"), ("sd1", "oft")])
def test_a_base_in_half_precision_reads_what_was_trained_in_float32(name: str, how: str, tmp_path: Path) -> None:
    method = METHOD[how]
    family = adapted(name, method, FAMILIES[name].pipeline(base(name), dtype=torch.bfloat16))
    for form in method.formats:
        FORMATS[form].write(family, tmp_path)
    kept = {torch.float32} if how != "full" else {torch.bfloat16}
    assert {value.dtype for path in tmp_path.rglob("*.safetensors") for value in load_file(path).values()} == kept
    for form in method.formats:
        FORMATS[form].as_read(family)
    expected = picture(family.pipe)
    fresh = reopen(method.formats, type(family), base(name), tmp_path, revision=None, dtype=torch.bfloat16)
    assert torch.equal(picture(fresh), expected)


# The calls that a card shows, word for word, by packages that know nothing of this one.


def by_the_card(reader: str, place: Path, folder: Path) -> Any:
    first, *calls = reader.split(" + ")
    pipe = eval(f"DiffusionPipeline{first}", {"DiffusionPipeline": DiffusionPipeline, "BASE": place, "FOLDER": folder})
    for call in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(f"pipe{call}" if call.startswith(".") else call, {"pipe": pipe, "PeftModel": PeftModel, "FOLDER": folder})
    return pipe


@pytest.mark.parametrize(("name", "how"), [("sd1", "full"), ("sd2", "text"), ("sdxl", "loha"), ("sdxl", "words")])
def test_the_calls_on_the_card_are_the_ones_that_open_it(name: str, how: str, tmp_path: Path) -> None:
    family = adapted(name, METHOD[how])
    (form,) = METHOD[how].formats
    written = FORMATS[form].write(family, tmp_path)
    assert torch.equal(picture(by_the_card(written.reader, base(name), tmp_path)), picture(family.pipe))


def test_the_lora_file_carries_portable_keys_and_little_metadata(tmp_path: Path) -> None:
    method = Lora(rank=4, alpha=16, text_encoder=True, preset="conv")
    FORMATS["diffusers-lora"].write(adapted("sd1", method), tmp_path)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        keys, told = list(file.keys()), json.loads(file.metadata()["lora_adapter_metadata"])
    assert all(key.endswith((".lora.down.weight", ".lora.up.weight")) for key in keys if key.startswith("unet."))
    text = [key for key in keys if key.startswith("text_encoder.")]
    assert text and all(key.startswith("text_encoder.text_model.encoder.") for key in text)
    assert told["unet.r"] == 4 and told["unet.lora_alpha"] == 16 and told["text_encoder.lora_alpha"] == 16
    assert {key.split(".")[1] for key in told} <= {
        *("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "lora_dropout", "bias"),
        "init_lora_weights",
    }


@pytest.mark.parametrize("how", ["loha", "lokr", "oft", "text"])
def test_pefts_configuration_is_short_and_without_paths(how: str, tmp_path: Path) -> None:
    family = adapted("sd1", METHOD[how], FAMILIES["sd1"].pipeline(base("sd1")))
    FORMATS["peft"].write(family, tmp_path)
    told = json.loads((tmp_path / "text_encoder" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] is None and told["inference_mode"] is True
    assert told["target_modules"] == sorted(told["target_modules"]) and len(told) < 18
    fresh = reopen(["peft"], type(family), base("sd1"), tmp_path, revision=None, dtype=torch.float32)
    assert torch.equal(picture(fresh), picture(family.pipe))


def test_new_words_have_a_file_each_for_stock_readers_take_no_more(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    one.mkdir()
    several.mkdir()
    FORMATS["textual-inversion"].write(adapted("sd1", METHOD["word"]), one)
    assert [path.name for path in one.iterdir()] == ["learned_embeds.safetensors"]
    assert {key: value.shape for key, value in load_file(one / "learned_embeds.safetensors").items()} == {"<dog>": (1, 32)}
    FORMATS["textual-inversion"].write(adapted("sdxl", METHOD["words"]), several)
    names = sorted(path.name for path in several.iterdir())
    assert names == [f"learned_embeds-{word}{end}.safetensors" for word in ("dog", "toy") for end in ("", "_2")]
    assert load_file(several / "learned_embeds-toy_2.safetensors")["<toy>"].shape == (3, 32)


def test_new_words_are_in_the_order_of_training_for_a_base_that_finds_the_end_by_the_largest_id(tmp_path: Path) -> None:
    """As SDXL's own configuration has it (eos_token_id 2): its pooled text is read where the last new word stands."""
    pipe = tiny.pipeline("sdxl")
    pipe.text_encoder_2.config.eos_token_id = 2
    pipe.save_pretrained(tmp_path / "base")
    method, out = TextualInversion(tokens=("<toy>", "<dog>")), tmp_path / "out"  # not as their files are sorted
    family = adapted("sdxl", method, FAMILIES["sdxl"].pipeline(tmp_path / "base"))
    assert family.pipe.text_encoder_2.text_model.eos_token_id == 2
    out.mkdir()
    FORMATS["textual-inversion"].write(family, out)
    fresh = reopen(method.formats, type(family), tmp_path / "base", out, revision=None, dtype=torch.float32)
    caption = "<dog> b <toy> c"
    assert torch.equal(picture(fresh, caption), picture(family.pipe, caption))


def test_new_words_of_strange_spelling_are_numbered(tmp_path: Path) -> None:
    FORMATS["textual-inversion"].write(adapted("sd1", TextualInversion(tokens=("<a>", "[a]", "<b>"))), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"learned_embeds-{n}.safetensors" for n in (1, 2, 3)]


@pytest.mark.parametrize("how", ["text", "oft", "words"])
def test_equal_weights_are_equal_files(how: str, tmp_path: Path) -> None:
    """Eight times, for safetensors' own order of the metadata is a matter of chance."""
    family, files = adapted("sd1", METHOD[how]), set()
    (form,) = METHOD[how].formats
    for _ in range(8):
        written = FORMATS[form].write(family, tmp_path)
        files.add(b"".join(path.read_bytes() for path in written.files))
    assert len(files) == 1


@pytest.mark.parametrize("how", ["text", "loha", "full-text", "pivotal"])
def test_no_path_of_this_machine_is_written(how: str, tmp_path: Path) -> None:
    family = adapted("sd1", METHOD[how], FAMILIES["sd1"].pipeline(base("sd1")))
    for form in {*METHOD[how].formats, "merged"}:
        for path in FORMATS[form].write(family, tmp_path).files:
            assert not any(str(place).encode() in path.read_bytes() for place in (tmp_path, base("sd1"))), path


def test_the_whole_pipeline_is_named_as_older_readers_know_it(tmp_path: Path) -> None:
    family = adapted("sdxl", METHOD["words"])
    written = FORMATS["pipeline"].write(family, tmp_path)
    for part, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
        keys = load_file(tmp_path / part / "model.safetensors")
        assert all(key.startswith(("text_model.", "text_projection.")) for key in keys)
        told = json.loads((tmp_path / tokenizer / "vocab.json").read_text())
        assert len(told) == 55 and (tmp_path / tokenizer / "merges.txt").read_text().count("\n") == 2
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written.files)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path not in written.files]


def test_settings_of_the_pipeline_go_with_it(tmp_path: Path) -> None:
    pipe = tiny.pipeline("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    FORMATS["merged"].write(adapted("sdxl", METHOD["plain"], pipe), tmp_path)
    assert DiffusionPipeline.from_pretrained(tmp_path).config.force_zeros_for_empty_prompt is False


def test_a_pipeline_in_several_files_is_renamed_in_all_of_them(tmp_path: Path) -> None:
    from hf_diffusion_kit.formats.pipeline import name_as_before

    encoder = tiny.pipeline().text_encoder
    encoder.save_pretrained(tmp_path, max_shard_size="20KB")
    before = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(before.values())) > 1
    name_as_before(tmp_path, "text_encoder")
    after = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert list(after) == [f"text_model.{key}" for key in before]
    assert all(key in load_file(tmp_path / name) for key, name in after.items())
    fresh = type(encoder).from_pretrained(tmp_path)
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in encoder.state_dict().items())


def test_a_pipeline_takes_the_place_of_an_older_one_and_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "old.safetensors").write_bytes(b"")
    FORMATS["pipeline"].write(adapted("sd1", Full()), tmp_path)
    assert (tmp_path / "run.json").read_text() == "{}" and not (tmp_path / "unet" / "old.safetensors").exists()


def test_half_a_pipeline_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    family = adapted("sd1", Full())
    monkeypatch.setattr("hf_diffusion_kit.formats.pipeline.forget_paths", full)
    with pytest.raises(OSError, match="No space"):
        FORMATS["pipeline"].write(family, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["plain", "loha", "lokr", "oft"])
def test_an_untrained_or_broken_adapter_is_not_written(how: str, tmp_path: Path) -> None:
    family, method = FAMILIES["sd1"](tiny.pipeline()), METHOD[how]
    parts = method.adapt(family, seed=0)
    with pytest.raises(ModelError, match="never trained"):
        FORMATS[method.formats[0]].write(family, tmp_path)
    next(iter(parts[0].parameters.values())).data.fill_(float("nan"))
    for form in (method.formats[0], "merged"):
        with pytest.raises(ModelError, match=r"not finite|seems to be broken") as told:
            FORMATS[form].write(family, tmp_path)
        assert told.value.exit_code == 4
    assert not list(tmp_path.iterdir())


REFUSED: dict[str, Callable[[Path], Any]] = {
    "nothing trained": lambda folder: FORMATS["diffusers-lora"].write(FAMILIES["sd1"](tiny.pipeline()), folder),
    "reads no loha adapter": lambda folder: FORMATS["diffusers-lora"].write(adapted("sd1", METHOD["loha"]), folder),
    "holds no adapter": lambda folder: FORMATS["peft"].add(tiny.pipeline(), folder),
    "holds no new words": lambda folder: FORMATS["textual-inversion"].add(tiny.pipeline(), folder),
    "opened in fewer bits .int8": lambda folder: FORMATS["merged"].write(quantized(), folder),
    "by itself": lambda folder: FORMATS["pipeline"].add(tiny.pipeline(), folder),
}


def quantized() -> Family:
    family = adapted("sd1", METHOD["plain"])
    family.quantize = "int8"
    return family


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_written_or_read_is_one_line(said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as told:
        REFUSED[said](tmp_path)
    assert "\n" not in told.value.line()


def test_an_adapter_that_is_read_in_part_only_is_refused(tmp_path: Path) -> None:
    FORMATS["peft"].write(adapted("sd1", METHOD["loha"]), tmp_path)
    path = tmp_path / "unet" / "adapter_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "target_modules": [*told["target_modules"], "time_emb_proj"]}))
    with pytest.raises(ModelError, match="in part only"):
        FORMATS["peft"].add(tiny.pipeline(), tmp_path)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_several_adapters_on_one_part_are_not_guessed_at(tmp_path: Path) -> None:
    family = adapted("sd1", METHOD["plain"])
    family.model.add_adapter(Lora(rank=2).peft_config(["to_q"]), "second")  # type: ignore[operator]
    with pytest.raises(ModelError, match="several adapters: default, second"):
        FORMATS["diffusers-lora"].write(family, tmp_path)


def test_a_target_that_is_no_layer_is_named_before_training() -> None:
    with pytest.raises(ConfigError, match=r"'to_qq' is no layer of the unet; did you mean 'to_q'"):
        replace(Lora(), targets=("to_qq",)).adapt(FAMILIES["sd1"](tiny.pipeline()), seed=0)
