"""Shape suffixes: B batch, C latent channels, H W latent height and width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Noised:
    noisy_BCHW: Tensor
    time_B: Tensor
    """Ddpm: training step, integer 0..T-1. Flow: sigma, the noise's share, float32 in 0..1."""
    target_BCHW: Tensor
    """What the denoiser should answer, in float32 or the latents' own dtype."""
    weight_B: Tensor
    """Factor of each sample's error."""


class Objective(Protocol):
    def noise(self, latents_BCHW: Tensor, generators: Sequence[Generator]) -> Noised:
        """Draw a time and a noise for each sample, from its own generator, so that a batch of two is two batches of one.

        Generators live on the CPU, so a run is the same on every device.
        """

    def noise_at(self, latents_BCHW: Tensor, time_B: Tensor, generators: Sequence[Generator]) -> Noised:
        """The same at given times."""

    def times(self, count: int) -> Tensor:
        """time_B: `count` times spread evenly over all there are, from little noise to much, to measure at."""

    def error(self, answer_BCHW: Tensor, noised: Noised) -> Tensor:
        """error_BCHW of an answer, in float32, not yet weighted."""

    def hints(self) -> dict[str, object]:
        """Scheduler settings that a reader of the trained weights must use; empty when the base's own are right."""


def spread(values_B: Tensor, like_BCHW: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), so that it multiplies each sample of the batch."""
    return values_B.view(-1, *[1] * (like_BCHW.ndim - 1)).to(like_BCHW)


def randn_like(like_BCHW: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Standard noise, a sample from each generator."""
    noise = [torch.randn(like_BCHW.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(like_BCHW)
