"""One checkpoint in the original layout: stock `from_single_file` has from it, to the bit, what was written."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import tiny
import toyset
from hf_diffusion_kit import FullTrainer
from hf_diffusion_kit.errors import ModelError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.formats.single_file import FILE, in_vae
from hf_diffusion_kit.loras import sgm
from hf_diffusion_kit.methods import TextualInversion
from test_formats import METHOD, adapted, picture
from test_kohya import SD15, XL

EXACT, FOLDED = ("full-text",), ("text", "dora", "lokr", "oft")
OFTEN = (("sd1", "full-text"), ("sdxl", "full-text"), ("sd1", "lokr"), ("sdxl", "text"))
CELLS = [
    pytest.param(name, how, id=f"{name}-{how}", marks=[] if (name, how) in OFTEN else [pytest.mark.slow])
    for name in ("sd1", "sdxl")
    for how in (*EXACT, *FOLDED)
]


def toy(name: str) -> Any:
    """SDXL's two text encoders are told apart by their width, so they must not be equally wide as in the other tests."""
    pipe = tiny.pipeline(name)
    if name == "sdxl":
        config = {**pipe.text_encoder_2.config.to_dict(), "hidden_size": 40}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            pipe.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**config)).eval()
            pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "cross_attention_dim": 32 + 40}).eval()
    return pipe


@functools.cache
def base(name: str, folder: Path) -> Path:
    toy(name).save_pretrained(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.mark.parametrize(("name", "how"), CELLS)
def test_the_checkpoint_draws_the_same_picture(name: str, how: str, place: Path, tmp_path: Path) -> None:
    folder = base(name, place)
    family = adapted(name, METHOD[how], FAMILIES[name].pipeline(folder))
    expected = picture(family.pipe)
    written = FORMATS["single-file"].write(family, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE] == [path.name for path in written.files]
    kind = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    more = {"add_watermarker": False} if name == "sdxl" else {}
    fresh = kind.from_single_file(str(tmp_path / FILE), config=str(folder), local_files_only=True, **more)
    assert (picture(fresh) - expected).abs().max() <= (0 if how in EXACT else 1e-4)
    ours = FORMATS["single-file"].read(type(family), folder, tmp_path, revision=None, dtype=torch.float32)
    assert type(ours) is kind and torch.equal(picture(ours), picture(fresh))
    for part in ("unet", "vae", *family.text_encoders):
        before, after = getattr(family.pipe, part).state_dict(), getattr(fresh, part).state_dict()
        assert how not in EXACT or (before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before))


def test_names_are_those_of_the_original_checkpoints(place: Path, tmp_path: Path) -> None:
    """The text encoder's with `text_model.`, which transformers no longer writes and without which readers fail."""
    wanted = {
        "sd1": ["model.diffusion_model.time_embed.0.weight", "cond_stage_model.transformer.text_model.final_layer_norm.bias"],
        "sdxl": ["conditioner.embedders.1.model.text_projection", "model.diffusion_model.label_emb.0.0.weight"],
    }
    for name, keys in wanted.items():
        FORMATS["single-file"].write(adapted(name, METHOD["full"], FAMILIES[name].pipeline(base(name, place))), tmp_path)
        with safe_open(tmp_path / FILE, "pt") as file:
            assert {*keys, "first_stage_model.decoder.mid.attn_1.proj_out.weight"} <= set(file.keys())
            text = [key for key in file.keys() if key.startswith(("cond_stage_model.", "conditioner.embedders.0."))]  # noqa: SIM118
            assert text and all(".transformer.text_model." in key for key in text)
            assert file.metadata()["modelspec.architecture"].startswith("stable-diffusion-")
            assert file.get_tensor("first_stage_model.decoder.mid.attn_1.q.weight").ndim == 4


@pytest.mark.parametrize("config", [SD15, XL], ids=["sd1", "sdxl"])
def test_every_tensor_of_the_real_unet_is_found_again_by_diffusers(config: dict[str, Any]) -> None:
    with init_empty_weights():
        unet = UNet2DConditionModel(**config)
    blocks = sgm.Blocks.of(unet.config)
    told = {}
    for key in unet.state_dict():
        name, _, kind = key.rpartition(".")
        told[f"model.diffusion_model.{sgm.original(name, blocks)}.{kind}"] = key
        assert sgm.in_diffusers(sgm.original(name, blocks), blocks) == name
    back = convert_ldm_unet_checkpoint(told, dict(unet.config))
    assert back == {key: key for key in unet.state_dict()}


def test_every_tensor_of_the_real_vae_is_found_again_by_diffusers() -> None:
    with init_empty_weights():
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    told = {}
    for key in vae.state_dict():
        name, _, kind = key.rpartition(".")
        told[f"first_stage_model.{in_vae(name, 4)}.{kind}"] = (
            torch.empty(2, 2, 1, 1) if "attn" in in_vae(name, 4) else torch.empty(1)
        )
    assert convert_ldm_vae_checkpoint(told, dict(vae.config)).keys() == vae.state_dict().keys()


def test_what_it_has_no_room_for_is_refused(place: Path, tmp_path: Path) -> None:
    families = {
        "not of a sd2": adapted("sd2", METHOD["full"]),
        "no room for the new words <cat>": adapted("sd1", TextualInversion(tokens=("<cat>",))),
    }
    quantized = adapted("sd1", METHOD["plain"])
    quantized.quantize = "int8"
    families["opened in fewer bits"] = quantized
    for said, family in families.items():
        with pytest.raises(ModelError, match=said) as error:
            FORMATS["single-file"].write(family, tmp_path)
        assert "\n" not in error.value.line() and not list(tmp_path.iterdir())
    with pytest.raises(ModelError, match="goes onto no pipeline"):
        FORMATS["single-file"].add(tiny.pipeline(), tmp_path)


def test_words_that_were_read_from_files_are_seen(tmp_path: Path) -> None:
    pipe = tiny.pipeline()
    pipe.load_textual_inversion(torch.ones(1, 32), token="<cat>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    with pytest.raises(ModelError, match="no room for the new words <cat>"):
        FORMATS["single-file"].write(FAMILIES["sd1"](pipe), tmp_path)


def test_a_unet_of_other_blocks_is_refused() -> None:
    config = dict(tiny.pipeline().unet.config)
    with pytest.raises(ModelError, match="no blocks of SimpleCrossAttnDownBlock2D"):
        sgm.Blocks.of({**config, "down_block_types": ["SimpleCrossAttnDownBlock2D"]})
    with pytest.raises(ModelError, match="blocks of different sizes"):
        sgm.Blocks.of({**config, "layers_per_block": [1, 2]})
    with pytest.raises(ModelError, match="no name for class_embedding"):
        sgm.original("class_embedding", sgm.SD1)


@pytest.mark.slow
def test_a_full_run_is_exported_as_one_and_its_scheduler_is_told(tmp_path: Path) -> None:
    pipe = tiny.pipeline()
    pipe.scheduler = tiny.ddim("v_prediction")
    pipe.save_pretrained(tmp_path / "base")
    told: dict[str, Any] = {"steps": 1, "resolution": (tiny.HEIGHT, tiny.WIDTH), "gallery_steps": 2, "gallery_pictures": 1}
    trained = FullTrainer(str(tmp_path / "base"), out=tmp_path / "run", zero_terminal_snr=True, **told)
    run = trained.fit(toyset.folder(tmp_path / "pictures"), say=lambda _: None, progress=False)
    said: list[str] = []
    files = run.export("single-file", tmp_path / "out", say=said.append)
    assert [path.name for path in files] == [FILE] and "verified" in said[-1]
    assert re.search(r"holds no scheduler; draw with rescale_betas_zero_snr=True", " ".join(said))
    assert json.loads((run.folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
