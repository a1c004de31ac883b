"""Noise levels: their schedule and their weights. `alpha` is the signal's share of the power; SNR = alpha / (1 - alpha).

Shape suffixes: B batch, T training time steps.
"""

import torch
from torch import Tensor

HIGHEST_SNR = 1000.0
"""Cap of debiased estimation, as sd-scripts has it: without one, nearly clean latents would count for nothing."""
PURE_NOISE = 1e-7
"""Signal power at which nothing of the picture is left: schedulers that have to divide by it write 2**-24 for 0."""


def zero_terminal(alpha_T: Tensor) -> Tensor:
    """The same schedule, stretched so that its last step is pure noise (Lin et al. 2023, algorithm 1); twice changes nothing."""
    signal_T = alpha_T.sqrt()
    first, last = signal_T[0], signal_T[-1]
    return ((signal_T - last) * first / (first - last)).square()


def weights(alpha_B: Tensor, prediction: str, *, snr_gamma: float | None, debiased: bool) -> Tensor:
    """Factor of each sample's error: min-SNR (Hang et al. 2023) or debiased estimation (Yu et al. 2023); 1 without either.

    Both papers weigh the error of epsilon. v's error is epsilon's divided by alpha, so its factor is epsilon's times alpha, and a model
    is trained alike whichever of the two it predicts. At SNR 0 that factor would be 0 and the step that every picture starts from never
    be learnt; there it is 1.
    """
    if snr_gamma is None and not debiased:
        return torch.ones_like(alpha_B)
    snr_B = alpha_B / (1 - alpha_B)
    of_epsilon_B = snr_B.clamp(max=HIGHEST_SNR).rsqrt() if snr_gamma is None else (snr_gamma / snr_B).clamp(max=1)
    weight_B = of_epsilon_B if prediction == "epsilon" else of_epsilon_B * alpha_B
    return weight_B.where(alpha_B > PURE_NOISE, 1.0)
