import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import SanaPipeline
from torch import Tensor

from .base import Conditioning, Family
from .targets import ATTENTION, FROM_MODEL


class Sana(Family):
    """Sana (Xie et al. 2024): Gemma 2 under a long instruction, a transformer with linear attention, an autoencoder of 32 pixels a latent."""

    name = "sana"
    pipeline_class = SanaPipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 300}
    # Binning draws at the nearest of a list of sizes and crops what it drew; a picture is to be drawn at its own.
    call_options: ClassVar[dict[str, Any]] = {"use_resolution_binning": False}
    # Its feed-forward layers are convolutions; peft adapts none whose groups are not a divisor of the rank, as those of `conv_depth`.
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": ATTENTION,
        "attention+ff": (*ATTENTION, "conv_inverted", "conv_point"),
        "all-linear": FROM_MODEL,
    }

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return not config("transformer").get("guidance_embeds")  # Sprint, of few steps

    def usual_call(self) -> tuple[int, float]:
        return 20, 4.5

    @property
    def divides(self) -> int:
        return max(32, super().divides)  # its call insists, whatever the autoencoder

    def moments(self, pixels_B3RG: Tensor) -> tuple[Tensor, Tensor]:
        latents_BCHW = self.pipe.vae.encode(pixels_B3RG).latent  # it has no doubts
        return latents_BCHW, torch.zeros_like(latents_BCHW)

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """The unconditional half is the empty text without the instruction."""
        instruction = inspect.signature(self.pipe.__call__).parameters["complex_human_instruction"].default
        told = [
            self.pipe.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                device=self.pipe.text_encoder.device,
                max_sequence_length=self.most_tokens["tokenizer"],
                complex_human_instruction=instruction if caption else None,
            )
            for caption in captions
        ]
        return {"text": torch.cat([text_1SD for text_1SD, *_ in told]), "mask": torch.cat([mask_1S for _, mask_1S, *_ in told])}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        config: Any = self.model.config
        steps = self.pipe.scheduler.config.num_train_timesteps
        answer_BCHW = self.model(
            noisy_BCHW,
            timestep=time_B * steps * config.timestep_scale,
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond["mask"],
        ).sample
        return answer_BCHW[:, : noisy_BCHW.shape[1]]  # some answer with a variance too

    @classmethod
    def tokenized(cls, tokenizer: Any, caption: str) -> int:
        return super().tokenized(tokenizer, caption.lower().strip())  # so the pipeline tells it
