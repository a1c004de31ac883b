"""One way to RGB: the same pixels whichever door a picture comes in by, and a broken file says what it really is."""

import io
import random
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont, ImageOps

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.captions import POLICIES, choose, tidy
from hf_diffusion_kit.data.pictures import open_rgb, store
from hf_diffusion_kit.data.pixels import prepare
from hf_diffusion_kit.errors import ConfigError, SourceError
from hf_diffusion_kit.sheet import FACES, GAP, MARGIN, Cell, _font, grid, sheet
from pictured import SIZE, encoded, picture

AUTHOR = "Jane Author"
LOSSLESS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}}


def stock(content: bytes) -> np.ndarray:
    """What `datasets` and every diffusers script make of it."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def private(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = turn, AUTHOR
    exif.get_ifd(0x8825)[29] = "1984:12:24"
    return exif


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_are_applied_and_nothing_else_of_it_is_kept(form: str, turn: int) -> None:
    content = encoded(picture(1), form, exif=private(turn), **LOSSLESS[form])
    kept = store(content, "x")
    assert AUTHOR.encode() in content and b"1984:12:24" in content
    assert AUTHOR.encode() not in kept.content and b"1984:12:24" not in kept.content
    upright = np.asarray(open_rgb(content))
    assert (kept.height, kept.width) == upright.shape[:2] == (SIZE if turn >= 5 else SIZE[::-1])
    assert np.array_equal(upright, stock(content)) and np.array_equal(upright, stock(kept.content))
    assert ("turned" in kept.remarks) == (turn != 1) and "metadata" in kept.remarks


@pytest.mark.parametrize("form", [*LOSSLESS, "BMP"])
def test_a_file_without_private_data_is_kept_byte_for_byte(form: str) -> None:
    content = encoded(picture(2), form, **LOSSLESS.get(form, {}))
    assert store(content, "x").content == content


def test_what_phones_append_is_dropped() -> None:
    first, second = picture(1), picture(2)
    content = encoded(first, "MPO", save_all=True, append_images=[second], exif=private(6)) + b"and a film"
    kept = store(content, "x")
    assert kept.remarks == ("turned", "metadata") and b"film" not in kept.content and kept.content.count(b"\xff\xd9") == 1
    assert np.array_equal(stock(kept.content), np.asarray(open_rgb(content)))


def test_transparency_lies_on_white_for_stock_loaders_too() -> None:
    half = picture(3).convert("RGBA")
    half.putalpha(0)
    palette = Image.new("P", SIZE, 0)
    palette.putpalette([9, 9, 9])
    for content in (
        encoded(half, "PNG"),
        encoded(half, "WEBP"),
        encoded(half.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=0),
    ):
        kept = store(content, "x")
        assert "transparent" in kept.remarks
        assert np.asarray(open_rgb(content)).min() == 255 and stock(kept.content).min() == 255


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep_HW = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    kept = store(encoded(Image.fromarray(deep_HW), "PNG"), "x")
    assert kept.remarks == ("deep",)
    assert np.abs(stock(kept.content)[..., 0].astype(int) - deep_HW / 257).max() <= 0.5


@pytest.mark.parametrize(("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("L", "PNG")])
def test_other_modes_are_what_stock_loaders_make_of_them(mode: str, form: str) -> None:
    content = encoded(picture(4, mode=mode), form)
    rgb = open_rgb(content)
    assert rgb.mode == "RGB" and np.array_equal(np.asarray(rgb), stock(store(content, "x").content))


@pytest.mark.parametrize(
    ("mode", "form", "words"),
    [
        ("CMYK", "JPEG", "pictures converted from CMYK"),
        ("P", "PNG", "pictures converted from a palette"),
        ("RGBA", "PNG", "pictures with an alpha channel that hides nothing, which is not used"),
        ("L", "JPEG", "grey pictures"),
        ("LA", "PNG", "grey pictures"),
        ("1", "PNG", "grey pictures"),
        ("RGB", "JPEG", None),
        ("RGB", "BMP", None),
        ("RGB", "WEBP", None),
    ],
)
def test_no_picture_is_converted_without_a_word(mode: str, form: str, words: str | None, tmp_path: Path) -> None:
    (tmp_path / f"a.{form.lower()}").write_bytes(encoded(picture(4, mode=mode), form))
    first, *told = load_captioned(tmp_path, prompt="x").notes
    assert told == ([f"{words}: 1"] if words else []) and first.startswith("captions come from the prompt")


def test_the_first_frame_of_an_animation_counts() -> None:
    for form in ("PNG", "WEBP"):
        options = {**LOSSLESS[form], "save_all": True, "append_images": [picture(6)]}
        content = encoded(picture(5), form, **options)
        assert "animated" in store(content, "x").remarks
        assert np.array_equal(np.asarray(open_rgb(content)), np.asarray(picture(5)))


def header_only(width: int, height: int) -> bytes:
    """A PNG of that size that says so and has no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\0IDAT5\xaf\x06\x1e"
    )


BAD = {
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><html>404</html>", "HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
    "psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "svg": (b"<svg xmlns='x'/>", "SVG"),
    "gif": (encoded(picture(0), "GIF"), "GIF"),
    "tiff": (encoded(picture(0), "TIFF"), "TIFF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
    "zip": (b"PK\x03\x04" + bytes(40), "zip"),
    "zeros": (bytes(500), "zero bytes"),
    "text": (b"hello", "no picture that is known"),
    "cut": (encoded(picture(0, (300, 200)))[:-300], "cut short"),
    "cut png": (encoded(picture(0), "PNG")[:-60], "cut short|damaged"),
    "bomb": (header_only(30_000, 30_000), "too large"),
    "large": (header_only(9_000, 8_000), "64 million"),
    "dot": (encoded(picture(0, (1, 1)), "PNG"), "1x1 pixels"),
    "line": (encoded(picture(0, (2, 8000)), "PNG"), "2x8000 pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_says_what_it_really_is(case: str) -> None:
    content, what = BAD[case]
    with pytest.raises(SourceError, match=what) as caught:
        store(content, "photos/a.jpg")
    assert (
        caught.value.line().startswith("error[E-DATA-") and "photos/a.jpg" in caught.value.line() and caught.value.exit_code == 3
    )


def test_damage_ends_in_one_line_or_in_the_same_pixels() -> None:
    """Two thousand mutated files: never another exception, and what is accepted is stored with the pixels it shows."""
    draw = random.Random(0)
    sound = [encoded(picture(7), form, exif=private(6), **options) for form, options in LOSSLESS.items()] + [
        encoded(picture(7), "BMP")
    ]
    accepted = 0
    for _ in range(2000):
        content = bytearray(draw.choice(sound))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(min(draw.choice((80, len(content))), len(content)))
            content[at : at + draw.choice((0, 1, 1, 1, 90))] = draw.randbytes(draw.choice((0, 1, 1, 9)))
        try:
            kept = store(bytes(content), "x")
        except SourceError:
            continue
        accepted += 1
        assert np.array_equal(np.asarray(open_rgb(kept.content)), np.asarray(open_rgb(bytes(content))))
    assert accepted > 100


# Pixels


@pytest.mark.parametrize(
    ("size", "target"), [((48, 32), (16, 24)), ((32, 48), (16, 24)), ((480, 20), (16, 24)), ((7, 9), (16, 24))]
)
def test_the_target_is_covered_and_nothing_is_stretched(size: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = size
    columns_HW = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    rows_HW = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    slopes_HW3 = np.stack([columns_HW, rows_HW, rows_HW], axis=-1).astype(np.uint8)
    prepared = prepare(Image.fromarray(slopes_HW3), *target)
    assert prepared.pixels_3RG.shape == (3, *target) and prepared.pixels_3RG.dtype == np.float32
    assert np.abs(prepared.pixels_3RG).max() <= 1
    across, down = (
        (prepared.pixels_3RG[0].mean(0)[2:-2] + 1) * 127.5 / 255 * (width - 1),
        (prepared.pixels_3RG[1].mean(1)[2:-2] + 1) * 127.5 / 255 * (height - 1),
    )
    scale = max(target[0] / height, target[1] / width)
    assert np.polyfit(np.arange(len(across)), across, 1)[0] == pytest.approx(1 / scale, rel=0.12)
    assert np.polyfit(np.arange(len(down)), down, 1)[0] == pytest.approx(1 / scale, rel=0.12)


def test_equal_size_is_not_resampled() -> None:
    image = picture(8, (24, 16))
    prepared = prepare(image, 16, 24)
    assert np.array_equal(np.rint((prepared.pixels_3RG + 1) * 127.5).astype(np.uint8), np.asarray(image).transpose(2, 0, 1))
    assert prepared.geometry == (16, 24, 0, 0, 16, 24)
    wide = prepare(picture(8, (40, 16)), 16, 24, place=(0.5, 1.0))
    assert np.array_equal(
        np.rint((wide.pixels_3RG + 1) * 127.5).astype(np.uint8), np.asarray(picture(8, (40, 16))).transpose(2, 0, 1)[:, :, 16:]
    )


def test_geometry_is_sdxl_s_six_numbers() -> None:
    image = picture(9, (96, 32))  # twice as high as the target, four times as wide
    places = {0.0: 0, 0.5: 12, 1.0: 24}
    for place, left in places.items():
        assert prepare(image, 16, 24, place=(0.5, place)).geometry == (32, 96, 0, left, 16, 24)
    assert prepare(image, 16, 24, place=(0, 0), flip=True).geometry == (32, 96, 0, 24, 16, 24)
    plain, mirrored = prepare(image, 16, 24, place=(0, 0.2)), prepare(image, 16, 24, place=(0, 0.2), flip=True)
    assert np.array_equal(plain.pixels_3RG[:, :, ::-1], mirrored.pixels_3RG)


def test_any_size_fits_any_target() -> None:
    draw = random.Random(1)
    for _ in range(300):
        width, height, *target = (draw.randint(1, 60) for _ in range(4))
        prepared = prepare(picture(0, (width, height)), *target, place=(draw.random(), draw.random()), flip=draw.random() < 0.5)
        assert prepared.pixels_3RG.shape == (3, *target) and min(prepared.geometry) >= 0
    with pytest.raises(ConfigError, match="height"):
        prepare(picture(0), 0, 24)
    with pytest.raises(ConfigError, match="right"):
        prepare(picture(0), 8, 8, place=(0, 1.5))


# Captions


def test_tidy_is_one_clean_line() -> None:
    assert tidy(" a cat\n on\ta  mat\u00a0\x00.\ufeff ") == "a cat on a mat ."
    assert tidy("cafe\u0301") == unicodedata.normalize("NFC", "café") and tidy("👩\u200d🚀") == "👩\u200d🚀"


def test_five_epochs_use_each_of_five_captions_once() -> None:
    captions = [f" caption {n} " for n in range(5)]
    orders = set()
    for cycle in range(20):
        order = tuple(choose(captions, "random", seed=3, epoch=5 * cycle + n, image_id="7") for n in range(5))
        assert sorted(order) == [tidy(text) for text in captions]
        orders.add(order)
    assert len(orders) > 10
    pictures = {choose(captions, "random", seed=3, epoch=0, image_id=str(n)) for n in range(40)}
    assert len(pictures) == 5


def test_the_other_policies() -> None:
    captions = ["a dog", "  a very long dog  ", "dog", "cat"]
    answers = {policy: choose(captions, policy, seed=0, epoch=4, image_id="1") for policy in POLICIES if policy != "random"}
    assert answers == {
        "first": "a dog",
        "longest": "a very long dog",
        "shortest": "dog",
        "all": "a dog. a very long dog. dog. cat.",
        "nth:1": "a dog",
    }
    assert [choose(captions, f"nth:{n}", seed=0, epoch=0, image_id="1") for n in (2, 4, 9)] == ["a very long dog", "cat", "cat"]
    with pytest.raises(ConfigError, match="did you mean 'longest'"):
        choose(captions, "longst", seed=0, epoch=0, image_id="1")
    with pytest.raises(SourceError, match="no caption"):
        choose([], "first", seed=0, epoch=0, image_id="1")


# Sheets


def test_a_sheet_shows_every_picture_whole_and_its_caption() -> None:
    red, blue = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (200, 400), "blue")
    page = sheet([[Cell(red, "a red one"), Cell(blue)], [Cell(blue)]], title="title", row_labels=("before", "after"), cell=100)
    pixels_HW3 = np.asarray(page)
    count = {
        name: int((pixels_HW3 == colour).all(-1).sum()) for name, colour in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items()
    }
    assert 90 * 60 <= count["red"] <= 100 * 67 and count["blue"] == 2 * 50 * 100
    bare = sheet([[Cell(red), Cell(blue)], [Cell(blue)]], title="title", row_labels=("before", "after"), cell=100)
    assert page.height > bare.height and grid([], title="nothing").width > 0
    long = grid([Cell(red, "word " * 400 + "x" * 300)], cell=100)
    assert long.width == 140 and long.height < 300
    assert grid([Cell(red, "word " * 400, lines=8)], cell=100).height > long.height


def rows_of(page: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """First and last row of a colour, and its first column."""
    found_RC = (np.asarray(page) == colour).all(-1)
    rows, columns = np.flatnonzero(found_RC.any(1)), np.flatnonzero(found_RC.any(0))
    return int(rows[0]), int(rows[-1]), int(columns[0])


def test_a_picture_stands_on_its_caption_and_away_from_the_next() -> None:
    flat, upright = Image.new("RGB", (200, 50), "red"), Image.new("RGB", (50, 200), "blue")
    below = Image.new("RGB", (200, 200), "lime")
    page = sheet([[Cell(flat, "one"), Cell(upright, "a\n" * 3)], [Cell(below, "two")]], cell=100)
    red, blue, lime = (rows_of(page, told) for told in ((255, 0, 0), (0, 0, 255), (0, 255, 0)))
    assert red[1] == blue[1] and red[0] > blue[0], "side by side they stand on one line, right above their captions"
    assert red[2] == lime[2] == MARGIN and blue[2] == MARGIN + 100 + GAP, "flush left with their captions"
    ink_R = np.flatnonzero((np.asarray(page.convert("L")) < 100).any(1) & (np.arange(page.height) > red[1] + 1))
    caption = ink_R[ink_R < lime[0] - 1]
    assert caption[0] - red[1] < lime[0] - caption[-1]


@pytest.mark.skipif(not FACES[0].is_file(), reason="needs two fonts to choose from")
def test_a_caption_is_drawn_in_a_font_that_has_its_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = tmp_path / "poor.ttf"
    few: Any = ImageFont.load_default(12)
    poor.write_bytes(few.font_bytes)
    monkeypatch.setattr("hf_diffusion_kit.sheet.FACES", (poor, FACES[0]))
    taken: list[Any] = [_font(12, text) for text in ("plain", "кириллица ⚀", "\U000f1234")]  # the last nobody has
    assert [font.path for font in taken] == [str(poor), str(FACES[0]), str(poor)]
