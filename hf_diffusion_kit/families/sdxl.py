from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from .base import Conditioning, Family, plain_unet


class SDXL(Family):
    """Stable Diffusion XL (Podell et al. 2023): two text encoders, and the picture's size and crop as a third condition."""

    name = "sdxl"
    pipeline_class = StableDiffusionXLPipeline
    denoiser = "unet"
    learns_words = True
    text_encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    reads_geometry = True
    # No hidden mark in pictures: class pictures would teach it.
    left_out: ClassVar[dict[str, Any]] = {"image_encoder": None, "feature_extractor": None, "add_watermarker": False}

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return plain_unet(config("unet")) and config("unet").get("addition_embed_type") == "text_time"

    def latent_units(self) -> tuple[Tensor | float, Tensor | float]:
        config = self.pipe.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return 0.0, config.scaling_factor
        mean_1C11, std_1C11 = (torch.tensor(told).view(1, -1, 1, 1) for told in (config.latents_mean, config.latents_std))
        return mean_1C11, config.scaling_factor / std_1C11

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        device = self.pipe.text_encoder.device
        embeds_BSD, _, pooled_BD, _ = self.pipe.encode_prompt(
            list(captions), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if self.pipe.config.force_zeros_for_empty_prompt:  # the unconditional half is then zeros, not the encoded empty text
            told_B1 = torch.tensor([[bool(caption)] for caption in captions], device=embeds_BSD.device)
            embeds_BSD = embeds_BSD.where(told_B1[:, :, None], 0)
            pooled_BD = pooled_BD.where(told_B1, 0)
        return {"text": embeds_BSD, "pooled": pooled_BD, "geometry": geometry_B6.to(embeds_BSD)}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        added = {"text_embeds": cond["pooled"], "time_ids": cond["geometry"]}
        return self.model(noisy_BCHW, time_B, cond["text"], added_cond_kwargs=added).sample
