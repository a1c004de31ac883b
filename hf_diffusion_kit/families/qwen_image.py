from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import QwenImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from .base import Conditioning, Family
from .targets import ADDED, ATTENTION, FROM_MODEL

FEED_FORWARD = tuple(f"{side}_mlp.net.{layer}" for side in ("img", "txt") for layer in ("0.proj", "2"))


class QwenImage(Family):
    """Qwen-Image (Wu et al. 2025): a vision-language model reads the caption, a transformer over text and picture together, a video VAE."""

    name = "qwen-image"
    pipeline_class = QwenImagePipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    # Of the template around a caption 34 tokens are dropped before it; what comes after it is the first to be cut.
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 512}
    guidance_argument = "true_cfg_scale"
    call_options: ClassVar[dict[str, Any]] = {"negative_prompt": " "}  # without one it does not guide, whatever the scale
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (*ATTENTION, *ADDED),
        "attention+ff": (*ATTENTION, *ADDED, *FEED_FORWARD),
        "all-linear": FROM_MODEL,
    }

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return not config("transformer").get("guidance_embeds")

    def usual_call(self) -> tuple[int, float]:
        return 50, 4.0

    @property
    def native_size(self) -> int:
        return int(self.pipe.default_sample_size) * self.latent_size_divisor

    def moments(self, pixels_B3RG: Tensor) -> tuple[Tensor, Tensor]:
        told = self.pipe.vae.encode(pixels_B3RG[:, :, None]).latent_dist  # a film of one picture
        return told.mean[:, :, 0], told.std[:, :, 0]

    def latent_units(self) -> tuple[Tensor | float, Tensor | float]:
        config = self.pipe.vae.config
        mean_1C11, std_1C11 = (torch.tensor(told).view(1, -1, 1, 1) for told in (config.latents_mean, config.latents_std))
        return mean_1C11, 1 / std_1C11

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """Each by itself, as it is; then filled up to one length, so that they stack."""
        device, most = self.pipe.text_encoder.device, self.most_tokens["tokenizer"]
        told = [caption or self.call_options["negative_prompt"] for caption in captions]
        texts_1SD = [self.pipe.encode_prompt(text, device=device, max_sequence_length=most)[0] for text in told]
        lengths_B1 = torch.tensor([[text_1SD.shape[1]] for text_1SD in texts_1SD], device=device)
        text_BSD = torch.cat([pad(text_1SD, (0, 0, 0, most - text_1SD.shape[1])) for text_1SD in texts_1SD])
        return {"text": text_BSD, "mask": torch.arange(most, device=device) < lengths_B1}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        batch, channels, height, width = noisy_BCHW.shape
        longest = int(cond["mask"].sum(1).max())
        mask_BS = cond["mask"][:, :longest]
        answer_BND = self.model(
            hidden_states=QwenImagePipeline._pack_latents(noisy_BCHW, batch, channels, height, width),
            timestep=time_B,
            encoder_hidden_states=cond["text"][:, :longest],
            encoder_hidden_states_mask=None if mask_BS.all() else mask_BS,
            img_shapes=[[(1, height // 2, width // 2)]] * batch,
        ).sample
        return QwenImagePipeline._unpack_latents(answer_BND, height, width, 1).squeeze(2)
