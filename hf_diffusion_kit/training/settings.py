from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from ..errors import ConfigError, positive, share


@dataclass(frozen=True)
class TrainSettings:
    """Section `[training]`; names and defaults are those of diffusers' own scripts where they have one."""

    steps: int = 1000
    """Optimizer steps."""
    learning_rate: float = 1e-4
    text_encoder_learning_rate: float | None = None
    """Rate of the text side where it is trained; None takes `learning_rate`."""
    batch_size: int = 1
    """Pictures at once; with prior preservation as many class pictures come beside them."""
    gradient_accumulation_steps: int = 1
    """Batches whose gradients are averaged before a step."""
    resolution: tuple[int, ...] | None = None
    """Pixels of the training pictures: one number for a square, or height and width. None takes the base's own."""
    random_flip: bool = False
    """Mirror a picture in half of its epochs. Not for text, digits or faces with a parting."""
    caption: Literal["random", "first", "longest", "shortest"] = "random"
    """Which of a picture's captions is used: `random` goes through all of them, one an epoch."""
    caption_dropout: float = 0.0
    """Share of samples whose caption is left empty, so that guidance keeps its unconditional half (Ho & Salimans 2022)."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate goes on after the warm-up: it stays, or falls to 0 at the last step."""
    lr_warmup_steps: int = 0
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this length."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    adam_weight_decay: float = 1e-2
    snr_gamma: float | None = None
    """Min-SNR weighting (Hang et al. 2023); 5 is usual. None weighs all noise levels alike."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16: base weights and arithmetic in bfloat16, trained weights in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: less memory, about 1.4 times the time."""
    seed: int = 0
    checkpointing_steps: int = 500
    """Steps between checkpoints; 0 saves only when stopped and at the end."""
    checkpoints_total_limit: int = 2
    """Checkpoints kept; the newest valid one is never removed."""

    def __post_init__(self) -> None:
        where = "training"
        positive(where, steps=self.steps, learning_rate=self.learning_rate, batch_size=self.batch_size)
        positive(where, text_encoder_learning_rate=self.text_encoder_learning_rate, snr_gamma=self.snr_gamma)
        positive(where, gradient_accumulation_steps=self.gradient_accumulation_steps, max_grad_norm=self.max_grad_norm)
        positive(where, checkpoints_total_limit=self.checkpoints_total_limit, adam_epsilon=self.adam_epsilon)
        share(where, caption_dropout=self.caption_dropout, adam_beta1=self.adam_beta1, adam_beta2=self.adam_beta2)
        share(where, adam_weight_decay=self.adam_weight_decay)
        for name in ("lr_warmup_steps", "checkpointing_steps", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"must be 0 or more, got {getattr(self, name)}", where=f"{where}: {name}", case=1)
        if self.resolution is not None and (len(self.resolution) not in (1, 2) or min(self.resolution) < 8):
            raise ConfigError(
                f"must be one number of pixels, or height and width; got {self.resolution}", where=f"{where}: resolution", case=1
            )

    def rate(self, step: int) -> float:
        """Factor of the learning rates at a step: a function of the step alone, so nothing of it has to be saved."""
        warm = min(1.0, (step + 1) / self.lr_warmup_steps) if self.lr_warmup_steps else 1.0
        if self.lr_scheduler == "constant":
            return warm
        done = max(0, step - self.lr_warmup_steps) / max(1, self.steps - self.lr_warmup_steps)
        if self.lr_scheduler == "linear":
            return warm * (1 - done)
        return warm * (1 + cos(pi * done)) / 2
