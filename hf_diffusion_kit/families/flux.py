from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline
from torch import Tensor

from .base import Conditioning, Family
from .targets import JOINT

GUIDANCE = 1.0
"""What a guidance-distilled checkpoint is told in training: a picture is itself, not one that guidance has pushed away from the mean.
At 3.5, where diffusers' script stands unless told otherwise, the adapter would learn to undo that push."""
SINGLE = ("proj_mlp", "single_transformer_blocks.*.proj_out")
"""Feed-forward layers of blocks that read text and picture as one sequence; the model's own last layer is called proj_out too."""


class Flux(Family):
    """FLUX.1 [dev] (Black Forest Labs 2024): CLIP for the whole, T5 word by word, and guidance as a number that the model is told."""

    name = "flux"
    pipeline_class = FluxPipeline
    denoiser = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    trains_text_encoders = ("text_encoder",)
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer_2": 512}
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = JOINT | {"attention+ff": (*JOINT["attention+ff"], *SINGLE)}
    left_out: ClassVar[dict[str, Any]] = {"image_encoder": None, "feature_extractor": None}
    patch = 2

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return bool(config("transformer").get("guidance_embeds"))

    def usual_call(self) -> tuple[int, float]:
        return 28, 3.5

    @property
    def native_size(self) -> int:
        return int(self.pipe.default_sample_size) * self.latent_size_divisor

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        embeds_BSD, pooled_BD, _ = self.pipe.encode_prompt(
            list(captions), device=self.pipe.text_encoder.device, max_sequence_length=self.most_tokens["tokenizer_2"]
        )
        return {"text": embeds_BSD, "pooled": pooled_BD}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        batch, channels, height, width = noisy_BCHW.shape
        text_BSD, config = cond["text"], self.pipe.transformer.config
        like: dict[str, Any] = {"device": text_BSD.device, "dtype": text_BSD.dtype}
        answer_BSD = self.model(
            hidden_states=FluxPipeline._pack_latents(noisy_BCHW, batch, channels, height, width),
            timestep=time_B,
            guidance=torch.full_like(time_B, GUIDANCE) if config.guidance_embeds else None,
            pooled_projections=cond["pooled"],
            encoder_hidden_states=text_BSD,
            txt_ids=torch.zeros(text_BSD.shape[1], 3, **like),
            img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, **like),
        ).sample
        return FluxPipeline._unpack_latents(answer_BSD, height, width, 1)


class FluxSchnell(Flux):
    """FLUX.1 [schnell] (Black Forest Labs 2024): distilled to few steps, without guidance, and with half the words."""

    name = "flux-schnell"
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer_2": 256}
    call_options: ClassVar[dict[str, Any]] = {"max_sequence_length": 256}

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        return not config("transformer").get("guidance_embeds")

    def usual_call(self) -> tuple[int, float]:
        return 4, 0.0
