"""At training time the denoiser must be called exactly as the pipeline calls it at inference time.

One real inference step is overheard; the family is then given the same latents, time and caption, and what it hands to the
denoiser is compared, argument by argument.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage

import tiny
from hf_diffusion_kit.evaluation.gallery import call_of
from hf_diffusion_kit.families import FAMILIES, Family, TokenCount, detect
from hf_diffusion_kit.objectives import Flow

ORIGINAL, CROP = (40, 60), (1, 2)
"""What a picture's size was, and where its crop began: rows, then columns. Only SDXL is told."""
GEOMETRY = {"sdxl": {"original_size": ORIGINAL, "crops_coords_top_left": CROP, "target_size": (tiny.HEIGHT, tiny.WIDTH)}}
IGNORED = {"return_dict", "cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs", "timestep_cond"}


NEGATIVE = {
    "flux": {"true_cfg_scale": 2.0, "negative_prompt": ""},
    "flux-schnell": {"true_cfg_scale": 2.0, "negative_prompt": ""},
}
"""What else a pipeline has to be told before it guides at all."""
TOLD = ("encoder_hidden_states", "pooled_projections", "text_embeds", "time_ids", "cap_feats")


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


def told(model: torch.nn.Module, call: Callable[[], Any]) -> list[dict[str, torch.Tensor]]:
    """What the model is told of each sample beside latents and time, over all calls that `call` makes of it."""
    heard: list[dict[str, torch.Tensor]] = []

    def listen(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        given = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
        given |= given.get("added_cond_kwargs") or {}
        values = {name: given[name] for name in TOLD if given.get(name) is not None}
        heard.extend(dict(zip(values, sample, strict=True)) for sample in zip(*values.values(), strict=True))

    hook = model.register_forward_pre_hook(listen, with_kwargs=True)
    call()
    hook.remove()
    return heard


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(other[key].shape == value.shape and torch.allclose(other[key], value, atol=1e-5) for key, value in one.items())


def same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
        return
    if isinstance(a, list):
        assert len(a) == len(b), where
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            same(one, other, f"{where}.{number}")
        return
    a, b = torch.as_tensor(a).float(), torch.as_tensor(b).float()
    a, b = torch.broadcast_tensors(a, b) if where == "timestep" else (a, b)
    torch.testing.assert_close(a, b, msg=lambda m: f"{where}: {m}", atol=1e-5, rtol=1e-5)


def first_time(family: Family, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(time_B, noisy_BCHW) of the pipeline's first step, as this family's objective tells times."""
    scheduler = family.pipe.scheduler
    if isinstance(family.objective(), Flow):
        return scheduler.timesteps[:1] / scheduler.config.num_train_timesteps, latents
    return scheduler.timesteps[:1], scheduler.scale_model_input(latents * scheduler.init_noise_sigma, scheduler.timesteps[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_training_calls_the_denoiser_as_inference_does(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe, model = family.pipe, family.model
    latents = tiny.latents(pipe)
    call = {**tiny.sized(pipe), "num_inference_steps": 3, **call_of(pipe, family.no_guidance)}
    inference = overhear(
        model, lambda: pipe(prompt="the cat", latents=tiny.as_given(pipe, latents), **call, **GEOMETRY.get(name, {}))
    )
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
    call = {**tiny.sized(family.pipe), "num_inference_steps": 1, **call_of(family.pipe, 2.0)}
    call |= GEOMETRY.get(name, {}) | NEGATIVE.get(name, {})
    heard = told(family.model, lambda: family.pipe(prompt="the cat", **call))
    geometry = torch.tensor([[*ORIGINAL, *CROP, tiny.HEIGHT, tiny.WIDTH]] * 2)
    latents, time_B = tiny.latents(family.pipe), torch.tensor([0.5])
    cond = family.encode_captions(["", "the cat"], geometry)
    each = [{key: value[place : place + 1] for key, value in cond.items()} for place in (0, 1)]
    ours = told(family.model, lambda: [family.predict(latents, time_B, one) for one in each])
    assert len(ours) == 2 and any(not torch.equal(ours[0][key], ours[1][key]) for key in ours[0])
    halves = sorted(heard, key=lambda half: not alike(ours[0], half))  # which of them a pipeline asks for first is its own affair
    same(ours, halves, "told")
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


def raw(vae: Any, pixels_B3RG: torch.Tensor) -> torch.Tensor:
    """What a VAE says, a deviation off the middle where it has one; one of them sees films."""
    told = vae.encode(pixels_B3RG[:, :, None] if isinstance(vae, AutoencoderKLQwenImage) else pixels_B3RG)
    return told.latent if hasattr(told, "latent") else told.latent_dist.mean + told.latent_dist.std


@pytest.mark.parametrize("units", ["plain", "mean and std"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_pipeline_decodes_what_the_family_encoded(name: str, units: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    pipe = family.pipe
    if units != "plain":  # only SDXL's pipeline heeds them, and then only its family may
        pipe.vae.register_to_config(latents_mean=[0.5, -1.0, 2.0, 0.0], latents_std=[2.0, 3.0, 0.5, 1.0])
    pixels = torch.rand(1, 3, *tiny.size(pipe), generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = family.posterior(pixels)
    ours = posterior.mean_BCHW + posterior.std_BCHW
    heard: dict[str, torch.Tensor] = {}
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *a, **k: (heard.update(z=z), decode(z, *a, **k))[1]
    call = {**tiny.sized(pipe), "num_inference_steps": 1, **call_of(pipe, family.no_guidance)}
    pipe(prompt="the cat", callback_on_step_end=lambda *_: {"latents": tiny.packed(pipe, ours)}, **call)
    torch.testing.assert_close(heard["z"], raw(pipe.vae, pixels))


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
