"""Real classes at toy sizes, made here from configs, so that no test needs the network. One entry a family."""

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HEIGHT, WIDTH = 16, 24
"""Oblong: a square hides every swapped height and width."""
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(length: int = 16) -> CLIPTokenizer:
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "th", START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[("t", "h")], model_max_length=length, **special)


def clip_text(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        scaling_factor=0.18215,
        sample_size=16,
    ).eval()


def sd1() -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return StableDiffusionPipeline(
        vae(), clip_text(tokenizer), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


TOYS: dict[str, Callable[[], Any]] = {"sd1": sd1}


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
