"""Small things of the subsets that went unsaid: an `nth:` caption that is not there, a `~` in the name of a folder."""

from pathlib import Path

import pytest

import pictured
import toyset
from hf_diffusion_kit import load_dataset
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.captioned import Captioned


def test_live_rows_say_where_the_nth_caption_was_not_there(tmp_path: Path) -> None:
    """The third of six pictures has six captions, all others five."""
    pictured.coco(tmp_path)
    told = {"annotations": tmp_path / "annotations", "images": tmp_path, "cache_dir": tmp_path / "cache"}
    said = load_dataset("coco-captions", **told, caption="nth:6").info.description
    assert "pictures with fewer than 6 captions, of which the last was taken: 5" in said
    assert "fewer than" not in load_dataset("coco-captions", **told, caption="nth:5").info.description
    assert "fewer than" not in load_dataset("coco-captions", **told).info.description


def test_live_rows_count_the_captions_that_are_long_enough(tmp_path: Path) -> None:
    pictured.coco(tmp_path)
    told = {"annotations": tmp_path / "annotations", "images": tmp_path, "cache_dir": tmp_path / "cache"}
    rows = load_dataset("coco-captions", **told, caption="nth:5", min_words=5)
    assert rows["captions"][:] == [["a sixth,\nover two lines\n"]]
    assert "pictures with fewer than 5 captions, of which the last was taken: 1" in rows.info.description


def test_a_home_folder_is_one_to_save_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = load_captioned(toyset.folder(tmp_path / "data"))
    assert data.save("~/saved") == tmp_path / "saved"
    assert not (tmp_path / "~").exists()
    assert Captioned.open("~/saved").fingerprint == data.fingerprint
