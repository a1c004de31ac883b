from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..errors import ConfigError, positive, unknown
from .base import Noised, randn_like, spread
from .measures import MEASURES

DENSITIES = ("logit-normal", "uniform")


def as_it_is(height: int, width: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Flow:
    """Rectified flow (Liu et al. 2022; Lipman et al. 2023): x_sigma = (1 - sigma) x + sigma eps, and the denoiser answers eps - x."""

    base_shift: Callable[[int, int], float] = as_it_is
    """(latent height, width) -> the shift that the base's own scheduler draws pictures of that size with."""
    shift: float | None = None
    """Moves the drawn times towards noise, as large pictures need (Esser et al. 2024): shift * t / (1 + (shift - 1) * t). None takes the
    base's own; 1 is none."""
    timestep_density: Literal["logit-normal", "uniform"] = "logit-normal"
    """How times are drawn, before the shift: most in the middle (Esser et al. 2024), or all alike."""
    logit_mean: float = 0.0
    """logit-normal: above 0 draws more noise, below 0 less."""
    logit_std: float = 1.0
    """logit-normal: the smaller, the closer to the middle."""
    loss_type: Literal["l2", "huber", "smooth_l1"] = "l2"
    huber_c: float = 0.1

    def __post_init__(self) -> None:
        positive("training", shift=self.shift, logit_std=self.logit_std, huber_c=self.huber_c)
        if not abs(self.logit_mean) < float("inf"):
            raise ConfigError(f"must be a number, got {self.logit_mean}", where="training: logit_mean", case=1)
        if self.timestep_density not in DENSITIES:
            raise unknown("density", self.timestep_density, DENSITIES, where="training: timestep_density")
        if self.loss_type not in MEASURES:
            raise unknown("measure", self.loss_type, MEASURES, where="training: loss_type")

    def noise(self, latents_BCHW: Tensor, generators: Sequence[Generator]) -> Noised:
        drawn_B = torch.stack([self._draw(generator) for generator in generators])
        return self.noise_at(latents_BCHW, self._shifted(drawn_B, latents_BCHW), generators)

    def noise_at(self, latents_BCHW: Tensor, time_B: Tensor, generators: Sequence[Generator]) -> Noised:
        eps_BCHW = randn_like(latents_BCHW, generators)
        sigma_B = time_B.to(latents_BCHW.device, torch.float32)
        sigma = spread(sigma_B, latents_BCHW)
        return Noised((1 - sigma) * latents_BCHW + sigma * eps_BCHW, sigma_B, eps_BCHW - latents_BCHW, torch.ones_like(sigma_B))

    def times(self, count: int) -> Tensor:
        return (torch.arange(count) * 2 + 1) / (2 * count)

    def error(self, answer_BCHW: Tensor, noised: Noised) -> Tensor:
        return MEASURES[self.loss_type](answer_BCHW.float() - noised.target_BCHW.float(), self.huber_c)

    def hints(self) -> dict[str, object]:
        """A reader draws as the base does, whatever times it was trained at."""
        return {}

    def _draw(self, generator: Generator) -> Tensor:
        if self.timestep_density == "uniform":
            return torch.rand((), generator=generator)
        return torch.sigmoid(torch.randn((), generator=generator) * self.logit_std + self.logit_mean)

    def _shifted(self, time_B: Tensor, latents_BCHW: Tensor) -> Tensor:
        height, width = latents_BCHW.shape[-2:]
        shift = self.base_shift(height, width) if self.shift is None else self.shift
        return shift * time_B / (1 + (shift - 1) * time_B)
