"""LoRA files: added up exactly, cut down with what was lost, taken out of two pipelines, written in another layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import tiny
from hf_diffusion_kit import lora_files
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.errors import ConfigError, KitError, ModelError
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.formats.layers import layers_of
from hf_diffusion_kit.loras import Adapter, arithmetic, read, sgm
from hf_diffusion_kit.loras.arithmetic import Rule
from hf_diffusion_kit.methods import Lora
from test_formats import METHOD, adapted, base, before, picture

LONE = sgm.Blocks(1)
"""How the toys' U-Nets count: one layer a block."""


def written(name: str, method: Lora, folder: Path, form: str = "diffusers-lora") -> tuple[Path, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    family = adapted(name, method)
    files = FORMATS[form].write(family, folder).files
    return files[0] if form != "peft" else folder, family


def opened(path: Path) -> Adapter:
    return read(path, blocks=LONE).layers


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: layer.delta() for name, layer in adapter.items()}


def drawn(name: str, path: Path) -> torch.Tensor:
    pipe = tiny.pipeline(name)
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    return picture(pipe)


# Reading


@pytest.mark.parametrize("form", ["diffusers-lora", "kohya", "peft"])
@pytest.mark.parametrize("how", ["plain", "rslora", "dora", "text"])
def test_every_layout_is_read_as_the_same_layers(form: str, how: str, tmp_path: Path) -> None:
    path, family = written("sd1", METHOD[how], tmp_path, form)  # type: ignore[arg-type]
    file, layers = read(path, blocks=LONE), layers_of(family)
    assert file.layout == form.removesuffix("-lora") and file.layers.keys() == layers.keys()
    for name, layer in layers.items():
        assert torch.allclose(file.layers[name].delta(), layer.delta(), rtol=0, atol=1e-6), name
        assert file.layers[name].alpha == pytest.approx(layer.alpha)
        assert (file.layers[name].magnitude_O is None) == (layer.magnitude_O is None)


@pytest.mark.parametrize("how", ["loha", "lokr"])
def test_loha_and_lokr_of_peft_are_read(how: str, tmp_path: Path) -> None:
    path, family = written("sd1", METHOD[how], tmp_path, "peft")  # type: ignore[arg-type]
    for name, layer in layers_of(family).items():
        assert torch.allclose(opened(path)[name].delta(), layer.delta(), rtol=0, atol=1e-5), name


def test_names_of_old_diffusers_are_read(tmp_path: Path) -> None:
    block = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    keys = [f"unet.{block}.processor.to_out_lora", "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora"]
    save_file({f"{key}.{side}.weight": torch.ones(2, 2) for key in keys for side in ("down", "up")}, tmp_path / "old.safetensors")
    found = opened(tmp_path / "old.safetensors")
    assert list(found) == [f"text_encoder.text_model.encoder.layers.0.self_attn.q_proj", f"unet.{block}.to_out.0"]  # noqa: F541
    assert found[f"unet.{block}.to_out.0"].scale == 1


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no such file": lambda folder: read(folder / "none.safetensors"),
    "holds no weights": lambda folder: read(folder),
    r"no \.safetensors file": lambda folder: read(touched(folder / "lora.bin")),
    "cannot be read": lambda folder: read(touched(folder / "lora.safetensors")),
    "no adapter that can be read: it has conv_in.weight": lambda folder: read(saved(folder, {"conv_in.weight": torch.ones(1)})),
    "1 tensors that are no part of a LoRA .unet.x.lora_A.bias": lambda folder: read(
        saved(
            folder,
            {
                "unet.x.lora_A.weight": torch.ones(1, 2),
                "unet.x.lora_B.weight": torch.ones(2, 1),
                "unet.x.lora_A.bias": torch.ones(1),
            },
        )
    ),
    "2 files of weights": lambda folder: read(saved(folder, {}, "a").parent if saved(folder, {}, "b") else folder),
    "lengths of columns": lambda folder: read(
        saved(
            folder,
            {
                "lora_unet_x.lora_down.weight": torch.ones(1, 3),
                "lora_unet_x.lora_up.weight": torch.ones(2, 1),
                "lora_unet_x.dora_scale": torch.ones(1, 3),
            },
        )
    ),
    "which is not read": lambda folder: read(written("sd1", METHOD["oft"], folder, "peft")[0]),  # type: ignore[arg-type]
}


def touched(path: Path) -> Path:
    path.write_bytes(b"no weights")
    return path


def saved(folder: Path, tensors: dict[str, torch.Tensor], name: str = "lora") -> Path:
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_be_read_is_one_line(said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as error:
        BROKEN[said](tmp_path)
    assert "\n" not in error.value.line()


# Adding up


def test_a_merge_is_the_sum(tmp_path: Path) -> None:
    """Of different ranks, alphas, layers and layouts; then drawn by stock diffusers from the file."""
    one = opened(written("sd1", Lora(rank=4, alpha=2, preset="conv", text_encoder=True), tmp_path / "a")[0])
    other = opened(written("sd1", Lora(rank=2, alpha=6), tmp_path / "b", "kohya")[0])
    both = arithmetic.merge([(one, 0.75), (other, -0.5)])
    assert both.keys() == one.keys() | other.keys()
    first, second = deltas(one), deltas(other)
    for name, layer in both.items():
        wanted = 0.75 * first[name] - (0.5 * second[name] if name in second else 0)
        assert (layer.delta() - wanted).abs().max() < 1e-6, name
    assert {layer.rank for name, layer in both.items() if name in second} == {6}
    assert all(layer.rank == 4 for name, layer in both.items() if name not in second)
    pipe = tiny.pipeline("sd1")
    for place, file, weight in (("a", "pytorch_lora_weights", 0.75), ("b", "lora_kohya", -0.5)):
        pipe.load_lora_weights(tmp_path / place, weight_name=f"{file}.safetensors")
        pipe.fuse_lora(["unet", "text_encoder"] if place == "a" else ["unet"], lora_scale=weight)
        pipe.unload_lora_weights()
    for layout in ("diffusers", "kohya"):
        (path,) = lora_files.write(both, tmp_path / f"{layout}.safetensors", layout, family="sd1", blocks=LONE)
        assert (drawn("sd1", path) - picture(pipe)).abs().max() < 1e-4


def test_half_precision_is_added_up_in_float32(tmp_path: Path) -> None:
    adapter = {name: x.mapped(torch.Tensor.half) for name, x in layers_of(adapted("sd1", Lora(rank=4, alpha=3))).items()}
    both = arithmetic.merge([(adapter, 0.3), (adapter, 0.7)])
    for name, layer in both.items():
        assert layer.down.dtype == torch.float32 and (layer.delta() - adapter[name].delta()).abs().max() < 1e-6


@pytest.mark.parametrize(("how", "said"), [("dora", "a DoRA cannot be added up"), ("lokr", "lokr layers cannot be added up")])
def test_what_is_no_sum_is_not_added_up(how: str, said: str) -> None:
    adapter = layers_of(adapted("sd1", METHOD[how]))
    with pytest.raises(ModelError, match=said):
        arithmetic.merge([(adapter, 1.0), (adapter, 1.0)])


def test_loras_of_two_models_are_not_added_up() -> None:
    one = {"unet.x": arithmetic.lora(torch.ones(1, 3), torch.ones(2, 1))}
    other = {"unet.x": arithmetic.lora(torch.ones(1, 4), torch.ones(2, 1))}
    with pytest.raises(ModelError, match=r"different sizes at unet\.x"):
        arithmetic.merge([(one, 1.0), (other, 1.0)])


# Cutting down


@pytest.mark.parametrize("how", ["alpha", "conv", "text", "dora"])
def test_the_full_rank_changes_nothing(how: str) -> None:
    adapter = layers_of(adapted("sd1", METHOD[how]))
    cuts = arithmetic.resize(adapter, Rule(rank=4))
    for name, layer in adapter.items():
        assert (cuts[name].layer.delta() - layer.delta()).abs().max() < 1e-6 * max(1, float(layer.delta().abs().max())), name
        assert cuts[name].kept == pytest.approx(1) and cuts[name].layer.down.shape == layer.down.shape
    assert arithmetic.summary(cuts)["error"] < 1e-4  # type: ignore[operator]


def test_fewer_ranks_are_the_nearest_there_are() -> None:
    adapter = layers_of(adapted("sd1", METHOD["conv"]))
    for name, cut in arithmetic.resize(adapter, Rule(rank=2)).items():
        wide = adapter[name].delta().flatten(1)
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
        nearest = left[:, :2] @ torch.diag(values[:2]) @ right[:2]
        assert (cut.layer.delta().flatten(1) - nearest).abs().max() < 1e-4, name
        assert cut.kept == pytest.approx(float(values[:2].norm() / values.norm()), abs=1e-5)
        assert cut.length == pytest.approx(float(wide.norm()), rel=1e-5)


def test_dynamic_ranks_are_no_more_than_needed() -> None:
    values = torch.tensor([4.0, 2.0, 1.0, 0.5])
    assert [Rule(dynamic="sv_ratio", value=value).keeps(values) for value in (1, 2, 4, 100)] == [1, 2, 3, 4]
    assert [Rule(dynamic="sv_cumulative", value=value).keeps(values) for value in (0.5, 0.8, 0.94, 1.0)] == [1, 2, 4, 4]
    length = float(values.norm())
    shares = [float(values[:n].norm()) / length for n in (1, 2, 3)]
    assert [Rule(dynamic="sv_fro", value=share).keeps(values) for share in shares] == [1, 2, 3]
    assert Rule(rank=2, dynamic="sv_fro", value=1.0).keeps(values) == 2
    assert Rule(dynamic="sv_fro", value=0.9).keeps(torch.zeros(3)) == 1


def test_ranks_that_differ_by_layer_are_drawn_right_from_every_layout(tmp_path: Path) -> None:
    adapter = layers_of(adapted("sd1", Lora(rank=4, alpha=3, preset="conv", text_encoder=True)))
    cuts = arithmetic.resize(adapter, Rule(dynamic="sv_fro", value=0.9))
    small = {name: cut.layer for name, cut in cuts.items()}
    assert len({layer.rank for layer in small.values()}) > 1 and all(cut.kept >= 0.9 - 1e-9 for cut in cuts.values())
    pictures = []
    for layout in ("diffusers", "kohya"):
        (path,) = lora_files.write(small, tmp_path / f"{layout}.safetensors", layout, family="sd1", blocks=LONE)
        pictures.append(drawn("sd1", path))
    lora_files.write(small, tmp_path / "peft", "peft")
    pipe = tiny.pipeline("sd1")
    FORMATS["peft"].add(pipe, tmp_path / "peft")
    assert isinstance(PeftModel, type)
    for other in (pictures[1], picture(pipe)):
        assert (pictures[0] - other).abs().max() < 1e-4
    assert (pictures[0] - before("sd1")).abs().max() > 0.01


RULES = [
    {},
    {"rank": 0},
    {"dynamic": "sv", "value": 1.0},
    {"dynamic": "sv_fro", "value": 1.5},
    {"dynamic": "sv_ratio", "value": 0.5},
]


@pytest.mark.parametrize("told", RULES)
def test_a_rule_that_means_nothing_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Rule(**told)


# Converting


@pytest.mark.parametrize("to", lora_files.LAYOUTS)
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("how", ["rslora", "text-dora"])
def test_a_converted_file_adds_the_same(name: str, how: str, to: str, tmp_path: Path) -> None:
    for form in ("diffusers-lora", "kohya", "peft"):
        path, family = written(name, METHOD[how], tmp_path / form, form)  # type: ignore[arg-type]
        files = lora_files.write(opened(path), tmp_path / f"{form}-{to}", to, family=name, blocks=LONE)
        back = opened(tmp_path / f"{form}-{to}" if to == "peft" else files[0])
        for key, layer in layers_of(family).items():
            assert torch.allclose(back[key].delta(), layer.delta(), rtol=1e-6, atol=1e-7), (form, key)
            if layer.magnitude_O is not None:
                assert torch.equal(back[key].magnitude_O, layer.magnitude_O)  # type: ignore[arg-type]


def test_a_converted_dora_draws_the_same_picture(tmp_path: Path) -> None:
    path, family = written("sd1", METHOD["dora"], tmp_path / "kohya", "kohya")  # type: ignore[arg-type]
    (file,) = lora_files.write(opened(path), tmp_path / "dora.safetensors", "diffusers")
    assert (drawn("sd1", file) - picture(family.pipe)).abs().max() < 1e-4
    lora_files.write(opened(path), tmp_path / "peft", "peft")
    pipe = tiny.pipeline("sd1")
    FORMATS["peft"].add(pipe, tmp_path / "peft")
    assert (picture(pipe) - picture(family.pipe)).abs().max() < 1e-4


# Taking the difference of two pipelines


@pytest.mark.parametrize(("name", "how"), [("sd1", "text"), ("sdxl", "conv")])
def test_an_extracted_lora_draws_what_the_merged_pipeline_draws(name: str, how: str, tmp_path: Path, capsys: Any) -> None:
    family = adapted(name, METHOD[how])
    FORMATS["merged"].write(family, tmp_path / "tuned")
    out = tmp_path / "lora.safetensors"
    assert main(["lora", "extract", str(base(name)), str(tmp_path / "tuned"), "--rank", "4", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == len(layers_of(family)) and told["left_out"] == {} and told["kept"] > 0.99999
    assert (drawn(name, out) - picture(family.pipe)).abs().max() < 1e-4


def test_what_no_lora_holds_is_told(tmp_path: Path, capsys: Any) -> None:
    family = adapted("sd1", METHOD["full-text"])
    FORMATS["pipeline"].write(family, tmp_path / "tuned")
    where = [str(base("sd1")), str(tmp_path / "tuned")]
    assert main(["lora", "extract", *where, "--rank", "4", "--out", str(tmp_path / "lora"), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert "unet.conv_in.bias" in told["left_out"] and 0.3 < told["kept"] < 1
    assert "that no LoRA holds (norms, biases, embeddings)" in captured.err
    assert "text_encoder.text_model.embeddings.token_embedding.weight" in told["left_out"]


def test_large_differences_are_taken_apart_the_same_each_time() -> None:
    drawn = torch.Generator().manual_seed(0)
    delta = torch.randn(600, 4, generator=drawn) @ torch.randn(4, 700, generator=drawn)
    one, other = (arithmetic.extracted(delta, Rule(rank=4)) for _ in range(2))
    assert torch.equal(one.layer.up, other.layer.up) and one.kept == pytest.approx(1, abs=1e-6)
    assert (one.layer.delta() - delta).abs().max() < 1e-3


@pytest.mark.parametrize("other", ["sd2", "sd1"])
def test_two_pipelines_of_which_nothing_can_be_taken(other: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a sd2, and|do not differ in any layer"):
        from hf_diffusion_kit.lora_extract import extract

        extract(str(base("sd1")), str(base(other)), Rule(rank=4))


# The command


def test_the_command_says_what_is_in_a_file(tmp_path: Path, capsys: Any) -> None:
    path, _ = written("sd1", METHOD["text-dora"], tmp_path, "kohya")  # type: ignore[arg-type]
    assert main(["lora", "info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "kohya layout" in said and "text_encoder: 8 layers (dora), rank 4 (8), scale 0.5 (8)" in said
    assert "ss_base_model_version = sd_v1" in said
    assert main(["lora", "info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parts"]["unet"]["kinds"] == {"dora": told["parts"]["unet"]["layers"]} and len(told["sha256"]) == 64
    assert told["bytes"] == path.stat().st_size and told["parts"]["unet"]["length"] > 0


def test_the_length_is_told_without_multiplying_out() -> None:
    from hf_diffusion_kit.loras.look import added_length

    for how in ("conv", "loha"):
        for layer in layers_of(adapted("sd1", METHOD[how])).values():
            assert float(added_length(layer)) == pytest.approx(float(layer.delta().norm()), rel=1e-5)


def test_the_command_merges_cuts_and_converts(tmp_path: Path, capsys: Any) -> None:
    one, _ = written("sd1", Lora(rank=4, alpha=2), tmp_path / "a")
    other, _ = written("sd1", Lora(rank=2), tmp_path / "b")
    out = tmp_path / "both.safetensors"
    assert main(["lora", "merge", f"{one}:0.5", str(other), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["merged"] == {str(one): 0.5, str(other): 1.0} and told["layout"] == "diffusers"
    assert {layer.rank for layer in opened(out).values()} == {6}
    assert main(["lora", "merge", f"{one}:0.5", str(other), "--rank", "3", "--out", str(tmp_path / "cut.safetensors")]) == 0
    assert "ranks now 3 to 3; kept 9" in capsys.readouterr().out
    assert main(["lora", "resize", str(out), "--dynamic", "sv_fro=0.8", "--rank", "4", "--out", str(tmp_path / "small")]) == 0
    assert (tmp_path / "small" / "pytorch_lora_weights.safetensors").is_file()
    words = [
        "lora",
        "convert",
        str(out),
        "--to",
        "kohya",
        "--family",
        "sd1",
        "--dtype",
        "float16",
        "--out",
        str(tmp_path / "k.safetensors"),
    ]
    assert main(words) == 0
    found = load_file(tmp_path / "k.safetensors")
    assert {value.dtype for key, value in found.items() if not key.endswith("alpha")} == {torch.float16}


REFUSED = {
    "is there already": ["convert", "A", "--to", "diffusers", "--out", "A"],
    "no such file": ["info", "none.safetensors"],
    "neither --rank nor --dynamic": ["resize", "A", "--out", "B"],
    "says no number": ["resize", "A", "--dynamic", "sv_fro", "--out", "B"],
    "not here": ["resize", "A", "--rank", "2", "--device", "abacus", "--out", "B"],
    "cannot tell which model": ["convert", "A", "--to", "kohya", "--out", "B"],
    "no names for a sd3": ["convert", "A", "--to", "kohya", "--family", "sd3", "--out", "B"],
    "arguments are required": ["merge", "A"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_the_command_refuses_in_one_line(said: str, tmp_path: Path, capsys: Any) -> None:
    path, _ = written("sd1", METHOD["plain"], tmp_path)  # type: ignore[arg-type]
    names = {"A": str(path), "B": str(tmp_path / "out.safetensors")}
    assert main(["lora", *(names.get(word, word) for word in REFUSED[said])]) > 1
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_a_weight_may_stand_behind_any_name() -> None:
    assert lora_files.weighted(["a:0.5", "b", "C:\\x.safetensors", "d:e:-1"]) == [
        ("a", 0.5),
        ("b", 1.0),
        ("C:\\x.safetensors", 1.0),
        ("d:e", -1.0),
    ]


def test_errors_are_ours() -> None:
    with pytest.raises(KitError):
        lora_files.opened("no/such/place/at.all")
