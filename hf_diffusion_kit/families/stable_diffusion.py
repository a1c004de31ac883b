from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusionPipeline
from torch import Tensor

from .base import Conditioning, Family, plain_unet


class SD1(Family):
    """Stable Diffusion 1.x (Rombach et al. 2022): CLIP's text encoder, a U-Net, epsilon or v as the checkpoint says."""

    name = "sd1"
    pipeline_class = StableDiffusionPipeline
    denoiser = "unet"
    learns_words = True
    # It paints pictures that it suspects black, without an error: class pictures and comparisons must show what was drawn.
    left_out: ClassVar[dict[str, Any]] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return plain_unet(config("unet")) and not second(config("unet"))

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        encoder = self.pipe.text_encoder
        embeds_BSD, _ = self.pipe.encode_prompt(list(captions), encoder.device, 1, do_classifier_free_guidance=False)
        return {"text": embeds_BSD}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        return self.model(noisy_BCHW, time_B, cond["text"]).sample


class SD2(SD1):
    """Stable Diffusion 2.x (Stability AI 2022): OpenCLIP's text encoder, v-prediction at 768 pixels, epsilon at 512.

    Which layer of the encoder is read is a matter of its config (23 layers: the last but one of 24, and the final norm).
    """

    name = "sd2"

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return plain_unet(config("unet")) and second(config("unet"))


def second(unet: Mapping[str, Any]) -> bool:
    """2.x hears OpenCLIP, 1024 wide, where 1.x hears CLIP, 768; smaller ones are told by the layers around their attention."""
    return unet.get("cross_attention_dim") == 1024 or bool(unet.get("use_linear_projection"))
