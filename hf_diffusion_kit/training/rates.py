"""The learning rate's factor as a function of the step alone, so nothing of it has to be saved and a resumed run is exact.

The curves are those of `diffusers.optimization.get_scheduler`. The warm-up is one step ahead of it: diffusers takes the first step at
rate 0, which changes nothing.
"""

from collections.abc import Callable
from math import cos, pi

from .settings_optimizer import OptimizerSettings

LAST_POLYNOMIAL = 1e-7
"""Rate at which `polynomial` ends, as in diffusers."""

CURVES: dict[str, Callable[[OptimizerSettings, float], float]] = {
    "constant": lambda settings, done: 1.0,
    "linear": lambda settings, done: 1 - done,
    "cosine": lambda settings, done: (1 + cos(pi * done)) / 2,
    "cosine_with_restarts": lambda settings, done: (1 + cos(pi * (settings.lr_num_cycles * done % 1))) / 2 if done < 1 else 0.0,
    "polynomial": lambda settings, done: _polynomial(1 - done, settings.lr_power, LAST_POLYNOMIAL / settings.learning_rate),
}
"""Name -> factor after the share `done` of the steps that follow the warm-up."""


def factor(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Factor of the learning rates for step 0..steps-1."""
    warm = settings.lr_warmup_steps
    if step < warm:
        return (step + 1) / warm
    return CURVES[settings.lr_scheduler](settings, min(1.0, (step - warm) / max(1, steps - warm)))


def _polynomial(left: float, power: float, end: float) -> float:
    return (1 - min(1.0, end)) * left**power + min(1.0, end)
