"""Pictures that look the same are found whatever their files are like, different ones are not, and it stays quick in the thousands."""

import io
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from hf_diffusion_kit.data.twins import NEAR, Mark, Pair, mark_of, pairs
from pictured import encoded


def scene(seed: int) -> Image.Image:
    """A sky and things of several sizes before it: as smooth here and as full of edges there as a photograph."""
    draw = random.Random(seed)
    image = Image.linear_gradient("L").resize((300, 200)).convert("RGB").rotate(draw.randrange(360))
    pen = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, size = draw.randrange(300), draw.randrange(200), draw.choice((10, 20, 40, 90))
        pen.ellipse((x - size, y - size // 2, x + size, y + size // 2), fill=tuple(draw.randrange(256) for _ in range(3)))
    return image


def marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, 0, 80, 18), fill="white")
    return image


SCENES = [scene(seed) for seed in range(12)]
MARKS = [mark_of(encoded(image, quality=92)) for image in SCENES]
WAYS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg of quality 30": lambda image: encoded(image, quality=30),
    "png": lambda image: encoded(image, "PNG"),
    "half the size": lambda image: encoded(image.resize((150, 100))),
    "twice the size": lambda image: encoded(image.resize((600, 400))),
    "stretched to a square": lambda image: encoded(image.resize((512, 512))),
    "grey": lambda image: encoded(image.convert("L")),
    "cmyk": lambda image: encoded(image.convert("CMYK")),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.15)),
    "a box in the corner": lambda image: encoded(marked(image)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_found_again(way: str) -> None:
    again = [mark_of(WAYS[way](image)) for image in SCENES]
    assert [(pair.first, pair.second) for pair in pairs(MARKS, again)] == [(n, n) for n in range(len(SCENES))]


def test_different_pictures_are_not_near() -> None:
    assert pairs(MARKS) == [] and pairs(MARKS, near=NEAR + 30) == []


def test_whoever_allows_more_bits_finds_what_is_cropped() -> None:
    cropped = [mark_of(encoded(image.crop((6, 4, 294, 196)))) for image in SCENES]
    found = {near: [(pair.first, pair.second) for pair in pairs(MARKS, cropped, near=near)] for near in (NEAR, 32, 40, 48, 64)}
    numbers = [len(told) for told in found.values()]
    assert numbers == sorted(numbers) and numbers[-1] == 12 and numbers[0] < 12
    assert all(first == second for told in found.values() for first, second in told)


def test_a_turned_file_is_the_picture_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = SCENES[0].transpose(Image.Transpose.ROTATE_90)
    assert pairs([MARKS[0]], [mark_of(encoded(sideways, exif=exif))])
    assert not pairs([MARKS[0]], [mark_of(encoded(sideways))])


def test_blank_pages_are_alike_only_in_one_colour() -> None:
    white, black, nearly = (mark_of(encoded(Image.new("RGB", (60, 40), (n, n, n)), "PNG")) for n in (255, 0, 251))
    assert pairs([white, black, nearly]) == [Pair(0, 2, 0)]
    dots = []
    for x in (20, 200):  # a white page with a small thing here, or there
        page = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(page).ellipse((x, 80, x + 40, 120), fill="black")
        dots.append(mark_of(encoded(page)))
    assert pairs(dots) == []


def brute(marks: list[Mark], near: int) -> list[Pair]:
    bits_N8 = np.array([np.unpackbits(np.frombuffer(mark.bits, np.uint8)) for mark in marks])
    found = []
    for i in range(len(marks)):
        for j in range(i + 1, len(marks)):
            distance, union = int((bits_N8[i] != bits_N8[j]).sum()), int((bits_N8[i] | bits_N8[j]).sum())
            if distance <= min(near, union * max(near, NEAR) // (4 * NEAR)):
                found.append(Pair(i, j, distance))
    return found


def test_nothing_is_missed_and_nothing_is_made_up() -> None:
    """Against a plain double loop, on marks that lie about at all distances around the limit."""
    draw = np.random.default_rng(0)
    marks = []
    for _ in range(40):
        centre_8 = draw.integers(0, 2, 256)
        for flips in (0, 3, 12, 20, 40):
            bits = centre_8.copy()
            bits[draw.choice(256, flips, replace=False)] ^= 1
            marks.append(Mark(np.packbits(bits).tobytes(), 100))
    order = draw.permutation(len(marks))
    marks = [marks[n] for n in order]
    assert pairs(marks) == brute(marks, NEAR) and pairs(marks, near=8) == brute(marks, 8)
    assert pairs(marks, near=60) == brute(marks, 60) and len(brute(marks, NEAR)) > 100


def test_thousands_take_no_time_and_a_thousand_copies_are_a_thousand_pairs() -> None:
    draw = np.random.default_rng(0)
    marks = [Mark(draw.bytes(32), 100) for _ in range(8000)]
    start = time.process_time()
    assert pairs(marks) == []
    assert time.process_time() - start < 2
    copies = pairs([marks[0]] * 1001)
    assert len(copies) == 1000 and {pair.first for pair in copies} == {0}


def test_a_mark_is_made_from_whatever_can_be_opened() -> None:
    for form in ("JPEG", "PNG", "WEBP", "BMP"):
        assert len(mark_of(encoded(SCENES[0], form)).bits) == 32
    for mode in ("L", "LA", "RGBA", "P", "1"):
        assert len(mark_of(encoded(SCENES[0].convert(mode), "PNG")).bits) == 32
    tiny = io.BytesIO()
    Image.new("RGB", (8, 8)).save(tiny, "PNG")
    assert len(mark_of(tiny.getvalue()).bits) == 32
