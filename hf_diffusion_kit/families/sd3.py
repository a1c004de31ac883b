from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from .base import Conditioning, Family
from .targets import JOINT


class SD3(Family):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024): two CLIPs and a T5, a transformer over text and picture together, flow matching."""

    name = "sd3"
    pipeline_class = StableDiffusion3Pipeline
    denoiser = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    may_lack = ("text_encoder_3",)
    trains_text_encoders = ("text_encoder", "text_encoder_2")
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer_3": 256}
    target_presets = JOINT
    left_out: ClassVar[dict[str, Any]] = {"image_encoder": None, "feature_extractor": None}

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        device = self.pipe.text_encoder.device
        embeds_BSD, _, pooled_BD, _ = self.pipe.encode_prompt(
            list(captions),
            None,
            None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.most_tokens["tokenizer_3"],
        )
        return {"text": embeds_BSD, "pooled": pooled_BD}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        steps = self.pipe.scheduler.config.num_train_timesteps
        return self.model(
            hidden_states=noisy_BCHW,
            timestep=time_B * steps,
            encoder_hidden_states=cond["text"],
            pooled_projections=cond["pooled"],
        ).sample
