"""Where the crop lies, for each of the ways: few fixed windows, the part that matters, and SDXL's six numbers right for all."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hf_diffusion_kit.data.pixels import MIDDLE, Crop, prepare
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.training import crops
from hf_diffusion_kit.training.crops import need_smart, smart, window, windows
from pictured import picture


def diffusers_geometry(picture: tuple[int, int], side: int, flip: bool, at: float) -> tuple[int, ...]:
    """As train_text_to_image_lora_sdxl.py has it: the short side to `side`, mirrored, then cropped at y1, x1."""
    scale = side / min(picture)
    height, width = (side if p == min(picture) else int(side * p / min(picture)) for p in picture)
    assert abs(height - picture[0] * scale) < 1 and abs(width - picture[1] * scale) < 1
    spare = (height - side, width - side)
    place = tuple(round(s * at) for s in spare)
    return (*picture, place[0], spare[1] - place[1] if flip else place[1], side, side)


@pytest.mark.parametrize("flip", [False, True])
def test_geometry_is_that_of_diffusers_for_any_place(flip: bool) -> None:
    draw = random.Random(0)
    for _ in range(500):
        shape, at = (draw.randint(40, 900), draw.randint(40, 900)), draw.choice((0.0, 0.5, 1.0, draw.random()))
        got = Crop(shape, (512, 512), (at, at), flip).geometry
        wanted = diffusers_geometry(shape, 512, flip, at)
        assert got[:2] == wanted[:2] and got[4:] == wanted[4:]
        assert all(abs(a - b) <= 1 for a, b in zip(got, wanted, strict=True)) and min(got) >= 0


def test_what_is_cut_away_is_told() -> None:
    image = picture(1, (96, 32))
    told = prepare(image, 16, 24, place=(0.5, 1.0))
    assert told.cut == pytest.approx(0.5) and told.geometry == (32, 96, 0, 24, 16, 24)
    assert prepare(picture(1, (48, 32)), 16, 24).cut == 0
    draw = random.Random(2)
    for _ in range(200):
        shape, size = [(draw.randint(1, 99), draw.randint(1, 99)) for _ in range(2)]
        crop = Crop(shape, size, (draw.random(), draw.random()))
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]
        assert 1 - (right - left) * (bottom - top) / (shape[0] * shape[1]) == pytest.approx(crop.cut, abs=0.02 + 1 / min(shape))


# Windows


def test_windows_reach_from_end_to_end_and_depend_on_the_sizes_alone() -> None:
    assert windows((64, 256), (64, 64), 4) == [(0.5, k / 3) for k in range(4)]
    assert windows((256, 64), (64, 64), 3) == [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    assert windows((64, 64), (128, 128), 4) == windows((64, 256), (64, 64), 1) == [MIDDLE]
    draw = random.Random(0)
    for _ in range(300):
        shape, size, count = (
            (draw.randint(8, 900), draw.randint(8, 900)),
            (8 * draw.randint(1, 60), 8 * draw.randint(1, 60)),
            draw.randint(1, 9),
        )
        corners = [Crop(shape, size, place).corner for place in windows(shape, size, count)]
        assert 1 <= len(corners) <= count and len(set(corners)) == len(corners)
        steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(corners)]
        assert all(step >= crops.APART - 1 for step in steps)
        if len(corners) > 1:
            spare = Crop(shape, size).spare
            assert corners[0] == (0, 0) or min(corners[0]) == 0
            assert max(corners[-1]) >= max(spare) - 1


def test_each_window_comes_once_each_time_round() -> None:
    orders = set()
    for image_id in ("a", "b", "c"):
        for cycle in range(8):
            got = [
                window((64, 256), (64, 64), 4, seed=1, epoch=4 * cycle + n, name="instance", image_id=image_id) for n in range(4)
            ]
            assert Counter(got) == Counter(windows((64, 256), (64, 64), 4))
            orders.add(tuple(got))
    assert len(orders) > 8
    assert window((64, 64), (64, 64), 4, seed=1, epoch=3, name="instance", image_id="a") == MIDDLE


# The part that matters


def subject(size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    """A plain grey picture (width, height) with something coloured and full of detail in one place."""
    image = Image.new("RGB", size, (128, 128, 128))
    draw = ImageDraw.Draw(image)
    for k in range(0, 60, 4):
        draw.ellipse(
            (at[0] - 30 + k / 2, at[1] - 30 + k / 2, at[0] + 30 - k / 2, at[1] + 30 - k / 2),
            fill=((230, 60, 30), (240, 200, 160))[k // 4 % 2],
        )
    return image


@pytest.mark.parametrize("scale", [0.25, 1, 3])
def test_the_subject_is_kept_wherever_it_is(scale: float) -> None:
    for x in (40, 160, 300, 440, 560):
        image = subject((600, 200), (x, 100))
        image = image.resize((round(600 * scale), round(200 * scale)))
        place = smart(image, (128, 128))
        left, _, right, _ = Crop((image.height, image.width), (128, 128), place).box
        assert left <= x * scale - 15 * scale and x * scale + 15 * scale <= right
        assert place[0] == 0.5 and place == smart(image, (128, 128))
    for y in (40, 300, 560):
        place = smart(subject((200, 600), (100, y)), (128, 128))
        _, top, _, bottom = Crop((600, 200), (128, 128), place).box
        assert top <= y - 15 and y + 15 <= bottom and place[1] == 0.5


def test_where_nothing_is_better_or_cut_it_is_the_middle() -> None:
    for size, target in (
        ((600, 200), (128, 128)),
        ((200, 601), (64, 64)),
        ((30, 20), (16, 24)),
        ((9000, 10), (16, 16)),
        ((8, 8), (64, 64)),
    ):
        flat = smart(Image.new("RGB", size, (90, 120, 90)), target)
        spare = Crop(size[::-1], target).spare
        assert all(abs(place - 0.5) * cut <= max(8, max(target) / 32) for place, cut in zip(flat, spare, strict=True))


def test_any_size_has_a_smart_crop() -> None:
    draw = random.Random(1)
    for _ in range(30):
        size = (draw.randint(1, 200), draw.randint(1, 200))
        target = (8 * draw.randint(1, 9), 8 * draw.randint(1, 9))
        place = smart(picture(draw.randint(0, 9), size), target)
        assert all(0 <= share <= 1 for share in place)
        assert prepare(picture(0, size), *target, place=place).pixels_3RG.dtype == np.float32


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert need_smart().startswith("smartcrop 0.")

    def absent(name: str) -> str:
        raise crops.PackageNotFoundError(name)

    monkeypatch.setattr(crops, "version", absent)
    with pytest.raises(ConfigError, match=r"hf-diffusion-kit\[smartcrop\]"):
        smart(picture(0), (16, 16))
