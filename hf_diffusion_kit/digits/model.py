"""The parts of a Stable Diffusion (Rombach et al. 2022), each a stock class at toy size: about a million weights in all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from . import tokenizer as tokenizers

SIZE, LATENT_SIZE, LATENT_CHANNELS, TEXT_WIDTH = 32, 8, 4, 64


def text_tower(tokenizer: Any, seed: int) -> CLIPTextModel:
    """Two layers, width 64. The two token ids matter: CLIP takes the sentence's vector at the first end token."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizers.LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded(seed):
        return CLIPTextModel(config)


def autoencoder(seed: int) -> AutoencoderKL:
    """32×32×3 pixels <-> 8×8×4 latents. `scaling_factor` is set when it is trained."""
    with seeded(seed):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 32),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=SIZE,
        )


def denoiser(seed: int) -> UNet2DConditionModel:
    """8×8 -> 4×4 -> 8×8 with cross-attention to the caption everywhere."""
    with seeded(seed):
        return UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=2,  # diffusers reads it as the number of heads here
            norm_num_groups=8,
        )


def scheduler() -> DPMSolverMultistepScheduler:
    """Stable Diffusion's schedule, sampled with DPM-Solver++ (Lu et al. 2022): 8-10 steps are enough."""
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
    )
    # Not a setting of this solver, but DDIM and DDPM made from its config would clip latents to [-1, 1] by default and ruin them.
    solver.register_to_config(clip_sample=False)
    return solver


def pipeline(tokenizer: Any, text: CLIPTextModel, vae: AutoencoderKL, unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """A stock pipeline of these parts, without a safety checker: it can draw digits only."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fresh weights are drawn from torch's global stream, which is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
