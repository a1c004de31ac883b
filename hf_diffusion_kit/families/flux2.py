import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor

from .base import Conditioning, Family, Posterior
from .targets import ADDED, ATTENTION, FROM_MODEL

SINGLE = ("to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out")
"""Blocks that read text and picture as one sequence have attention and feed-forward in one layer; `to_out` is a list elsewhere."""
LAYERS = (*ATTENTION, *ADDED, *SINGLE)
STEPS, FEW_STEPS = 50, 4
"""With how many steps a base is drawn, and one that was distilled to few."""


class Flux2Klein(Family):
    """FLUX.2 [klein] (Black Forest Labs 2026): three layers of a Qwen3 as the text, and latents that are patches already.

    Latents here are the VAE's in patches of 2x2, 16 pixels a place and four times the channels. Its batch norm, which makes them the
    denoiser's units, knows a mean and a deviation for each of the four corners; the pipeline takes `latents` like that, too.
    """

    name = "flux2-klein"
    pipeline_class = Flux2KleinPipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 512}
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": LAYERS,
        "attention+ff": (*LAYERS, "ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        "all-linear": FROM_MODEL,
    }

    def usual_call(self) -> tuple[int, float]:
        return (FEW_STEPS, 1.0) if self.pipe.config.is_distilled else (STEPS, 4.0)

    @property
    def latent_size_divisor(self) -> int:
        return 2 * int(self.pipe.vae_scale_factor)

    @property
    def native_size(self) -> int:
        return int(self.pipe.default_sample_size * self.pipe.vae_scale_factor)

    def latent_units(self) -> tuple[Tensor | float, Tensor | float]:
        return 0.0, 1.0

    @torch.no_grad()
    def posterior(self, pixels_B3RG: Tensor) -> Posterior:
        told, norm, patches = super().posterior(pixels_B3RG), self.pipe.vae.bn, Flux2KleinPipeline._patchify_latents
        mean_1C11 = norm.running_mean.float().view(1, -1, 1, 1)
        std_1C11 = (norm.running_var.float().view(1, -1, 1, 1) + self.pipe.vae.config.batch_norm_eps).sqrt()
        return Posterior((patches(told.mean_BCHW) - mean_1C11) / std_1C11, patches(told.std_BCHW) / std_1C11)

    def base_shift(self, height: int, width: int) -> float:
        steps = FEW_STEPS if self.pipe.config.is_distilled else STEPS
        return math.exp(compute_empirical_mu(self.tokens_of(height, width), steps))

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        embeds_BSD, _ = self.pipe.encode_prompt(
            list(captions), device=self.pipe.text_encoder.device, max_sequence_length=self.most_tokens["tokenizer"]
        )
        return {"text": embeds_BSD}

    @classmethod
    def tokenized(cls, tokenizer: Any, caption: str) -> int:
        said = [{"role": "user", "content": caption}]
        return super().tokenized(
            tokenizer, tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        )

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        device = noisy_BCHW.device
        answer_BSC = self.model(
            hidden_states=Flux2KleinPipeline._pack_latents(noisy_BCHW),
            timestep=time_B,
            encoder_hidden_states=cond["text"],
            txt_ids=Flux2KleinPipeline._prepare_text_ids(cond["text"]).to(device),
            img_ids=Flux2KleinPipeline._prepare_latent_ids(noisy_BCHW).to(device),
        ).sample
        return answer_BSC.transpose(1, 2).reshape(noisy_BCHW.shape)
