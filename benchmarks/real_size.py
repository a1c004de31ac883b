"""The real configurations of Stable Diffusion 1.5 and XL with random weights: the arithmetic is the real one, the pictures are noise."""

from pathlib import Path
from typing import Any

import torch

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    from hf_diffusion_kit import digits

    return CLIPTokenizer.from_pretrained(digits.path("digits") / "tokenizer", model_max_length=77)


def clip(words: Any, width: int, layers: int, heads: int, *, projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    marks = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = CLIPTextConfig(vocab_size=49408, projection_dim=width, **sizes, **marks)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def sd15() -> Any:
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    words, scheduler = tokenizer(), PNDMScheduler(skip_prk_steps=True, **NOISE)
    parts = (AutoencoderKL(**VAE, sample_size=512), clip(words, 768, 12, 12), words, UNet2DConditionModel(**SD15_UNET), scheduler)
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sdxl() -> Any:
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    words, scheduler = tokenizer(), EulerDiscreteScheduler(**NOISE)
    vae = AutoencoderKL(**VAE, sample_size=1024, scaling_factor=0.13025, force_upcast=True)
    encoders = clip(words, 768, 12, 12), clip(words, 1280, 32, 20, projection=True)
    return StableDiffusionXLPipeline(vae, *encoders, words, words, UNet2DConditionModel(**SDXL_UNET), scheduler)


def folder(name: str, home: Path) -> Path:
    """`sd15` or `sdxl` as a folder of safetensors, made once: float32, as Stable Diffusion 1.5 lies on the Hub, XL in bfloat16."""
    base = home / f"{name}-random"
    if not base.is_dir():
        torch.manual_seed(0)
        half = base.with_suffix(".part")
        pipe = {"sd15": sd15, "sdxl": sdxl}[name]()
        (pipe.to(torch.bfloat16) if name == "sdxl" else pipe).save_pretrained(half)
        half.rename(base)
    return base


def pictures(home: Path, count: int, side: int) -> Path:
    """Different JPEGs with a caption each."""
    import json

    import numpy as np
    from PIL import Image

    place = home / f"pictures-{count}-{side}"
    if not place.is_dir():
        half = place.with_suffix(".part")
        half.mkdir(parents=True, exist_ok=True)
        rng, lines = np.random.default_rng(0), []
        for number in range(count):
            blocks = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            blocks.resize((side * 5 // 4, side), Image.Resampling.BICUBIC).save(half / f"{number:02d}.jpg", quality=92)
            lines.append(
                json.dumps({"file_name": f"{number:02d}.jpg", "text": f"a picture of {'abcdefghij'[number % 10]} on a table"})
            )
        (half / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        half.rename(place)
    return place
