"""Where in a picture the crop lies: the middle, one of a few fixed windows, or the part that matters.

Windows are few and fixed, so that each is encoded once and cached. At most one side of a picture is cut, for the other one fits.
"""

from importlib.metadata import PackageNotFoundError, version

from PIL import Image, ImageOps

from ..data.pixels import MIDDLE, Crop, Place
from ..errors import ConfigError
from .randomness import order

APART = 8
"""Pixels between two windows at least: closer ones would be encoded for next to nothing."""
LOOKED_AT, LONGEST, STEP, SMALLEST = 256, 2048, 4, 16
"""Pixels of what smartcrop is shown: longer side of the window, longest side of the picture, between two tries, and the shorter side of a
window in which it sees anything."""


def windows(picture: tuple[int, int], size: tuple[int, int], count: int) -> list[Place]:
    """At most `count` places, from one end of the picture to the other, evenly; a function of the sizes (height, width) alone."""
    down, right = Crop(picture, size).spare
    number = min(count, 1 + int(max(down, right) + 1e-6) // APART)
    if number < 2:
        return [MIDDLE]
    shares = [k / (number - 1) for k in range(number)]
    return [(share, 0.5) if down > right else (0.5, share) for share in shares]


def window(
    picture: tuple[int, int], size: tuple[int, int], count: int, *, seed: int, epoch: int, name: str, image_id: str
) -> Place:
    """The window of a picture in an epoch. It goes through all of them, in a new order each time round."""
    places = windows(picture, size, count)
    if len(places) == 1:
        return places[0]
    cycle, turn = divmod(epoch, len(places))
    return places[order(seed, cycle, len(places), f"{name}/crop/{image_id}")[turn]]


def smart(image: Image.Image, size: tuple[int, int]) -> Place:
    """Where smartcrop finds most: detail, skin, strong colour (Wagner 2014). A function of the pixels and the size (height, width).

    The middle where nothing is better, where nothing is cut, and for a picture hundreds of times as long as wide.
    Raises ConfigError when the extra is not installed.
    """
    need_smart()
    from smartcrop import SmartCrop

    class Borderless(SmartCrop):
        """Its filter leaves the outermost pixels as they are: every border would look full of detail."""

        def detect_edge(self, cie_image: Image.Image) -> Image.Image:
            return ImageOps.expand(ImageOps.crop(super().detect_edge(cie_image), 1), 1, fill=0)

    crop = Crop((image.height, image.width), size)
    if max(crop.spare) < 1:
        return MIDDLE
    shrink = min(LOOKED_AT * crop.scale / max(size), LONGEST / max(image.size))
    small = image.convert("RGB").resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))))
    height, width = (
        min(max(1, round(side * shrink / crop.scale)), most) for side, most in zip(size, small.size[::-1], strict=True)
    )
    if min(height, width) < SMALLEST:
        return MIDDLE
    down, right = small.height - height, small.width - width
    found = Borderless().analyse(small, width, height, min_scale=1, max_scale=1, num_scale_steps=1, step=STEP)["crops"]
    best = max(found, key=lambda one: (one["score"], -abs(2 * one["y"] - down) - abs(2 * one["x"] - right)))
    return (best["y"] / down if down else 0.5, best["x"] / right if right else 0.5)


def need_smart() -> str:
    """What finds the part that matters, with its version, for the cache's key. Raises ConfigError when it is not installed."""
    try:
        return f"smartcrop {version('smartcrop')}"
    except PackageNotFoundError as error:
        fix = 'pip install "hf-diffusion-kit[smartcrop]", or crop = "center"'
        raise ConfigError('"smart" needs the package smartcrop', where="training: crop", fix=fix, case=2) from error
