"""Files for ComfyUI, the WebUIs and sd-scripts: the names are theirs, and stock diffusers draws the same picture from them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders import FluxLoraLoaderMixin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny
import toyset
from hf_diffusion_kit import LoraTrainer
from hf_diffusion_kit.errors import ModelError
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.formats.kohya import FILE
from hf_diffusion_kit.formats.layers import fold, layers_of
from hf_diffusion_kit.loras import Adapter, kohya, read, sgm
from hf_diffusion_kit.loras.layers import lora
from hf_diffusion_kit.methods import Lora
from test_formats import METHOD, adapted, base, before, picture

FAMILIES = ("sd1", "sd2", "sdxl")
STOCK = ("plain", "alpha", "rslora", "conv", "linear", "text")
OURS = ("dora", "text-dora", "loha", "lokr")
"""What diffusers does not read of this layout, and ComfyUI does."""
EVERYWHERE = ("conv", "text", "text-dora", "lokr")
CELLS = [
    pytest.param(name, how, id=f"{name}-{how}", marks=[] if how in EVERYWHERE or name == FAMILIES[i % 3] else [pytest.mark.slow])
    for i, how in enumerate((*STOCK, *OURS))
    for name in FAMILIES
]


def told(name: str, how: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    family = adapted(name, METHOD[how])
    FORMATS["kohya"].write(family, folder)
    return family, load_file(folder / FILE)


@pytest.mark.parametrize(("name", "how"), CELLS)
def test_the_reopened_pipeline_draws_the_same_picture(name: str, how: str, tmp_path: Path) -> None:
    family, _ = told(name, how, tmp_path)
    expected = picture(family.pipe)
    fresh = FORMATS["kohya"].read(type(family), base(name), tmp_path, revision=None, dtype=torch.float32)
    assert (before(name) - expected).abs().max() > 0.01
    assert (picture(fresh) - expected).abs().max() <= (0 if how in STOCK else 1e-4)  # folded in, it adds up in another order


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_diffusers_opens_it_by_the_call_on_the_card(name: str, tmp_path: Path) -> None:
    family = adapted(name, METHOD["text"])
    written = FORMATS["kohya"].write(family, tmp_path)
    assert written.reader == f'.from_pretrained(BASE) + .load_lora_weights(FOLDER, weight_name="{FILE}")'
    pipe = tiny.pipeline(name)
    pipe.load_lora_weights(tmp_path, weight_name=FILE)
    assert torch.equal(picture(pipe), picture(family.pipe))


def test_names_are_those_of_sd_scripts(tmp_path: Path) -> None:
    keys = {name: list(told(name, "text", tmp_path)[1]) for name in FAMILIES}
    block = "attentions_0_transformer_blocks_0_attn1_to_q"
    assert f"lora_unet_down_blocks_1_{block}.lora_down.weight" in keys["sd1"]
    assert "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.alpha" in keys["sdxl"]
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys["sd2"]
    starts = {name: {re.match(r"lora_(unet|te\d?)_", key)[0] for key in found} for name, found in keys.items()}  # type: ignore[index]
    assert starts["sd1"] == starts["sd2"] == {"lora_unet_", "lora_te_"}
    assert starts["sdxl"] == {"lora_unet_", "lora_te1_", "lora_te2_"}


@pytest.mark.parametrize(("how", "alpha"), [("alpha", 16.0), ("rslora", 16.0), ("conv", 2.0), ("dora", 2.0), ("loha", 2.0)])
def test_each_layer_has_its_true_alpha(how: str, alpha: float, tmp_path: Path) -> None:
    """rsLoRA divides by the root of the rank: its alpha 8 at rank 4 is an alpha of 16."""
    _, tensors = told("sd1", how, tmp_path)
    alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
    assert len(alphas) == len({key.partition(".")[0] for key in tensors}) and {float(tensor) for tensor in alphas} == {alpha}


def test_a_dora_has_one_length_a_row(tmp_path: Path) -> None:
    """In the shape by which ComfyUI and LyCORIS tell rows from columns."""
    _, tensors = told("sd1", "dora", tmp_path)
    scales = {key.removesuffix(".dora_scale"): tensor for key, tensor in tensors.items() if key.endswith(".dora_scale")}
    assert scales
    for key, scale in scales.items():
        up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
        assert scale.shape == (len(up), *[1] * (down.ndim - 1))


def test_metadata_is_short_and_true(tmp_path: Path) -> None:
    told("sdxl", "alpha", tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
            "modelspec.sai_model_spec": "1.0.0",
            "ss_base_model_version": "sdxl_base_v1-0",
            "ss_network_alpha": "16",
            "ss_network_dim": "4",
            "ss_network_module": "networks.lora",
        }
    told("sd1", "lokr", tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        assert file.metadata()["ss_network_module"] == "lycoris.kohya"
        assert json.loads(file.metadata()["ss_network_args"]) == {"algo": "lokr"}


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_layers_of_different_alphas_are_read_right(name: str, tmp_path: Path) -> None:
    """diffusers 0.42 looks for the alphas of attention layers under another name, and takes the most common one for them: pictures
    differ by 0.3. So a file has one alpha, and the rest is in the matrices."""
    family = adapted(name, Lora(rank=4, preset="conv", text_encoder=True))
    mixed = {key: replace(layer, alpha=(1.0, 2.0, 8.0)[i % 3]) for i, (key, layer) in enumerate(layers_of(family).items())}
    expected = tiny.pipeline(name)
    fold(expected, mixed)
    blocks = sgm.Blocks.of(family.model.config)  # type: ignore[arg-type]
    save_file(kohya.tensors(mixed, kohya.KOHYA[name], blocks), tmp_path / FILE)
    pipe = tiny.pipeline(name)
    pipe.load_lora_weights(tmp_path, weight_name=FILE)
    assert (picture(pipe) - picture(expected)).abs().max() < 1e-4
    assert {key: layer.scale for key, layer in read(tmp_path / FILE, blocks=blocks).layers.items()}.keys() == mixed.keys()


@pytest.mark.parametrize("how", [*STOCK, *OURS])
def test_what_is_read_back_is_what_was_written(how: str, tmp_path: Path) -> None:
    for name in FAMILIES:
        family, _ = told(name, how, tmp_path)
        layers, back = layers_of(family), read(tmp_path / FILE, blocks=sgm.Blocks(1))
        assert back.layout == "kohya" and back.layers.keys() == layers.keys()
        for key, layer in layers.items():
            assert torch.equal(back.layers[key].delta(), layer.delta()), key
            lengths = back.layers[key].magnitude_O, layer.magnitude_O
            assert lengths == (None, None) or torch.equal(lengths[0], lengths[1]), key  # type: ignore[arg-type]


SD15: dict[str, Any] = {"cross_attention_dim": 768}
XL: dict[str, Any] = {
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.parametrize(
    ("name", "config", "kind"), [("sd1", SD15, StableDiffusionPipeline), ("sdxl", XL, StableDiffusionXLPipeline)]
)
def test_every_layer_of_the_real_model_is_found_again_by_diffusers(name: str, config: dict[str, Any], kind: Any) -> None:
    with init_empty_weights():
        unet = UNet2DConditionModel(**config)
    names = [key for key, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    adapter: Adapter = {f"unet.{key}": lora(torch.full((1, 1), float(i)), torch.ones(1, 1)) for i, key in enumerate(names)}
    tensors = kohya.tensors(adapter, kohya.KOHYA[name], sgm.Blocks.of(unet.config))
    back, left = kohya.read(tensors)
    assert not left and list(back) == list(adapter)
    state, _ = kind.lora_state_dict(dict(tensors), unet_config=unet.config)
    found = {int(tensor): key for key, tensor in state.items() if ".down." in key}
    peft = {i: peft_name(key) for i, key in found.items()}
    assert peft == dict(enumerate(names))


def peft_name(key: str) -> str:
    """As diffusers' own `convert_unet_state_dict_to_peft` goes on from there."""
    key = key.removeprefix("unet.").replace(".processor.", ".").removesuffix(".down.weight")
    return key.replace(".to_out_lora", ".to_out.0").removesuffix("_lora").removesuffix(".lora")


def test_a_family_without_names_there_is_refused_and_comfyui_has_another_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no names for a sd9.*diffusers-lora, which ComfyUI reads"):
        kohya.names_of("sd9")


def test_a_dora_of_half_a_joined_layer_is_refused() -> None:
    """What length the other rows have, only the base knows."""
    half = {name: replace(one, magnitude_O=torch.ones(WIDE)) for name, one in flux(*ALONE[:3]).items()}
    with pytest.raises(ModelError, match=r"a DoRA needs all layers of .*linear1: proj_mlp is missing.*diffusers-lora"):
        kohya.tensors(half, kohya.KOHYA["flux"])


def test_oft_has_no_place_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing like oft") as error:
        FORMATS["kohya"].write(adapted("sd1", METHOD["oft"]), tmp_path)
    assert "\n" not in error.value.line()


# FLUX.1: layers that are one in the original code. diffusers' reader knows the real sizes alone, so tensors of these, and no model.

WIDE = 3072


def layer(out: int, seed: int, rank: int = 2) -> Any:
    drawn = torch.Generator().manual_seed(seed)
    return lora(torch.randn(rank, 8, generator=drawn), torch.randn(out, rank, generator=drawn), 4.0 * rank)


def flux(*names: str) -> Adapter:
    tall = {"proj_mlp": 4 * WIDE, "net.0.proj": 4 * WIDE}
    return {f"transformer.{name}": layer(tall.get(name.rpartition("blocks.0.")[2], WIDE), i) for i, name in enumerate(names)}


@pytest.mark.parametrize("how", ["alpha", "dora"])
def test_flux_draws_the_same_picture(how: str, tmp_path: Path) -> None:
    """The toy is narrower than diffusers' reader takes; it is folded in by us."""
    whole = (*(f"to_{x}" for x in "qkv"), *(f"add_{x}_proj" for x in "qkv"), "proj_mlp")
    method = {"alpha": METHOD["alpha"], "dora": Lora(rank=4, alpha=2, dora=True, targets=whole)}[how]
    family = adapted("flux", method)
    FORMATS["kohya"].write(family, tmp_path)
    assert "lora_unet_single_blocks_0_linear1.lora_up.weight" in load_file(tmp_path / FILE)
    expected = picture(family.pipe)
    fresh = FORMATS["kohya"].read(type(family), base("flux"), tmp_path, revision=None, dtype=torch.float32)
    assert (before("flux") - expected).abs().max() > 0.01 and (picture(fresh) - expected).abs().max() < 1e-4


JOINED = [
    f"transformer_blocks.0.attn.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
]
FED = ["transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2", "transformer_blocks.0.norm1.linear"]
ALONE = [
    f"single_transformer_blocks.0.{x}" for x in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out", "norm.linear")
]


@pytest.mark.parametrize("names", [[*JOINED, *FED], ALONE, [*JOINED, *ALONE[:3]]], ids=["double", "single", "attention"])
def test_flux_is_read_back_by_diffusers_and_by_us(names: list[str]) -> None:
    adapter = flux(*names)
    tensors = kohya.tensors(adapter, kohya.KOHYA["flux"])
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight" in tensors or names is ALONE
    back, left = kohya.read(tensors)
    assert not left and back.keys() == adapter.keys()
    state = FluxLoraLoaderMixin.lora_state_dict(dict(tensors))
    for name, one in adapter.items():
        assert torch.allclose(back[name].delta(), one.delta(), atol=1e-5)
        theirs = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
        assert torch.allclose(theirs, one.delta(), atol=1e-4), name
    assert sum(key.endswith("lora_A.weight") for key in state) >= len(adapter)


def test_a_run_is_exported_as_one_and_goes_the_other_ways_too(tmp_path: Path) -> None:
    told: dict[str, Any] = {"steps": 1, "resolution": (tiny.HEIGHT, tiny.WIDTH), "gallery_steps": 2, "gallery_pictures": 1}
    trained = LoraTrainer(str(base("sd1")), out=tmp_path / "run", rank=4, alpha=2, text_encoder=True, learning_rate=0.1, **told)
    run = trained.fit(toyset.folder(tmp_path / "pictures"), say=lambda _: None, progress=False)
    for form, files in (("kohya", [FILE]), ("single-file", ["model.safetensors"]), ("merged", ["model_index.json"])):
        said: list[str] = []
        written = {path.name for path in run.export(form, tmp_path / form, say=said.append)}
        assert written >= set(files) and "reopened by stock diffusers" in said[-1]
    back = read(tmp_path / "kohya" / FILE, blocks=sgm.Blocks(1)).layers
    theirs = read(run.folder, blocks=sgm.Blocks(1)).layers
    assert back.keys() == theirs.keys() and all(torch.equal(back[name].delta(), one.delta()) for name, one in theirs.items())
