"""What is written is what was trained: every format, reopened by stock classes, draws the same picture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tiny
from hf_diffusion_kit.errors import ConfigError, ModelError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.methods import Lora

VARIANTS = {
    "plain": Lora(rank=4),
    "alpha": Lora(rank=4, alpha=16),
    "rslora": Lora(rank=4, alpha=8, rslora=True),
    "dora": Lora(rank=4, alpha=2, dora=True),
    "text": Lora(rank=4, alpha=2, text_encoder=True),
}


def picture(pipe: Any) -> torch.Tensor:
    call = {"num_inference_steps": 2, "height": tiny.HEIGHT, "width": tiny.WIDTH, "output_type": "pt"}
    pipe.set_progress_bar_config(disable=True)
    return pipe("the cat", generator=torch.Generator().manual_seed(7), **call).images


def adapted(name: str, method: Lora) -> Any:
    family = FAMILIES[name](tiny.pipeline(name))
    generator = torch.Generator().manual_seed(0)
    for part in method.adapt(family, seed=0):
        for key, parameter in part.parameters.items():
            if "magnitude" not in key:  # louder than any training: the picture must change
                parameter.data.normal_(std=0.3, generator=generator)
            else:
                parameter.data.mul_(1.3)
    return family


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_reopened_pipeline_draws_the_same_picture(name: str, form: str, variant: str, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    out.mkdir()
    tiny.pipeline(name).save_pretrained(base)
    family = adapted(name, VARIANTS[variant])
    expected = picture(family.pipe)
    written = FORMATS[form].write(family, out)
    assert written.files and all(path.is_file() for path in written.files)
    fresh = FORMATS[form].read(type(family), base, out, revision=None, dtype=torch.float32)
    assert (picture(tiny.pipeline(name)) - expected).abs().max() > 0.05
    assert (picture(fresh) - expected).abs().max() <= (0 if form == "diffusers-lora" else 1e-4)


def test_the_lora_file_carries_portable_keys_and_little_metadata(tmp_path: Path) -> None:
    FORMATS["diffusers-lora"].write(adapted("sd1", Lora(rank=4, alpha=16, text_encoder=True)), tmp_path)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        keys, told = list(file.keys()), json.loads(file.metadata()["lora_adapter_metadata"])
    text = [key for key in keys if key.startswith("text_encoder.")]
    assert text and all(key.startswith("text_encoder.text_model.encoder.") for key in text)
    assert told["unet.r"] == 4 and told["unet.lora_alpha"] == 16 and told["text_encoder.lora_alpha"] == 16
    assert {key.split(".")[1] for key in told} <= {
        *("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "lora_dropout", "bias"),
        "init_lora_weights",
    }


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """Eight times, for safetensors' own order of the metadata is a matter of chance."""
    family, files = adapted("sd1", Lora(rank=2)), set()
    for _ in range(8):
        FORMATS["diffusers-lora"].write(family, tmp_path)
        files.add((tmp_path / "pytorch_lora_weights.safetensors").read_bytes())
    assert len(files) == 1


def test_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    tiny.pipeline().save_pretrained(base)
    family = FAMILIES["sd1"].open(base)
    Lora(rank=2).adapt(family, seed=0)
    out.mkdir()
    FORMATS["merged"].write(family, out)
    said = [path for path in out.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    assert not said


def test_an_untrained_or_broken_adapter_is_not_written(tmp_path: Path) -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    parts = Lora(rank=2).adapt(family, seed=0)
    with pytest.raises(ModelError, match="never trained"):
        FORMATS["diffusers-lora"].write(family, tmp_path)
    next(iter(parts[0].parameters.values())).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        FORMATS["diffusers-lora"].write(family, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_no_layer_is_named_before_training() -> None:
    with pytest.raises(ConfigError, match=r"'to_qq' is no layer of the unet; did you mean 'to_q'"):
        Lora(targets=("to_qq",)).adapt(FAMILIES["sd1"](tiny.pipeline()), seed=0)
