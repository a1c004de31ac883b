from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusionPipeline
from torch import Tensor

from ..objectives import Ddpm
from .base import Conditioning, Family, TokenCount


class SD1(Family):
    """Stable Diffusion 1.x (Rombach et al. 2022): one CLIP, a U-Net, epsilon or v as the checkpoint says."""

    name = "sd1"
    pipeline_class = StableDiffusionPipeline
    denoiser = "unet"
    # It paints pictures that it suspects black, without an error: class pictures and comparisons must show what was drawn.
    left_out: ClassVar[dict[str, Any]] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def objective(self, **options: Any) -> Ddpm:
        scheduler = self.pipe.scheduler
        return Ddpm(scheduler.alphas_cumprod, scheduler.config.prediction_type, **options)

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        encoder = self.pipe.text_encoder
        embeds_BSD, _ = self.pipe.encode_prompt(list(captions), encoder.device, 1, do_classifier_free_guidance=False)
        return {"text": embeds_BSD}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        return self.model(noisy_BCHW, time_B, cond["text"]).sample

    def count_tokens(self, caption: str) -> TokenCount:
        tokenizer = self.pipe.tokenizer
        whole = len(tokenizer(caption, truncation=False, verbose=False).input_ids)
        return TokenCount(min(whole, tokenizer.model_max_length), max(0, whole - tokenizer.model_max_length))
