"""A picture becomes training pixels: one resize that keeps the shape, one crop, nothing stretched."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ..errors import positive, share

Place = tuple[float, float]
"""Where a crop lies, (down, right), as shares of what is cut away."""
Geometry = tuple[int, int, int, int, int, int]
"""SDXL's six numbers (Podell et al. 2023), in pixels: the picture's height and width before anything is done to it, top and left of the
crop in the resized (and, where it is, mirrored) picture, height and width of what is trained on."""
MIDDLE: Place = (0.5, 0.5)


@dataclass(frozen=True)
class Crop:
    """Which part of a picture is trained on: a function of numbers alone, so that nothing has to be decoded to know it."""

    picture: tuple[int, int]
    """Height and width of the picture, upright."""
    size: tuple[int, int]
    """Height and width in training."""
    place: Place = MIDDLE
    flip: bool = False
    """Whether the part is mirrored, left to right."""

    def __post_init__(self) -> None:
        positive("prepare", height=self.size[0], width=self.size[1])
        share("prepare: place", down=self.place[0], right=self.place[1])

    @cached_property
    def scale(self) -> float:
        """What the picture's sides are multiplied by until they cover the size; above 1 it is enlarged."""
        return max(self.size[0] / self.picture[0], self.size[1] / self.picture[1])

    @property
    def spare(self) -> tuple[float, float]:
        """Rows and columns of the resized picture that are cut away."""
        return self.picture[0] * self.scale - self.size[0], self.picture[1] * self.scale - self.size[1]

    @property
    def cut(self) -> float:
        """Share of the picture's area that is cut away."""
        return max(0.0, 1 - self.size[0] * self.size[1] / (self.picture[0] * self.picture[1] * self.scale**2))

    @property
    def corner(self) -> tuple[int, int]:
        """Top and left in the resized picture, before it is mirrored."""
        return _start(self.place[0], self.spare[0]), _start(self.place[1], self.spare[1])

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of the picture itself."""
        (top, left), (height, width) = self.corner, self.size
        right, bottom = min((left + width) / self.scale, self.picture[1]), min((top + height) / self.scale, self.picture[0])
        return left / self.scale, top / self.scale, right, bottom

    @property
    def geometry(self) -> Geometry:
        top, left = self.corner
        return (*self.picture, top, round(self.spare[1] - left) if self.flip else left, *self.size)


@dataclass(frozen=True)
class Prepared:
    pixels_3RG: np.ndarray
    """float32 in [-1, 1], channels red, green, blue; rows, then columns."""
    geometry: Geometry
    cut: float = 0.0
    """Share of the picture's area that was cut away."""


def prepare(image: Image.Image, height: int, width: int, *, place: Place = MIDDLE, flip: bool = False) -> Prepared:
    """Resizes (Lanczos, antialiased) until height x width is covered, crops, mirrors left to right if asked.

    `place`: where the crop lies, (down, right) as shares of what is cut away; 0.5 is the middle. A picture that has the size
    already is not resampled. Raises ConfigError for a size or place out of range.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    crop = Crop((image.height, image.width), (height, width), place, flip)
    if crop.scale == 1:
        top, left = crop.corner
        part = image.crop((left, top, left + width, top + height))
    else:
        # Cropping inside the resize costs two thirds of resizing first, and keeps the scale exactly alike in both directions.
        part = image.resize((width, height), Image.Resampling.LANCZOS, box=crop.box)
    if flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels_RG3 = np.asarray(part, dtype=np.float32) / 127.5 - 1
    return Prepared(np.ascontiguousarray(pixels_RG3.transpose(2, 0, 1)), crop.geometry, crop.cut)


def _start(place: float, spare: float) -> int:
    """First pixel of the crop; never so late that the last one would lie outside."""
    return min(round(place * spare), int(spare + 1e-6))
