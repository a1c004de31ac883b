from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from .base import Conditioning, Family
from .shift import scheduler_shift
from .targets import ATTENTION, FROM_MODEL


class Lumina2(Family):
    """Lumina-Image 2.0 (Qin et al. 2025): Gemma 2 under a system prompt, text and picture as one sequence, flow matching."""

    name = "lumina2"
    pipeline_class = Lumina2Pipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 256}  # with the system prompt
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": ATTENTION,
        "attention+ff": (*ATTENTION, "feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"),
        "all-linear": FROM_MODEL,
    }

    def usual_call(self) -> tuple[int, float]:
        return 30, 4.0

    def base_shift(self, height: int, width: int) -> float:
        """Where the shift is a matter of size, the pipeline takes the number of latent channels for the number of places."""
        config: Any = self.model.config
        return scheduler_shift(self.pipe.scheduler.config, int(config.in_channels))

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        told = [self._told(caption) for caption in captions]
        return {"text": torch.cat([text_1SD for text_1SD, _ in told]), "mask": torch.cat([mask_1S for _, mask_1S in told])}

    def _told(self, caption: str) -> tuple[Tensor, Tensor]:
        """(text_1SD, mask_1S). The unconditional half is the empty text without the system prompt."""
        text_1SD, mask_1S, nothing_1SD, short_1S = self.pipe.encode_prompt(
            caption,
            do_classifier_free_guidance=not caption,
            device=self.pipe.text_encoder.device,
            max_sequence_length=self.most_tokens["tokenizer"],
        )
        return (text_1SD, mask_1S) if caption else (nothing_1SD, short_1S)

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        """Its time runs from noise to picture, and so does its answer."""
        return -self.model(
            hidden_states=noisy_BCHW,
            timestep=1 - time_B,
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond["mask"],
        ).sample

    @classmethod
    def tokenized(cls, tokenizer: Any, caption: str) -> int:
        return super().tokenized(tokenizer, f"{system_prompt()} <Prompt Start> {caption}" if caption else "")


@cache
def system_prompt() -> str:
    """As the pipeline's class has it, without a model."""
    return str(Lumina2Pipeline(None, None, None, None, None).system_prompt)
