from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..errors import ConfigError
from .base import Noised, spread


@dataclass(frozen=True)
class Ddpm:
    """Discrete noising (Ho et al. 2020), epsilon or v (Salimans & Ho 2022), min-SNR weights (Hang et al. 2023) if asked for."""

    alphas_cumprod_T: Tensor
    """Signal power left at each training step, from nearly 1 down to nearly 0."""
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    snr_gamma: float | None = None
    """Cap on the signal-to-noise ratio in the weight; 5 is usual. None weighs every step alike."""

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"this base predicts {self.prediction!r}, which is not trained here; epsilon and v_prediction are",
                where="scheduler/scheduler_config.json: prediction_type",
            )
        if self.snr_gamma is not None and self.snr_gamma <= 0:
            raise ConfigError(f"must be above 0, got {self.snr_gamma}", where="snr_gamma", fix="5 is usual")

    def noise(self, latents_BCHW: Tensor, generator: Generator) -> Noised:
        batch = len(latents_BCHW)
        step_B = torch.randint(len(self.alphas_cumprod_T), (batch,), generator=generator)
        eps_BCHW = torch.randn(latents_BCHW.shape, generator=generator).to(latents_BCHW)
        alpha_B = self.alphas_cumprod_T[step_B]
        signal, sigma = spread(alpha_B.sqrt(), latents_BCHW), spread((1 - alpha_B).sqrt(), latents_BCHW)
        target = eps_BCHW if self.prediction == "epsilon" else signal * eps_BCHW - sigma * latents_BCHW
        device = latents_BCHW.device
        noisy_BCHW = signal * latents_BCHW + sigma * eps_BCHW
        return Noised(noisy_BCHW, step_B.to(device), target, self._weight(alpha_B).to(device))

    def _weight(self, alpha_B: Tensor) -> Tensor:
        if self.snr_gamma is None:
            return torch.ones_like(alpha_B)
        snr_B = alpha_B / (1 - alpha_B)
        capped_B = snr_B.clamp(max=self.snr_gamma)
        return capped_B / (snr_B if self.prediction == "epsilon" else snr_B + 1)
