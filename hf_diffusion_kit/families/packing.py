"""Latents as rows of 2 x 2 patches, as transformers of FLUX's kind take them.

Shape suffixes: B batch, C latent channels, H W latent height and width, N patches, D a patch's features (4 C).
"""

from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


def packed(latents_BCHW: Tensor) -> Tensor:
    """patches_BND, row by row; in a patch channel by channel, in a channel row by row."""
    return pixel_unshuffle(latents_BCHW, 2).flatten(2).transpose(1, 2)


def unpacked(patches_BND: Tensor, height: int, width: int) -> Tensor:
    """latents_BCHW of that height and width."""
    return pixel_shuffle(patches_BND.transpose(1, 2).unflatten(2, (height // 2, width // 2)), 2)
