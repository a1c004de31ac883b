"""Real classes at toy sizes, made here from configs, so that no test needs the network. One entry a family."""

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HEIGHT, WIDTH = 16, 24
"""Oblong: a square hides every swapped height and width."""
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(length: int = 16, merge: tuple[str, str] = ("t", "h"), pad: str = END) -> CLIPTokenizer:
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "".join(merge), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[merge], model_max_length=length, **special)


def clip_text(tokenizer: CLIPTokenizer, kind: type[Any] = CLIPTextModel, activation: str = "quick_gelu") -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=24,
        hidden_act=activation,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def vae(scaling_factor: float = 0.18215) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        scaling_factor=scaling_factor,
        sample_size=16,
    ).eval()


def unet(**more: Any) -> UNet2DConditionModel:
    told: dict[str, Any] = {"cross_attention_dim": 32, "attention_head_dim": 4} | more
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **told,
    ).eval()


BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def ddim(prediction: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction)


def sd1() -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer()
    parts = vae(), clip_text(tokenizer), tokenizer, unet(), ddim()
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sd2() -> StableDiffusionPipeline:
    """At 768 pixels: it predicts v."""
    tokenizer = clip_tokenizer(pad="a")  # the real one pads with "!"
    denoiser = unet(use_linear_projection=True, attention_head_dim=(2, 4))
    parts = vae(), clip_text(tokenizer, activation="gelu"), tokenizer, denoiser, ddim("v_prediction")
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sdxl() -> StableDiffusionXLPipeline:
    """The real tokenizers share their words; these do not, so that whoever asks only one of them is found out."""
    first, second = clip_tokenizer(), clip_tokenizer(merge=("d", "o"), pad="a")
    denoiser = unet(
        cross_attention_dim=64,  # both encoders' widths
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,  # six numbers of the picture, and the pooled text
    )
    return StableDiffusionXLPipeline(
        vae(0.13025),
        clip_text(first),
        clip_text(second, CLIPTextModelWithProjection, "gelu"),
        first,
        second,
        denoiser,
        EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )


TOYS: dict[str, Callable[[], Any]] = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl}


@functools.cache
def _pickled(name: str) -> bytes:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = TOYS[name]()
    pipe.set_progress_bar_config(disable=True)
    buffer = io.BytesIO()
    pickle.dump(pipe, buffer)
    return buffer.getvalue()


def pipeline(name: str = "sd1") -> Any:
    """A new pipeline each time, always with the same weights."""
    return pickle.loads(_pickled(name))
