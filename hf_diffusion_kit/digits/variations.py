"""Pictures of digits as they might have been written or shown: bent a little, bent far, underlined, recoloured, inverted."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample


def varied(pixels_B3HW: Tensor, generator: Generator) -> Tensor:
    """Bent far or even mirrored, some with a line under them, then in ink of another colour or with ink and paper exchanged."""
    batch = len(pixels_B3HW)
    ink_B1HW = _bend(_ink(pixels_B3HW), 1.0, _some(batch, 0.5, generator), generator)
    ink_B1HW = torch.where(_some(batch, 0.25, generator), _underlined(ink_B1HW), ink_B1HW)
    colour_B311 = 1.6 * torch.rand((batch, 3, 1, 1), generator=generator) - 1
    pen_B311 = torch.where(_some(batch, 0.5, generator), -1.0, colour_B311)
    inverted = _some(batch, 0.3, generator)
    under_B311, over_B311 = torch.where(inverted, pen_B311, 1.0), torch.where(inverted, 1.0, pen_B311)
    return under_B311 + (over_B311 - under_B311) * ink_B1HW


def swayed(pixels_B3HW: Tensor, generator: Generator) -> Tensor:
    """The same digits by a slightly different hand; still dark ink on white paper."""
    ink_B1HW = _bend(_ink(pixels_B3HW), 0.3, _some(len(pixels_B3HW), 0.0, generator), generator)
    return (1 - 2 * ink_B1HW).expand(-1, 3, -1, -1)


def _ink(pixels_B3HW: Tensor) -> Tensor:
    return (1 - pixels_B3HW[:, :1]) / 2


def _some(batch: int, share: float, generator: Generator) -> Tensor:
    return torch.rand((batch, 1, 1, 1), generator=generator) < share


def _bend(ink_B1HW: Tensor, strength: float, mirrored_B111: Tensor, generator: Generator) -> Tensor:
    """Turned by up to 0.6 radians, sheared by up to 0.4, stretched by a fifth, shifted by a thirteenth of the side, each times `strength`."""
    random_6B = strength * (2 * torch.rand((6, len(ink_B1HW)), generator=generator) - 1)
    angle_B, shear_B = 0.6 * random_6B[0], 0.4 * random_6B[1]
    wide_B, high_B = 1 + 0.2 * random_6B[2], 1 + 0.2 * random_6B[3]
    right_B, down_B = 0.15 * random_6B[4], 0.15 * random_6B[5]  # the picture's side is 2 here
    mirror_B = torch.where(mirrored_B111.flatten(), -1.0, 1.0)
    row_x_B3 = torch.stack([mirror_B * angle_B.cos() * wide_B, (shear_B - angle_B.sin()) * wide_B, right_B], 1)
    row_y_B3 = torch.stack([angle_B.sin() * high_B, angle_B.cos() * high_B, down_B], 1)
    grid_BHW2 = affine_grid(torch.stack([row_x_B3, row_y_B3], 1), list(ink_B1HW.shape), align_corners=False)
    return grid_sample(ink_B1HW, grid_BHW2, align_corners=False)


def _underlined(ink_B1HW: Tensor) -> Tensor:
    height, width = ink_B1HW.shape[-2:]
    lined = ink_B1HW.clone()
    lined[..., height - height // 10 - 1 : height - 1, width // 8 : -width // 8] = 1
    return lined
