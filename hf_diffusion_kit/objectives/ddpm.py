from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Generator, Tensor

from ..errors import ConfigError, positive, unknown
from .base import Noised, randn_like, spread
from .levels import weights, zero_terminal
from .measures import MEASURES


@dataclass(frozen=True)
class Ddpm:
    """Discrete noising (Ho et al. 2020); the denoiser answers epsilon or v (Salimans & Ho 2022)."""

    alphas_cumprod_T: Tensor
    """Signal power left at each training step, from nearly 1 down to nearly 0, as the base's scheduler has it."""
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    snr_gamma: float | None = None
    """Min-SNR (Hang et al. 2023): cap on the signal-to-noise ratio in the weight; 5 is usual. None weighs every step alike."""
    debiased: bool = False
    """Debiased estimation (Yu et al. 2023): weight 1 / sqrt(SNR) of epsilon's error, SNR capped at 1000."""
    zero_terminal_snr: bool = False
    """Stretch the schedule so that its last step is pure noise (Lin et al. 2023). For v only; a reader must do the same: `hints`."""
    noise_offset: float = 0.0
    """Factor of one number a channel that is added to its noise (Guttenberg 2023); 0.1 is usual."""
    input_perturbation: float = 0.0
    """Factor of noise that is added to the input's noise and not to the target's (Ning et al. 2023); 0.1 is usual."""
    loss_type: Literal["l2", "huber", "smooth_l1"] = "l2"
    """Measure of error: squared, or sd-scripts' pseudo-Huber losses, which forgive outliers."""
    huber_c: float = 0.1
    """Where `huber` and `smooth_l1` pass from square to line, in units of the target (whose deviation is about 1)."""

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"this base predicts {self.prediction!r}, which is not trained here; epsilon and v_prediction are",
                where="scheduler/scheduler_config.json: prediction_type",
            )
        positive("training", snr_gamma=self.snr_gamma, huber_c=self.huber_c)
        for name in ("noise_offset", "input_perturbation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"must be 0 or more, got {getattr(self, name)}", where=f"training: {name}", case=1)
        if self.loss_type not in MEASURES:
            raise unknown("measure", self.loss_type, MEASURES, where="training: loss_type")
        if self.snr_gamma is not None and self.debiased:
            fix = "leave out one: both are weights of the noise levels"
            raise ConfigError("does not go with snr_gamma", where="training: debiased", fix=fix, case=1)
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ConfigError(
                "this base predicts epsilon, and in pure noise epsilon says nothing about the picture",
                where="training: zero_terminal_snr",
                fix="train a base that predicts v, or leave it out (noise_offset also makes dark and bright pictures possible)",
                case=1,
            )

    @cached_property
    def power_T(self) -> Tensor:
        """Signal power at each training step as it is trained."""
        return zero_terminal(self.alphas_cumprod_T) if self.zero_terminal_snr else self.alphas_cumprod_T

    def noise(self, latents_BCHW: Tensor, generators: Sequence[Generator]) -> Noised:
        steps = [torch.randint(len(self.alphas_cumprod_T), (), generator=generator) for generator in generators]
        return self.noise_at(latents_BCHW, torch.stack(steps), generators)

    def noise_at(self, latents_BCHW: Tensor, time_B: Tensor, generators: Sequence[Generator]) -> Noised:
        eps_BCHW = randn_like(latents_BCHW, generators)
        if self.noise_offset:
            eps_BCHW = eps_BCHW + self.noise_offset * randn_like(latents_BCHW[..., :1, :1], generators)
        given_BCHW = eps_BCHW
        if self.input_perturbation:
            given_BCHW = eps_BCHW + self.input_perturbation * randn_like(latents_BCHW, generators)
        alpha_B = self.power_T[time_B.to(self.power_T.device)]
        signal, sigma = spread(alpha_B.sqrt(), latents_BCHW), spread((1 - alpha_B).sqrt(), latents_BCHW)
        target = eps_BCHW if self.prediction == "epsilon" else signal * eps_BCHW - sigma * latents_BCHW
        weight_B = weights(alpha_B, self.prediction, snr_gamma=self.snr_gamma, debiased=self.debiased)
        noisy_BCHW = signal * latents_BCHW + sigma * given_BCHW
        device = latents_BCHW.device
        return Noised(noisy_BCHW, time_B.to(device), target, weight_B.to(device))

    def times(self, count: int) -> Tensor:
        return (torch.arange(count) * 2 + 1) * len(self.alphas_cumprod_T) // (2 * count)

    def error(self, answer_BCHW: Tensor, noised: Noised) -> Tensor:
        return MEASURES[self.loss_type](answer_BCHW.float() - noised.target_BCHW.float(), self.huber_c)

    def hints(self) -> dict[str, object]:
        """For `Scheduler.from_config(scheduler.config, **hints)`. Lin et al. advise guidance_rescale = 0.7 in the call beside them."""
        return {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if self.zero_terminal_snr else {}
