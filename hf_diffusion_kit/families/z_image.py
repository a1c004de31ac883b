from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from .base import Conditioning, Family
from .targets import ATTENTION, FROM_MODEL

TURBO_SHIFT = 3.0
"""Z-Image-Turbo's scheduler shifts by 3, Z-Image's own by 6; nothing else in their configurations tells them apart."""


class ZImage(Family):
    """Z-Image and Z-Image-Turbo (Tongyi-MAI 2025): a Qwen3 as the text, and one sequence of text and picture from the first layer on."""

    name = "z-image"
    pipeline_class = ZImagePipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 512}
    no_guidance = 0.0
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": ATTENTION,
        "attention+ff": (*ATTENTION, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        "all-linear": FROM_MODEL,
    }
    patch = 2

    def usual_call(self) -> tuple[int, float]:
        return (9, 0.0) if self.pipe.scheduler.config.shift == TURBO_SHIFT else (50, 4.0)

    @property
    def native_size(self) -> int:
        return 1024  # as the pipeline draws; its configuration names none

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """As many tokens as there may be, and which of them are the caption's: the denoiser is given these alone."""
        device, most = self.pipe.text_encoder.device, self.most_tokens["tokenizer"]
        told, _ = self.pipe.encode_prompt(list(captions), device, False, max_sequence_length=most)
        text_BSD = torch.stack([pad(text_SD, (0, 0, 0, most - len(text_SD))) for text_SD in told])
        lengths_B = torch.tensor([len(text_SD) for text_SD in told], device=text_BSD.device)
        return {"text": text_BSD, "mask": torch.arange(most, device=text_BSD.device) < lengths_B[:, None]}

    @classmethod
    def tokenized(cls, tokenizer: Any, caption: str) -> int:
        said = [{"role": "user", "content": caption}]
        return super().tokenized(
            tokenizer, tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        )

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        """It counts time towards the picture, and answers picture minus noise; a picture is a film of one frame."""
        answers = self.model(
            list(noisy_BCHW.unsqueeze(2).unbind()),
            1 - time_B,
            [text_SD[mask_S] for text_SD, mask_S in zip(cond["text"], cond["mask"], strict=True)],
        ).sample
        return -torch.stack(answers).squeeze(2)
