"""A picture becomes training pixels: one resize that keeps the shape, one crop, nothing stretched."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import positive, share


@dataclass(frozen=True)
class Prepared:
    pixels_3RG: np.ndarray
    """float32 in [-1, 1], channels red, green, blue; rows, then columns."""
    geometry: tuple[int, int, int, int, int, int]
    """Original height and width, top and left of the crop in the resized picture, target height and width (SDXL's six numbers,
    Podell et al. 2023), all in pixels."""


def prepare(
    image: Image.Image, height: int, width: int, *, place: tuple[float, float] = (0.5, 0.5), flip: bool = False
) -> Prepared:
    """Resizes (Lanczos, antialiased) until height x width is covered, crops, mirrors left to right if asked.

    `place`: where the crop lies, (down, right) as shares of what is cut away; 0.5 is the middle. A picture that has the size
    already is not resampled. Raises ConfigError for a size or place out of range.
    """
    positive("prepare", height=height, width=width)
    share("prepare: place", down=place[0], right=place[1])
    image = image if image.mode == "RGB" else image.convert("RGB")
    scale = max(height / image.height, width / image.width)
    top = _start(place[0], image.height * scale - height)
    left = _start(place[1], image.width * scale - width)
    if scale == 1:
        part = image.crop((left, top, left + width, top + height))
    else:
        right, bottom = min((left + width) / scale, image.width), min((top + height) / scale, image.height)
        # Cropping inside the resize costs two thirds of resizing first, and keeps the scale exactly alike in both directions.
        part = image.resize((width, height), Image.Resampling.LANCZOS, box=(left / scale, top / scale, right, bottom))
    if flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = round(image.width * scale - width - left)
    pixels_RG3 = np.asarray(part, dtype=np.float32) / 127.5 - 1
    geometry = (image.height, image.width, top, left, height, width)
    return Prepared(np.ascontiguousarray(pixels_RG3.transpose(2, 0, 1)), geometry)


def _start(place: float, spare: float) -> int:
    """First pixel of the crop; never so late that the last one would lie outside."""
    return min(round(place * spare), int(spare + 1e-6))
