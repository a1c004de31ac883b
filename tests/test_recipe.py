"""Settings are strict: what is misspelt, of the wrong type or out of range is one line that names file and field."""

from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.bases import resolve
from hf_diffusion_kit.config import read, value_of
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.recipe import Recipe, sorted_keywords, word_sections

BASE = {"base": {"id": "digits-seven"}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, "id is missing"),
        ({**BASE, "trainig": {}}, "no section 'trainig'; did you mean 'training'"),
        (
            {**BASE, "training": {"learnin_rate": 1}},
            r"\[training\]: there is no setting 'learnin_rate'; did you mean 'learning_rate'",
        ),
        ({**BASE, "training": {"steps": "many"}}, r"\[training\]: steps: must be int, got 'many'"),
        ({**BASE, "training": {"steps": True}}, "must be int, got True"),
        ({**BASE, "training": {"steps": 0}}, "training: steps: must be above 0, got 0"),
        ({**BASE, "training": {"learning_rate": float("nan")}}, "learning_rate: must be above 0, got nan"),
        ({**BASE, "training": {"caption_dropout": 1.5}}, "caption_dropout: must lie between 0 and 1"),
        ({**BASE, "training": {"lr_scheduler": "cosin"}}, "'cosin' is not one of: constant, linear, cosine"),
        ({**BASE, "training": {"resolution": [8, 8, 8]}}, "height and width"),
        ({**BASE, "method": {"name": "lorra"}}, "unknown method 'lorra'; did you mean 'lora'"),
        ({**BASE, "method": {"rank": 0}}, "method: rank: must be above 0"),
        ({**BASE, "method": {"prior_weight": 1}}, "no setting 'prior_weight'"),
        ({**BASE, "method": {"name": "dreambooth", "prior_weight": -1}}, "prior_weight: must be 0 or more"),
    ],
)
def test_what_is_wrong_is_named(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.of(sections, where="run.toml")


def test_a_recipe_written_is_the_recipe_read(tmp_path: Path) -> None:
    told = {
        "base": {"id": "digits-seven"},
        "method": {"name": "dreambooth", "rank": 4, "class_prompts": ["a digit", 'a "quoted" one'], "targets": ["to_q"]},
        "training": {"steps": 7, "learning_rate": 1, "resolution": 32},
        "gallery": {"captions": ["ein Bär: 50 %"]},
    }
    recipe = Recipe.of(told, where="test")
    recipe.write(tmp_path / "run.toml")
    assert Recipe.read(tmp_path / "run.toml", [], {}) == recipe
    assert recipe.training.learning_rate == 1.0 and recipe.training.resolution == (32,)


def test_words_go_to_the_section_that_knows_them() -> None:
    found = word_sections(["rank=4", "steps=10", "training.seed=3", "lr_scheduler=linear"], {})
    assert found["method"] == {"rank": 4}
    assert found["training"] == {"steps": 10, "seed": 3, "lr_scheduler": "linear"}
    assert word_sections(["method=dreambooth", "prior_weight=0.5"], {})["method"] == {"name": "dreambooth", "prior_weight": 0.5}


def test_a_bare_key_of_several_sections_is_the_trainings() -> None:
    found = word_sections(["seed=3", "gallery.seed=4", "steps=9"], {})
    assert found["training"] == {"seed": 3, "steps": 9} and found["gallery"] == {"seed": 4}
    with pytest.raises(ConfigError, match="no section 'galery'; did you mean 'gallery'"):
        word_sections(["galery.seed=3"], {})


def test_keywords_of_a_trainer_are_settings() -> None:
    assert sorted_keywords("lora", {"rank": 8, "steps": 5}) == {"method": {"name": "lora", "rank": 8}, "training": {"steps": 5}}
    assert sorted_keywords("lora", {"gallery_steps": 5, "seed": 1})["gallery"] == {"steps": 5}
    with pytest.raises(ConfigError, match="no setting 'stesp'; did you mean 'steps'"):
        sorted_keywords("lora", {"stesp": 5})


def test_words_are_read_as_toml_values() -> None:
    assert [value_of(t) for t in ("3", "1e-4", "true", '["a", "b"]', "cosine", "a b")] == [
        3,
        1e-4,
        True,
        ["a", "b"],
        "cosine",
        "a b",
    ]


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[training]\nsteps = "10\n')
    with pytest.raises(ConfigError, match=r"run\.toml: is not TOML: .*line 2"):
        read(path)
    with pytest.raises(ConfigError, match="there is no such file"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize("told", ["~nobody-of-this-name/x", "x" * 300])
def test_a_path_that_is_none_is_one_line(told: str, tmp_path: Path) -> None:
    said = (
        "nobody has that home folder. Fix: write the path in full"
        if told[0] == "~"
        else "cannot be looked at: File name too long"
    )
    with pytest.raises(ConfigError, match=f"base: .*: {said}"):
        resolve(told)
    for data in ({"path": told}, {"path": "x", "class_path": told}):
        with pytest.raises(ConfigError, match=said):
            Recipe.of({**BASE, "data": data}, where="t").write(tmp_path / "run.toml")
    assert not list(tmp_path.iterdir())


def test_what_is_published_holds_no_path(tmp_path: Path) -> None:
    base = tmp_path / "my-base"
    base.mkdir()
    recipe = Recipe.of({"base": {"id": str(base)}, "data": {"path": str(tmp_path / "secret" / "cats")}}, where="test")
    told = recipe.public()
    assert told["base"]["id"] == "my-base" and told["data"]["path"] == "cats"
    assert str(tmp_path) not in repr(told)
