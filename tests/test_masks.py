"""The mask lies where the picture does, latent by latent; what is missing or of another size is said by name."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hf_diffusion_kit.data import Captioned, load_captioned
from hf_diffusion_kit.data.pictures import alpha_of, open_grey, open_rgb, store
from hf_diffusion_kit.data.pixels import Crop, prepare
from hf_diffusion_kit.errors import SourceError
from hf_diffusion_kit.training.masks import Masks, at_latents, floored
from pictured import SIZE, encoded, metadata, picture


def cut_out(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture with a hole: opaque in an ellipse, half so in a bar, transparent elsewhere."""
    alpha = Image.new("L", size, 0)
    draw = ImageDraw.Draw(alpha)
    draw.ellipse((3 + seed, 4, 20 + seed, 22), fill=255)
    draw.rectangle((30, 0, 36, size[1]), fill=128)
    image = picture(seed, size)
    image.putalpha(alpha)
    return image


def folder(path: Path, pictures: dict[str, Image.Image | bytes]) -> Captioned:
    for name, image in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(image if isinstance(image, bytes) else encoded(image, "PNG"))
    return load_captioned(metadata(path, [(name, "a dog") for name in pictures]))


# How opaque a picture was


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("turn", [1, 6])
def test_a_stored_picture_remembers_how_opaque_it_was_and_shows_nothing_of_it(form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(cut_out(2), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    kept = store(content, "x")
    told = alpha_of(kept.content)
    assert told is not None and told.mode == "L" and told.size == (kept.width, kept.height)
    upright = cut_out(2).getchannel("A").transpose(Image.Transpose.ROTATE_270) if turn == 6 else cut_out(2).getchannel("A")
    assert np.array_equal(np.asarray(told), np.asarray(upright))
    before = alpha_of(content)
    assert before is not None and np.array_equal(np.asarray(before), np.asarray(upright))
    with Image.open(io.BytesIO(kept.content)) as stock:
        assert stock.mode == "RGB" and np.array_equal(np.asarray(stock), np.asarray(open_rgb(content)))
    again = store(kept.content, "x")  # a subset of a subset
    assert again.content == kept.content and again.remarks == ()


def test_what_hides_nothing_has_no_alpha() -> None:
    solid = picture(1).convert("RGBA")
    palette = Image.new("P", SIZE, 0)
    palette.putpalette([9, 9, 9])
    for content in (encoded(picture(1)), encoded(solid, "PNG"), encoded(picture(1, mode="L"), "PNG"), encoded(palette, "PNG")):
        assert alpha_of(content) is None and alpha_of(store(content, "x").content) is None
    told = alpha_of(store(encoded(palette, "PNG", transparency=0), "x").content)
    assert told is not None and np.asarray(told).max() == 0


def test_grey_lies_on_black_and_is_scaled() -> None:
    assert np.array_equal(
        np.asarray(open_grey(encoded(cut_out(1).getchannel("A"), "PNG"))), np.asarray(cut_out(1).getchannel("A"))
    )
    white = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    assert np.asarray(open_grey(encoded(white, "PNG"))).max() == 0
    deep_HW = np.full(SIZE[::-1], 65535, np.uint16)
    assert np.asarray(open_grey(encoded(Image.fromarray(deep_HW), "PNG"))).min() == 255


def test_it_outlives_saving_and_opening(tmp_path: Path) -> None:
    data = folder(tmp_path / "in", {"a.png": cut_out(0), "b.png": picture(1)})
    again = Captioned.open(data.save(tmp_path / "out"))
    for index in range(2):
        first, second = data.alpha(index), again.alpha(index)
        assert (first is None) == (index == 1)
        if first is not None and second is not None:
            assert np.array_equal(np.asarray(first), np.asarray(second))
            assert np.array_equal(np.asarray(first), np.asarray(cut_out(0).getchannel("A")))


# At the latents


def brute(mask: Image.Image, crop: Crop, divisor: int) -> np.ndarray:
    """Each latent's mean over a fine grid of points within it."""
    left, top, right, bottom = crop.box
    height, width, fine = crop.size[0] // divisor, crop.size[1] // divisor, 40
    rows = top + (np.arange(height * fine) + 0.5) / (height * fine) * (bottom - top)
    columns = left + (np.arange(width * fine) + 0.5) / (width * fine) * (right - left)
    points_HW = np.asarray(mask)[rows.astype(int)][:, columns.astype(int)] / 255
    mean_HW = points_HW.reshape(height, fine, width, fine).mean((1, 3))
    return mean_HW[:, ::-1] if crop.flip else mean_HW


def test_a_latent_s_mask_is_the_mean_of_what_it_stands_for() -> None:
    draw = random.Random(0)
    for _ in range(80):
        width, height = draw.randint(5, 90), draw.randint(5, 90)
        mask = Image.fromarray(np.random.default_rng(draw.randint(0, 999)).integers(0, 256, (height, width), dtype=np.uint8))
        size, divisor = (8 * draw.randint(1, 6), 8 * draw.randint(1, 6)), draw.choice((4, 8))
        crop = Crop((height, width), size, (draw.random(), draw.random()), draw.random() < 0.5)
        got = at_latents(mask, crop, divisor)
        assert got.shape == (1, size[0] // divisor, size[1] // divisor) and got.dtype == torch.float32
        assert got.min() >= 0 and got.max() <= 1
        assert np.abs(got[0].numpy() - brute(mask, crop, divisor)).max() < 0.06


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_mask_lies_where_the_picture_does(flip: bool, place: tuple[float, float]) -> None:
    """A white shape on black, masked by itself: the picture's brightness in each latent is the mask."""
    shape = Image.new("L", (300, 170), 0)
    ImageDraw.Draw(shape).polygon([(20, 10), (140, 60), (250, 20), (280, 160), (90, 150)], fill=255)
    for size in ((96, 128), (128, 64), (64, 192)):
        pixels_RG = prepare(shape.convert("RGB"), *size, place=place, flip=flip).pixels_3RG[0] / 2 + 0.5
        light_HW = pixels_RG.reshape(size[0] // 8, 8, size[1] // 8, 8).mean((1, 3))
        mask_HW = at_latents(shape, Crop((170, 300), size, place, flip), 8)[0].numpy()
        assert np.abs(light_HW - mask_HW).max() < 0.04
        assert np.abs(light_HW[:, ::-1] - mask_HW).max() > 0.5  # the test can fail


def test_plain_masks_are_exact_and_the_floor_holds() -> None:
    crop = Crop((33, 47), (16, 24), (0.3, 0.9))
    white, black = (at_latents(Image.new("L", (47, 33), value), crop, 8) for value in (255, 0))
    assert (white == 1).all() and (black == 0).all()
    assert (floored(black, 0.25) == 0.25).all() and (floored(white, 0.25) == 1).all()
    mixed = torch.tensor([[[[0.0, 0.1], [0.2, 0.9]]]])
    assert (
        torch.equal(floored(mixed, 0.0), mixed)
        and floored(mixed, 0.15).tolist() == torch.tensor([[[[0.15, 0.15], [0.2, 0.9]]]]).tolist()
    )


# Of a set of pictures


def test_alpha_masks_of_a_set(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a.png": cut_out(0), "b.png": picture(1), "c.png": cut_out(3)})
    masks = Masks(data, "alpha")
    crop = Crop(SIZE[::-1], (16, 24))
    got = [masks.at(index, crop, 8) for index in range(3)]
    assert (got[1] == 1).all() and torch.equal(got[0], at_latents(cut_out(0).getchannel("A"), crop, 8))
    assert len({masks.mark(index) for index in range(3)}) == 3
    said = masks.notes(got)
    assert said[0].startswith("masks let ") and said[1].startswith("1 of 3 pictures have no transparency") and len(said) == 2
    assert masks.notes([torch.zeros(1, 2, 3), got[0]])[-1].startswith("1 of 2 pictures are masked wholly")


def test_without_any_transparency_an_alpha_mask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none of the pictures has transparency"):
        Masks(folder(tmp_path, {"a.png": picture(0)}), "alpha")


def test_masks_of_files(tmp_path: Path) -> None:
    data = folder(tmp_path / "in", {"cats/a.png": picture(0), "dogs/a.png": picture(1), "dogs/b.jpg": encoded(picture(2))})
    there = tmp_path / "masks"
    shapes = {"cats/a": 0, "dogs/a": 3, "b": 6}  # b lies at the top: no other picture is called so
    for name, seed in shapes.items():
        (there / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        cut_out(seed).getchannel("A").convert("RGB").save(there / f"{name}.png")
    masks, crop = Masks(data, "files", there), Crop(SIZE[::-1], (16, 24), flip=True)
    for index, name in enumerate(data.dataset["file_name"]):
        seed = shapes["b" if name.endswith("jpg") else name.removesuffix(".png")]
        assert torch.equal(masks.at(index, crop, 8), at_latents(cut_out(seed).getchannel("A"), crop, 8))
    marks = [masks.mark(index) for index in range(3)]
    Image.new("L", SIZE, 255).save(there / "b.png")
    assert [masks.mark(index) for index in range(3)] == marks
    assert sum(mark != Masks(data, "files", there).mark(index) for index, mark in enumerate(marks)) == 1
    assert any("white all over" in note for note in masks.notes([masks.at(index, crop, 8) for index in range(3)]))


def test_masks_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "in", {"a.png": picture(0), "b.png": picture(1), "x/c.png": picture(2), "y/c.png": picture(3)})
    there = tmp_path / "masks"
    there.mkdir()
    for name in "abc":
        Image.new("L", SIZE, 255).save(there / f"{name}.png")
    with pytest.raises(SourceError, match=r"without a mask: 2 \(x/c.png, y/c.png\)"):  # c.png could be either's
        Masks(data, "files", there)
    for name in "xy":
        (there / name).mkdir()
        Image.new("L", SIZE, 255).save(there / name / "c.png")
    assert Masks(data, "files", there).files[2] == there / "x" / "c.png"
    Image.new("L", SIZE[::-1], 255).save(there / "b.png")
    with pytest.raises(SourceError, match=r"b.png has 48x32 pixels, its mask 32x48"):
        Masks(data, "files", there)
    (there / "b.png").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="HTML"):
        Masks(data, "files", there)
    (there / "b.png").unlink()
    (there / "b.png").symlink_to(tmp_path / "in" / "a.png")
    with pytest.raises(SourceError, match="leads out of the folder"):
        Masks(data, "files", there)
