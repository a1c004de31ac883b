"""The VAE: pictures to latents and back (Kingma & Welling 2014).

Half of what it learns from are digits bent, mirrored, underlined, recoloured or inverted, so that it can also draw what comes later.
"""

import math

import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torch.nn.functional import l1_loss

from .descent import Course, Point, descend
from .variations import varied

KL_WEIGHT = 1e-6
"""Keeps latents near one scale, and the posterior's std near a twentieth of it; 1e-5 made it 0.7, which is noise to the denoiser."""


def train(
    vae: AutoencoderKL, pixels_N3HW: Tensor, course: Course, *, seed: int, progress: bool = False
) -> tuple[tuple[Tensor, Tensor], tuple[Point, ...]]:
    """Teaches `vae` in place, sets its `scaling_factor` to 1/std of the plain pictures' latents, and freezes it.

    Returns those latents in the denoiser's units, as `encode` does, and the loss curve.
    """
    generator = Generator().manual_seed(seed)
    vae.to(memory_format=torch.channels_last)  # a fifth faster

    def loss() -> Tensor:
        plain_B3HW = pixels_N3HW[torch.randint(len(pixels_N3HW), (course.batch,), generator=generator)]
        half = course.batch // 2
        pixels_B3HW = torch.cat([plain_B3HW[:half], varied(plain_B3HW[half:], generator)])
        posterior = vae.encode(pixels_B3HW).latent_dist
        answer_B3HW = vae.decode(posterior.sample(generator)).sample
        error_B3HW = answer_B3HW - pixels_B3HW
        return error_B3HW.square().mean() + 0.2 * l1_loss(answer_B3HW, pixels_B3HW) + KL_WEIGHT * posterior.kl().mean()

    curve = descend([vae], loss, course, label="VAE", progress=progress)
    vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    mean_NCHW, std_NCHW = encode(vae, pixels_N3HW)
    scale = 1 / mean_NCHW.std().item()
    vae.register_to_config(scaling_factor=scale)
    return (mean_NCHW * scale, std_NCHW * scale), curve


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels_N3HW: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """The posterior's (mean_NCHW, std_NCHW), unscaled."""
    posteriors = [vae.encode(pixels_B3HW).latent_dist for pixels_B3HW in pixels_N3HW.split(batch)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels_N3HW: Tensor, batch: int = 256) -> float:
    """Peak signal-to-noise ratio in dB of pictures that went through the VAE; 30 is good, 20 is poor."""
    errors = [(vae.decode(vae.encode(p).latent_dist.mode()).sample.clamp(-1, 1) - p).square() for p in pixels_N3HW.split(batch)]
    return 10 * math.log10(4 / torch.cat(errors).mean().item())
