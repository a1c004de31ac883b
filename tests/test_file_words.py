"""Captions out of file names: only where they are asked for, and shown."""

from pathlib import Path

import pytest
from PIL import Image

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.file_words import words_of


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sks dog (3).jpg", "sks dog"),
        ("a/b/sks_dog_003.JPG", "sks dog"),
        ("sks-dog-12.png", "sks dog"),
        ("sks dog.jpeg", "sks dog"),
        ("r2d2 (1) (2).png", "r2d2"),
        ("000123.jpg", ""),
        ("(4).jpg", ""),
        ("blue.vase_01.png", "blue.vase"),
    ],
)
def test_the_words_of_a_name(name: str, words: str) -> None:
    assert words_of(name) == words


def folder(place: Path, *names: str) -> Path:
    place.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(place / name)
    return place


def test_a_prompt_that_asks_for_the_name_is_shown_with_what_it_gives(tmp_path: Path) -> None:
    pictures = folder(tmp_path / "photos", "sks dog (1).jpg", "sks dog (2).jpg", "red vase.jpg")
    mine = load_captioned(pictures, prompt="a photo of {file_name}")
    assert [row["captions"] for row in mine.dataset] == [["a photo of red vase"], *[["a photo of sks dog"]] * 2]
    assert any("made of file names, as asked: 'a photo of sks dog' (2), 'a photo of red vase' (1)" in note for note in mine.notes)
    assert "--prompt" in (mine.recipe or "") and "{file_name}" in (mine.recipe or "")


def test_a_name_without_a_word_is_no_caption(tmp_path: Path) -> None:
    pictures = folder(tmp_path / "photos", "000000000139.jpg", "sks.jpg")
    named = load_captioned(pictures, prompt="{file_name}")
    assert len(named) == 1 and named.left_out == {"pictures without a caption": 1}
    assert len(load_captioned(pictures, prompt="a photo of sks")) == 2  # without the field, names say nothing
