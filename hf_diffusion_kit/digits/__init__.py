"""The embedded base: a complete small Stable Diffusion, trained from scratch on real handwritten digits, in the package.

    pipe = StableDiffusionPipeline.from_pretrained(digits.path("digits"))
    pipe("a handwritten seven", guidance_scale=2.0, num_inference_steps=10).images[0]

Importing this room loads no torch; import the part you need: `handwriting` and `captions` (the data), `tokenizer`, `model`,
`text`, `vae`, `denoiser` (the three trainings), `train` (all of it), `judge` and `scores` (an independent eye and what it says),
`coco` (the same data as a COCO folder).

Shape suffixes in this room: N pictures of a data set, B batch, K digits, G groups of K, C latent channels, H W height and width,
3 colours, L caption tokens, D text width, M captions of a bank, T training time steps.
"""

from pathlib import Path

from ..errors import unknown

__all__ = ["BASES", "path"]

BASES: dict[str, tuple[int, ...]] = {"digits": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "digits-seven": (0, 1, 2, 5, 6, 8, 9)}
"""The digits whose pictures and captions each base was trained on. `digits-seven` has never seen a 3, a 4 or a 7."""


def path(name: str) -> Path:
    """Folder of a shipped base, in the stock diffusers layout; a `ConfigError` names the nearest for an unknown one."""
    if name not in BASES:
        raise unknown("embedded base", name, BASES)
    return Path(__file__).resolve().parent / "weights" / name
