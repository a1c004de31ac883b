from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor


@dataclass(frozen=True)
class Noised:
    noisy_BCHW: Tensor
    time_B: Tensor
    """Ddpm: training step, integer 0..T-1."""
    target_BCHW: Tensor
    """What the denoiser should answer, in float32 or the latents' own dtype."""
    weight_B: Tensor
    """Factor of each sample's squared error."""


class Objective(Protocol):
    def noise(self, latents_BCHW: Tensor, generator: Generator) -> Noised:
        """Draw a time and a noise for each sample. `generator` lives on the CPU, so a run is the same on every device."""


def spread(values_B: Tensor, like_BCHW: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), so that it multiplies each sample of the batch."""
    return values_B.view(-1, *[1] * (like_BCHW.ndim - 1)).to(like_BCHW)
