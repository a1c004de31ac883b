"""Flow matching against closed forms and diffusers' own scheduler, and settings that mean something to one kind of noising only.

Shape suffixes: B batch, C latent channels, H W latent height and width.
"""

import math
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Generator, Tensor

import tiny
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.families.shift import scheduler_shift
from hf_diffusion_kit.objectives import Ddpm, Flow
from hf_diffusion_kit.training.settings import TrainSettings

LATENTS_BCHW = torch.randn(3, 4, 5, 6, generator=Generator().manual_seed(9))
DYNAMIC = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


def draws(count: int = 3, first: int = 0) -> list[Generator]:
    return [Generator().manual_seed(first + number) for number in range(count)]


def times(objective: Flow, count: int = 4000, size: tuple[int, int] = (1, 1)) -> Tensor:
    return objective.noise(torch.zeros(count, 1, *size), draws(count)).time_B


def test_noise_is_mixed_as_diffusers_mixes_it_and_the_target_is_the_way_there() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for place in (0, 400, 999):
        sigma, step = scheduler.sigmas[place], scheduler.timesteps[place]
        told = Flow().noise_at(LATENTS_BCHW, sigma.expand(3), draws())
        eps_BCHW = torch.stack([torch.randn(LATENTS_BCHW.shape[1:], generator=one) for one in draws()])
        torch.testing.assert_close(told.noisy_BCHW, scheduler.scale_noise(LATENTS_BCHW, step.expand(3), eps_BCHW))
        assert torch.equal(told.target_BCHW, eps_BCHW - LATENTS_BCHW) and told.weight_B.tolist() == [1, 1, 1]
        # one step along the target from anywhere ends at the picture, and that is what the solver takes
        torch.testing.assert_close(told.noisy_BCHW - sigma * told.target_BCHW, LATENTS_BCHW, atol=1e-5, rtol=1e-5)


def test_times_are_drawn_as_they_say() -> None:
    logit = torch.logit(times(Flow(logit_mean=0.5, logit_std=0.7)))
    assert abs(float(logit.mean()) - 0.5) < 0.04 and abs(float(logit.std()) - 0.7) < 0.03
    even = times(Flow(timestep_density="uniform"))
    assert abs(float(even.mean()) - 0.5) < 0.02 and abs(float(even.std()) - 1 / math.sqrt(12)) < 0.01
    assert float(even.min()) >= 0 and float(even.max()) <= 1


def test_the_shift_is_the_bases_own_by_size_or_the_one_that_was_set() -> None:
    plain, told = times(Flow()), []

    def by_size(height: int, width: int) -> float:
        told.append((height, width))
        return 3.0

    shifted = times(Flow(by_size), size=(2, 5))
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))
    assert set(told) == {(2, 5)}
    assert torch.equal(times(Flow(by_size, shift=1.0)), plain)
    assert float(times(Flow(shift=6.0)).mean()) > float(shifted.mean()) > float(plain.mean())


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("tokens", [64, 256, 1024, 4096])
def test_the_shift_of_a_size_is_the_schedulers_own(tokens: int, kind: Any) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC, time_shift_type=kind)  # type: ignore[arg-type]
    mu = calculate_shift(tokens)
    scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1], mu=mu)
    shift = scheduler_shift(scheduler.config, tokens)
    for before, after in zip((0.9, 0.5, 0.1), scheduler.sigmas[:3].tolist(), strict=True):
        assert after == pytest.approx(shift * before / (1 + (shift - 1) * before), abs=1e-6)


def test_a_batch_of_three_is_three_batches_of_one_and_a_run_is_its_seed() -> None:
    whole = Flow().noise(LATENTS_BCHW, draws())
    for place in range(3):
        alone = Flow().noise(LATENTS_BCHW[place : place + 1], [draws()[place]])
        assert torch.equal(alone.noisy_BCHW[0], whole.noisy_BCHW[place]) and alone.time_B[0] == whole.time_B[place]
    assert not torch.equal(Flow().noise(LATENTS_BCHW, draws(first=1)).time_B, whole.time_B)
    assert Flow().times(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_the_error_is_measured_as_asked() -> None:
    told = Flow().noise(LATENTS_BCHW, draws())
    answer = told.target_BCHW + 2
    assert torch.allclose(Flow().error(answer, told), torch.full_like(answer, 4.0), atol=1e-5)
    assert Flow(loss_type="huber").error(answer, told).mean() < 1


def test_a_setting_of_the_other_kind_of_noising_is_refused_by_name() -> None:
    flow, ddpm = FAMILIES["sd3"](tiny.pipeline("sd3")), FAMILIES["sd1"](tiny.pipeline("sd1"))
    assert isinstance(flow.objective(**TrainSettings().objective_options()), Flow)
    assert isinstance(ddpm.objective(**TrainSettings().objective_options()), Ddpm)
    with pytest.raises(ConfigError, match=r"training: snr_gamma: means nothing for a base of flow matching"):
        flow.objective(**TrainSettings(snr_gamma=5.0).objective_options())
    with pytest.raises(ConfigError, match=r"training: shift: means nothing for a base that was noised step by step"):
        ddpm.objective(**TrainSettings(shift=3.0).objective_options())


WRONG = {
    "shift": ({"shift": 0.0}, "shift: must be above 0"),
    "std": ({"logit_std": -1.0}, "logit_std: must be above 0"),
    "mean": ({"logit_mean": math.inf}, "logit_mean: must be a number"),
    "density": ({"timestep_density": "logit_normal"}, "did you mean 'logit-normal'"),
    "loss": ({"loss_type": "l3"}, "unknown measure 'l3'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name: str) -> None:
    told, line = WRONG[name]
    with pytest.raises(ConfigError, match=line):
        Flow(**told)
