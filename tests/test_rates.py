"""Learning rates: diffusers' curves as functions of the step alone."""

from typing import Any

import pytest
import torch
from diffusers.optimization import get_scheduler

from hf_diffusion_kit.training.rates import CURVES, factor
from hf_diffusion_kit.training.settings_optimizer import OptimizerSettings


def theirs(settings: OptimizerSettings, steps: int) -> list[float]:
    """Factor of each step as diffusers has it."""
    rate = settings.learning_rate
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    name = "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=settings.lr_num_cycles,
        power=settings.lr_power,
    )
    told = []
    for _ in range(steps + 1):
        told.append(optimizer.param_groups[0]["lr"] / rate)
        optimizer.step()
        scheduler.step()
    return told


@pytest.mark.parametrize("warm", [0, 4])
@pytest.mark.parametrize(
    "options",
    [
        *({"lr_scheduler": name} for name in CURVES),
        {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 3},
        {"lr_scheduler": "polynomial", "lr_power": 2.5, "learning_rate": 2e-6},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_the_curves_are_diffusers_from_the_warm_up_to_the_last_step(options: dict[str, Any], warm: int) -> None:
    settings = OptimizerSettings(lr_warmup_steps=warm, **options)
    other = theirs(settings, 25)
    for step in range(warm, 26):
        assert factor(settings, step, 25) == pytest.approx(other[step], abs=1e-12), step


@pytest.mark.parametrize("name", CURVES)
def test_the_warm_up_is_diffusers_one_step_earlier_so_that_no_step_is_lost(name: Any) -> None:
    settings = OptimizerSettings(lr_scheduler=name, lr_warmup_steps=4)
    assert [factor(settings, step, 20) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert theirs(settings, 20)[:4] == pytest.approx([0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("warm", [0, 1, 5, 9])
def test_no_step_of_a_run_has_a_rate_below_nothing_or_above_its_own(name: Any, warm: int) -> None:
    settings = OptimizerSettings(lr_scheduler=name, lr_warmup_steps=warm, lr_num_cycles=2)
    for steps in (1, 5, 7):
        told = [factor(settings, step, steps) for step in range(steps + 3)]
        assert all(0 <= one <= 1 for one in told) and all(one > 0 for one in told[:steps])


def test_a_rate_below_polynomials_last_one_stays() -> None:
    settings = OptimizerSettings(lr_scheduler="polynomial", learning_rate=5e-8)
    assert {factor(settings, step, 10) for step in range(11)} == {1.0}
