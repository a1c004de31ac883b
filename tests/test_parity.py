"""At training time the denoiser must be called exactly as the pipeline calls it at inference time.

One real inference step is overheard; the family is then given the same latents, time and caption, and what it hands to the
denoiser is compared, argument by argument.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import tiny
from hf_diffusion_kit.families import FAMILIES, detect

IGNORED = {"return_dict", "cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs", "timestep_cond"}


class Overheard(Exception):
    pass


def overhear(model: torch.nn.Module, call: Callable[[], Any]) -> dict[str, Any]:
    """The arguments of the first call that `call` makes of `model`, by name."""
    heard: dict[str, Any] = {}

    def listen(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        heard.update(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
        raise Overheard

    hook = model.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        with pytest.raises(Overheard):
            call()
    finally:
        hook.remove()
    return {k: v for k, v in heard.items() if k not in IGNORED and v is not None}


def same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
        return
    a, b = torch.as_tensor(a).float(), torch.as_tensor(b).float()
    a, b = torch.broadcast_tensors(a, b) if where == "timestep" else (a, b)
    torch.testing.assert_close(a, b, msg=lambda m: f"{where}: {m}", atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_training_calls_the_denoiser_as_inference_does(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe, model = family.pipe, family.model
    scale = family.latent_size_divisor
    latents = torch.randn(1, 4, tiny.HEIGHT // scale, tiny.WIDTH // scale, generator=torch.Generator().manual_seed(0))
    call = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "guidance_scale": 1.0, "num_inference_steps": 3}
    inference = overhear(model, lambda: pipe("the cat", latents=latents, **call))
    time_B = pipe.scheduler.timesteps[:1]
    noisy = latents * pipe.scheduler.init_noise_sigma
    geometry = torch.tensor([[tiny.HEIGHT, tiny.WIDTH, 0, 0, tiny.HEIGHT, tiny.WIDTH]])
    training = overhear(model, lambda: family.predict(noisy, time_B, family.encode_captions(["the cat"], geometry)))
    assert training.keys() == inference.keys()
    for key in inference:
        same(training[key], inference[key], key)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pipeline_decodes_what_the_family_encoded(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe = family.pipe
    pixels = torch.rand(1, 3, tiny.HEIGHT, tiny.WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = family.encode_images(pixels, torch.Generator().manual_seed(1))
    heard: dict[str, torch.Tensor] = {}
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *a, **k: (heard.update(z=z), decode(z, *a, **k))[1]
    call = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "guidance_scale": 1.0, "num_inference_steps": 1}
    pipe("the cat", callback_on_step_end=lambda *_: {"latents": ours}, **call)
    raw = pipe.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(heard["z"], raw)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_told_by_its_folder(name: str, tmp_path: Any) -> None:
    tiny.pipeline(name).save_pretrained(tmp_path)
    assert detect(tmp_path).name == name
    assert FAMILIES[name].open(tmp_path).name == name


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_seen_and_cut_add_up(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    length = family.pipe.tokenizer.model_max_length
    short, long = family.count_tokens("a b"), family.count_tokens("a " * 40)
    assert (short.seen, short.cut) == (4, 0)
    assert (long.seen, long.cut) == (length, 42 - length)
