"""The denoisers that people train at their real size, on the meta device: shapes without a weight.

Configurations are those of the published bases (diffusers' own defaults are most of them); sizes of frozen encoders come from their
configurations too. Shape suffixes: B batch, C latent channels, H W latent height and width, S tokens, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import real_size
import torch
from torch import Tensor


@dataclass(frozen=True)
class Denoiser:
    base: str
    """The published base whose configuration this is."""
    family: str
    kind: str
    """Class of diffusers."""
    config: dict[str, Any]
    pixels: int
    """Side of the pictures it was made for."""
    inputs: Callable[[int], dict[str, Any]]
    """Side in pixels -> arguments of one forward pass of one picture."""
    encoders: dict[str, float]
    """Frozen text encoder -> billions of parameters."""


def of(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def unet(width: int, tokens: int = 77, **more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda side: {
        "sample": of(1, 4, side // 8, side // 8),
        "timestep": of(1),
        "encoder_hidden_states": of(1, tokens, width),
        **more,
    }


def sd3(side: int) -> dict[str, Any]:
    return {
        "hidden_states": of(1, 16, side // 8, side // 8),
        "timestep": of(1),
        "encoder_hidden_states": of(1, 77 + 256, 4096),
        "pooled_projections": of(1, 2048),
    }


def flux(side: int) -> dict[str, Any]:
    places = (side // 16) ** 2
    return {
        "hidden_states": of(1, places, 64),
        "timestep": of(1),
        "guidance": of(1),
        "encoder_hidden_states": of(1, 512, 4096),
        "pooled_projections": of(1, 768),
        "img_ids": of(places, 3),
        "txt_ids": of(512, 3),
    }


def flux2(side: int) -> dict[str, Any]:
    places = (side // 16) ** 2
    return {
        "hidden_states": of(1, places, 128),
        "timestep": of(1),
        "encoder_hidden_states": of(1, 512, 7680),
        "img_ids": of(1, places, 4),
        "txt_ids": of(1, 512, 4),
    }


def qwen(side: int) -> dict[str, Any]:
    return {
        "hidden_states": of(1, (side // 16) ** 2, 64),
        "timestep": of(1),
        "encoder_hidden_states": of(1, 256, 3584),
        "img_shapes": [[(1, side // 16, side // 16)]],
    }


def sana(side: int) -> dict[str, Any]:
    return {"hidden_states": of(1, 32, side // 32, side // 32), "timestep": of(1), "encoder_hidden_states": of(1, 300, 2304)}


def aura(side: int) -> dict[str, Any]:
    return {"hidden_states": of(1, 4, side // 8, side // 8), "timestep": of(1), "encoder_hidden_states": of(1, 256, 2048)}


SDXL_TOLD = {"added_cond_kwargs": {"text_embeds": of(1, 1280), "time_ids": of(1, 6)}}
SD2_UNET = {
    **real_size.SD15_UNET,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD35_LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
    "pos_embed_max_size": 192,
}
SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
CLIP_L, CLIP_H, CLIP_G, T5_XXL = 0.123, 0.34, 0.695, 4.762
THREE = {"CLIP-L": CLIP_L, "OpenCLIP-G": CLIP_G, "T5-XXL": T5_XXL}
UNET, FLUX, FLUX2 = "UNet2DConditionModel", "FluxTransformer2DModel", "Flux2Transformer2DModel"
DENOISERS = (
    Denoiser("Stable Diffusion 1.5", "sd1", UNET, real_size.SD15_UNET, 512, unet(768), {"CLIP-L": CLIP_L}),
    Denoiser("Stable Diffusion 2.1", "sd2", UNET, SD2_UNET, 768, unet(1024), {"OpenCLIP-H": CLIP_H}),
    Denoiser("Stable Diffusion XL", "sdxl", UNET, real_size.SDXL_UNET, 1024, unet(2048, **SDXL_TOLD), {"CLIP-L": CLIP_L, "OpenCLIP-G": CLIP_G}),
    Denoiser("Stable Diffusion 3 medium", "sd3", "SD3Transformer2DModel", SD3_MEDIUM, 1024, sd3, THREE),
    Denoiser("Stable Diffusion 3.5 large", "sd3", "SD3Transformer2DModel", SD35_LARGE, 1024, sd3, THREE),
    Denoiser("FLUX.1 dev", "flux", FLUX, {"guidance_embeds": True}, 1024, flux, {"CLIP-L": CLIP_L, "T5-XXL": T5_XXL}),
    Denoiser("FLUX.2 klein 4B", "flux2", FLUX2, KLEIN_4B, 1024, flux2, {"Qwen3-4B": 4.02}),
    Denoiser("Qwen-Image", "qwen-image", "QwenImageTransformer2DModel", {}, 1024, qwen, {"Qwen2.5-VL-7B": 8.29}),
    Denoiser("Sana 1.6B", "sana", "SanaTransformer2DModel", {}, 1024, sana, {"Gemma-2-2B": 2.61}),
    Denoiser("AuraFlow 0.3", "auraflow", "AuraFlowTransformer2DModel", {}, 1024, aura, {"UMT5-XL": 1.22}),
)  # fmt: skip
"""Z-Image and Lumina 2 ask values of their masks on the way, which meta tensors have not."""


def empty(told: Denoiser) -> Any:
    """The denoiser without weights, bfloat16, frozen."""
    with torch.device("meta"):
        return getattr(diffusers, told.kind)(**told.config).to(torch.bfloat16).requires_grad_(False)
