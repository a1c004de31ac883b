from dataclasses import dataclass
from typing import Any, Literal

from ..errors import positive


@dataclass(frozen=True)
class NoiseSettings:
    """What is asked of the model: noise levels, their weights, the measure of error. None of it is on unless asked for."""

    snr_gamma: float | None = None
    """Min-SNR weighting (Hang et al. 2023); 5 is usual. None weighs all noise levels alike."""
    debiased: bool = False
    """Weights of debiased estimation (Yu et al. 2023): 1 / sqrt(SNR)."""
    zero_terminal_snr: bool = False
    """Shift the schedule so that its last step is pure noise (Lin et al. 2023): very dark and very bright pictures; v-prediction only."""
    noise_offset: float = 0.0
    """Share of noise that is one number for a whole channel of a picture (Guttenberg 2023); 0.1 is usual, 0 is none."""
    input_perturbation: float = 0.0
    """Noise added to the input's noise and not to the answer (Ning et al. 2023); 0.1 is usual, 0 is none."""
    timestep_density: Literal["logit-normal", "uniform"] = "logit-normal"
    """Flow matching (SD3, FLUX ...): how noise levels are drawn, most in the middle (Esser et al. 2024) or all alike."""
    logit_mean: float = 0.0
    """Flow matching, logit-normal: above 0 draws more noise, below 0 less."""
    logit_std: float = 1.0
    """Flow matching, logit-normal: the smaller, the closer to the middle."""
    shift: float | None = None
    """Flow matching: moves the drawn levels towards noise; None takes the base's own for the size of picture, 1 is none."""
    loss_type: Literal["l2", "huber", "smooth_l1"] = "l2"
    """Measure of error; the others forgive outliers."""
    huber_c: float = 0.1
    """Where `huber` and `smooth_l1` pass from square to line."""

    def __post_init__(self) -> None:
        positive("training", snr_gamma=self.snr_gamma, huber_c=self.huber_c, logit_std=self.logit_std, shift=self.shift)

    def objective_options(self) -> dict[str, Any]:
        """For `Family.objective`."""
        return {name: getattr(self, name) for name in NoiseSettings.__dataclass_fields__}
