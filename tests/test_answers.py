"""What `predict` answers is what the pipeline hands to its solver: the same sign, the same place for each number, the same scale.

Shape suffixes: B batch, C latent channels, H W latent height and width.
"""

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from hf_diffusion_kit.evaluation.gallery import call_of
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.objectives import Flow
from test_parity import CROP, GEOMETRY, ORIGINAL, Overheard, first_time


def handed_over(pipe: Any, latents_BCHW: Tensor, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(the answer, the latents) that the solver is given at the first step, in the pipeline's own layout."""
    heard: list[tuple[Tensor, Tensor]] = []

    def listen(answer: Tensor, time: Any, sample: Tensor, *args: Any, **kwargs: Any) -> None:
        heard.append((answer.clone(), sample.clone()))
        raise Overheard

    pipe.scheduler.step = listen
    with pytest.raises(Overheard):
        pipe(prompt="the cat", latents=tiny.as_given(pipe, latents_BCHW), **call)
    return heard[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answer_is_what_the_solver_is_given(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    latents_BCHW = tiny.latents(family.pipe)
    call = {
        **tiny.sized(family.pipe),
        "num_inference_steps": 3,
        **call_of(family.pipe, family.no_guidance),
        **GEOMETRY.get(name, {}),
    }
    theirs, sample = handed_over(family.pipe, latents_BCHW, call)
    time_B, noisy_BCHW = first_time(family, latents_BCHW)
    geometry = torch.tensor([[*ORIGINAL, *CROP, tiny.HEIGHT, tiny.WIDTH]])
    with torch.no_grad():
        ours_BCHW = family.predict(noisy_BCHW, time_B, family.encode_captions(["the cat"], geometry))
    assert ours_BCHW.shape == noisy_BCHW.shape
    # No two latents are alike, so their order tells where the pipeline has put each place.
    here, there = latents_BCHW.flatten().argsort(), sample.flatten().argsort()
    assert len(here) == len(there)
    torch.testing.assert_close(ours_BCHW.flatten()[here], theirs.flatten()[there].float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in FAMILIES if isinstance(FAMILIES[name](tiny.pipeline(name)).objective(), Flow)])
def test_times_are_drawn_from_where_the_solver_goes(name: str) -> None:
    """The shift of training is the one with which the pipeline sets its times for a picture of that size."""
    family = FAMILIES[name](tiny.pipeline(name))
    latents_BCHW, scheduler = tiny.latents(family.pipe), family.pipe.scheduler
    heard: list[Tensor] = []
    made = scheduler.set_timesteps

    @functools.wraps(made)
    def listen(*args: Any, **kwargs: Any) -> None:
        made(*args, **kwargs)
        heard.append(scheduler.sigmas.clone())
        raise Overheard

    scheduler.set_timesteps = listen
    steps = family.usual_call()[0]
    call = {**tiny.sized(family.pipe), "num_inference_steps": steps, **call_of(family.pipe, family.no_guidance)}
    with pytest.raises(Overheard):
        family.pipe(prompt="the cat", latents=tiny.as_given(family.pipe, latents_BCHW), **call)
    shift = family.base_shift(*latents_BCHW.shape[-2:])
    plain = [sigma / (shift - (shift - 1) * sigma) for sigma in heard[0][:-1].tolist()]  # undone, the times lie evenly
    gaps = [one - other for one, other in itertools.pairwise(plain)]
    assert max(gaps) - min(gaps) < 2e-3 + 0.2 * max(gaps)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_caption_is_not_heard_beyond_its_end(name: str) -> None:
    """Captions of a batch are filled up to one length; each is answered as if it were alone."""
    family = FAMILIES[name](tiny.pipeline(name))
    latents = [tiny.latents(family.pipe, seed) for seed in (0, 1)]
    geometry, times_B = torch.tensor([[*ORIGINAL, *CROP, tiny.HEIGHT, tiny.WIDTH]] * 2), torch.tensor([0.3, 0.7])
    if not isinstance(family.objective(), Flow):
        times_B = torch.tensor([300, 700])
    cond = family.encode_captions(["the cat", "a dog on the mat"], geometry)
    with torch.no_grad():
        whole = family.predict(torch.cat(latents), times_B, cond)
        for place in (0, 1):
            alone = {key: value[place : place + 1] for key, value in cond.items()}
            one = family.predict(latents[place], times_B[place : place + 1], alone)
            torch.testing.assert_close(whole[place], one[0], atol=1e-5, rtol=1e-4)
