"""What single families have of their own, beside what all of them promise."""

import math

import pytest
import torch

import tiny
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.families.targets import named
from hf_diffusion_kit.methods import Lora

GEOMETRY = torch.tensor([[tiny.HEIGHT, tiny.WIDTH, 0, 0, tiny.HEIGHT, tiny.WIDTH]])


def test_a_base_is_drawn_as_its_makers_draw_it() -> None:
    told = {
        name: FAMILIES[name](tiny.pipeline(name)).usual_call()
        for name in ("sd1", "flux", "flux-schnell", "flux2-klein", "z-image")
    }
    assert told == {"sd1": (25, 7.5), "flux": (28, 3.5), "flux-schnell": (4, 0.0), "flux2-klein": (50, 4.0), "z-image": (9, 0.0)}
    klein, z_image = tiny.pipeline("flux2-klein"), tiny.pipeline("z-image")
    klein.register_to_config(is_distilled=True)
    assert FAMILIES["flux2-klein"](klein).usual_call() == (4, 1.0)
    z_image.scheduler.register_to_config(shift=6.0)
    assert FAMILIES["z-image"](z_image).usual_call() == (50, 4.0)


@pytest.mark.parametrize(("distilled", "mu"), [(False, 2.0234), (True, 2.2912)])
def test_klein_moves_its_times_by_size_and_steps(distilled: bool, mu: float) -> None:
    """At 1024 pixels, 64x64 places: the line for 10 steps and the one for 200, and a straight line between."""
    pipe = tiny.pipeline("flux2-klein")
    pipe.register_to_config(is_distilled=distilled)
    few, many = 8.73809524e-05 * 4096 + 1.89833333, 0.00016927 * 4096 + 0.45666666
    steps = 4 if distilled else 50
    assert math.log(FAMILIES["flux2-klein"](pipe).base_shift(64, 64)) == pytest.approx(many + (few - many) * (200 - steps) / 190)
    assert math.log(FAMILIES["flux2-klein"](pipe).base_shift(64, 64)) == pytest.approx(mu, abs=1e-3)


def test_blocks_of_one_sequence_are_adapted_and_the_last_layer_is_not() -> None:
    flux = FAMILIES["flux"](tiny.pipeline("flux"))
    ends = flux.targets("attention+ff", "transformer")
    assert "single_transformer_blocks.0.proj_out" in ends and "proj_out" not in ends
    klein = FAMILIES["flux2-klein"](tiny.pipeline("flux2-klein"))
    (part,) = Lora(rank=2).adapt(klein, seed=0)
    adapted = {key.split(".lora_")[0] for key in part.parameters}
    assert {"single_transformer_blocks.0.attn.to_out", "transformer_blocks.0.attn.to_out.0"} <= adapted
    assert all(".attn." in name for name in adapted)


def test_a_pattern_is_the_layers_it_fits() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"b": torch.nn.Linear(1, 1)}), "b": torch.nn.Linear(1, 1)})
    assert named(model, ("b",)) == ("b",) and named(model, ("a.*", "*.c")) == ("a.b",) and named(model, ()) == ()


@pytest.mark.parametrize("caption", ["", "the cat", "a " * 900])
def test_what_is_counted_is_what_z_image_hears(caption: str) -> None:
    family = FAMILIES["z-image"](tiny.pipeline("z-image"))
    cond = family.encode_captions([caption], GEOMETRY)
    seen = family.count_tokens(caption).seen
    assert cond["text"].shape[1] == 512 and cond["mask"].sum() == seen and seen <= 512
    assert not cond["text"][0, seen:].any() and cond["mask"][0, :seen].all()


def test_a_guidance_distilled_model_is_told_that_nothing_is_guided() -> None:
    heard: dict[str, torch.Tensor] = {}
    for name in ("flux", "flux-schnell"):
        family = FAMILIES[name](tiny.pipeline(name))
        hook = family.model.register_forward_pre_hook(lambda _, __, told: heard.update(told), with_kwargs=True)
        with torch.no_grad():
            family.predict(tiny.latents(family.pipe), torch.tensor([0.5]), family.encode_captions(["a"], GEOMETRY))
        hook.remove()
        assert heard["guidance"] is None if name == "flux-schnell" else heard["guidance"].tolist() == [1.0]
