from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, positive, share


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights follow the gradient."""

    optimizer: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedulefree"] = "adamw"
    learning_rate: float = 1e-4
    text_encoder_learning_rate: float | None = None
    """Rate of the text side where it is trained; None takes `learning_rate`."""
    token_learning_rate: float | None = None
    """Rate of new tokens (textual inversion); None takes `learning_rate`."""
    text_encoder_steps: int | None = None
    """Steps of a first stage in which the text side learns; then it is frozen and the denoiser learns (fast-DreamBooth)."""
    first_stage: Literal["text", "joint"] = "text"
    """text: the text side alone. joint: the denoiser too, at the text side's rate, and it is set back afterwards, as fast-DreamBooth did."""
    text_encoder_stop_step: int | None = None
    """Both learn, the text side only up to this step."""
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    """How the rate goes on after the warm-up: it stays, or falls to 0 at the last step."""
    lr_warmup_steps: int = 0
    lr_num_cycles: int = 1
    """Restarts of `cosine_with_restarts`."""
    lr_power: float = 1.0
    """Power of `polynomial`."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this length."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    adam_weight_decay: float = 1e-2
    ema_decay: float | None = None
    """Keep a moving average of the trained weights and give that out; 0.9999 is usual for long runs. None keeps none."""

    def __post_init__(self) -> None:
        where = "training"
        positive(where, learning_rate=self.learning_rate, text_encoder_learning_rate=self.text_encoder_learning_rate)
        positive(where, token_learning_rate=self.token_learning_rate, text_encoder_steps=self.text_encoder_steps)
        positive(where, text_encoder_stop_step=self.text_encoder_stop_step, lr_num_cycles=self.lr_num_cycles)
        positive(where, lr_power=self.lr_power, max_grad_norm=self.max_grad_norm, adam_epsilon=self.adam_epsilon)
        share(where, adam_beta1=self.adam_beta1, adam_beta2=self.adam_beta2, adam_weight_decay=self.adam_weight_decay)
        if self.ema_decay is not None:
            share(where, ema_decay=self.ema_decay)
        if self.lr_warmup_steps < 0:
            raise ConfigError(f"must be 0 or more, got {self.lr_warmup_steps}", where=f"{where}: lr_warmup_steps", case=1)
        if self.text_encoder_steps and self.text_encoder_stop_step:
            fix = "leave out one: stages one after the other, or both at once up to a step"
            raise ConfigError("does not go with text_encoder_stop_step", where=f"{where}: text_encoder_steps", fix=fix, case=1)
