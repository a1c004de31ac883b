"""From clean latents to (noisy input, time, target, weight): the maths of noising, with no model in it.

Shape suffixes in this room: B batch, C latent channels, H W latent height and width, T training time steps.
"""

from .base import Noised, Objective, randn_like
from .ddpm import Ddpm
from .flow import Flow
from .options import options_for

__all__ = ["Ddpm", "Flow", "Noised", "Objective", "options_for", "randn_like"]
