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
from hf_diffusion_kit.evaluation.gallery import call_of
from hf_diffusion_kit.families import FAMILIES, Family, TokenCount, detect
from hf_diffusion_kit.objectives import Flow

ORIGINAL, CROP = (40, 60), (1, 2)
"""What a picture's size was, and where its crop began: rows, then columns. Only SDXL is told."""
GEOMETRY = {"sdxl": {"original_size": ORIGINAL, "crops_coords_top_left": CROP, "target_size": (tiny.HEIGHT, tiny.WIDTH)}}
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


def first_time(family: Family, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(time_B, noisy_BCHW) of the pipeline's first step, as this family's objective tells times."""
    scheduler = family.pipe.scheduler
    if isinstance(family.objective(), Flow):
        return scheduler.sigmas[:1], latents
    return scheduler.timesteps[:1], scheduler.scale_model_input(latents * scheduler.init_noise_sigma, scheduler.timesteps[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_training_calls_the_denoiser_as_inference_does(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe, model = family.pipe, family.model
    latents = tiny.latents(pipe)
    call = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_inference_steps": 3, **call_of(pipe, 1.0)}
    inference = overhear(model, lambda: pipe("the cat", latents=latents, **call, **GEOMETRY.get(name, {})))
    time_B, noisy = first_time(family, latents)
    geometry = torch.tensor([[*ORIGINAL, *CROP, tiny.HEIGHT, tiny.WIDTH]])
    training = overhear(model, lambda: family.predict(noisy, time_B, family.encode_captions(["the cat"], geometry)))
    assert training.keys() == inference.keys()
    for key in inference:
        same(training[key], inference[key], key)


@pytest.mark.parametrize(("name", "zeros"), [*((name, True) for name in FAMILIES), ("sdxl", False)])
def test_a_dropped_caption_is_the_unconditional_half_of_guidance(name: str, zeros: bool) -> None:
    """diffusers' own SDXL script encodes the empty text, which SDXL's pipeline never does."""
    family = FAMILIES[name](tiny.pipeline(name))
    if name == "sdxl":
        family.pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    call = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_inference_steps": 3, **call_of(family.pipe, 2.0)}
    heard = overhear(family.model, lambda: family.pipe("the cat", **call, **GEOMETRY.get(name, {})))
    geometry = torch.tensor([[*ORIGINAL, *CROP, tiny.HEIGHT, tiny.WIDTH]] * 2)
    latents = torch.cat([tiny.latents(family.pipe)] * 2)
    cond = family.encode_captions(["", "the cat"], geometry)
    ours = overhear(family.model, lambda: family.predict(latents, torch.tensor([1, 1]), cond))
    for key in ("encoder_hidden_states", "added_cond_kwargs"):
        assert (key in ours) == (key in heard)
        if key in heard:
            same(ours[key], heard[key], key)
    assert (cond["text"][0] == 0).all() == (name == "sdxl" and zeros)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_of_a_batch_do_not_know_each_other(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    captions, geometry = ["a dog", "the cat", ""], torch.tensor([[9, 8, 1, 0, 4, 6], [8, 8, 0, 0, 4, 6], [5, 7, 0, 0, 4, 6]])
    whole = family.encode_captions(captions, geometry)
    alone = [family.encode_captions([text], told[None]) for text, told in zip(captions, geometry, strict=True)]
    assert all(len(value) == 3 for value in whole.values())
    for key, value in whole.items():
        same(value, torch.cat([each[key] for each in alone]), key)


@pytest.mark.parametrize("units", ["plain", "mean and std"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_pipeline_decodes_what_the_family_encoded(name: str, units: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe = family.pipe
    if units != "plain":  # only SDXL's pipeline heeds them, and then only its family may
        pipe.vae.register_to_config(latents_mean=[0.5, -1.0, 2.0, 0.0], latents_std=[2.0, 3.0, 0.5, 1.0])
    pixels = torch.rand(1, 3, tiny.HEIGHT, tiny.WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = family.encode_images(pixels, [torch.Generator().manual_seed(1)])
    heard: dict[str, torch.Tensor] = {}
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *a, **k: (heard.update(z=z), decode(z, *a, **k))[1]
    call = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_inference_steps": 1, **call_of(pipe, 1.0)}
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
    tokenizers = {tokenizer: getattr(family.pipe, tokenizer) for tokenizer in family.tokenizers}
    limits = {tokenizer: family.most_tokens.get(tokenizer, told.model_max_length) for tokenizer, told in tokenizers.items()}
    longest = max(limits, key=lambda tokenizer: limits[tokenizer])
    for caption in ("a b", "a " * 900):
        told, whole = family.count_tokens(caption), family.tokenized(tokenizers[longest], caption)
        assert told == TokenCount(min(whole, limits[longest]), max(0, whole - limits[longest]))
    assert told.cut
