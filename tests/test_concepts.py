"""concepts_list.json as DreamBooth people have it: several folders, one prompt each, read as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import ConfigError, SourceError
from pictured import fill, metadata


def listed(folder: Path, *concepts: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "concepts_list.json").write_text(json.dumps(concepts, indent=4))
    return folder


def two(folder: Path) -> Path:
    fill(folder, ["set/dog/a.jpg", "set/dog/b.jpg", "set/dog_class/x.jpg", "far/cat/a.jpg"])
    return listed(
        folder / "set",
        {
            "instance_prompt": "photo of zwx dog",
            "class_prompt": "photo of a dog",
            "instance_data_dir": "dog",
            "class_data_dir": "dog_class",
            "num_class_images": 200,
        },
        {"instance_prompt": "photo of sks cat", "instance_data_dir": str(folder / "far/cat")},
    )


def found(path: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    data = load_captioned(path, **options)
    return {data.example(n).file_name: data.example(n).captions for n in range(len(data))}


def test_each_folder_has_its_prompt(tmp_path: Path) -> None:
    folder = two(tmp_path)
    expected = {"cat/a.jpg": ("photo of sks cat",), "dog/a.jpg": ("photo of zwx dog",), "dog/b.jpg": ("photo of zwx dog",)}
    assert found(folder) == found(folder / "concepts_list.json") == expected
    data = load_captioned(folder)
    assert data.source == "folder" and data.recipe == "hfdk subset folder set --out subset" and not data.left_out
    told = " ".join(data.notes)
    assert "class pictures are no part of this subset: dog_class" in told and "num_class_images is not used here" in told
    assert "captions come from concepts_list.json, which names 2 folders" in told


def test_no_path_of_this_machine_is_kept(tmp_path: Path) -> None:
    folder = two(tmp_path)
    fill(tmp_path, ["near/cat/z.jpg"])
    concepts = json.loads((folder / "concepts_list.json").read_text())
    listed(folder, *concepts, {"instance_prompt": "another cat", "instance_data_dir": "../near/cat/"})
    data = load_captioned(folder)
    assert list(data.dataset["file_name"]) == ["cat-2/z.jpg", "cat/a.jpg", "dog/a.jpg", "dog/b.jpg"]
    saved = data.save(tmp_path / "out")
    for file in saved.rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes()


def test_a_picture_that_two_concepts_name_has_both_prompts(tmp_path: Path) -> None:
    fill(tmp_path, ["me/a.jpg"])
    listed(tmp_path, *({"instance_prompt": text, "instance_data_dir": "./me"} for text in ("sks man", "a portrait of sks man")))
    assert found(tmp_path) == {"me/a.jpg": ("sks man", "a portrait of sks man")}


def test_captions_in_a_folder_are_used_or_ignored_as_asked(tmp_path: Path) -> None:
    folder = two(tmp_path)
    (folder / "dog/a.txt").write_text("mine")
    with pytest.raises(SourceError, match=r"\[0\]: has captions that would not be used: files beside the pictures"):
        load_captioned(folder)
    assert found(folder, ignore_captions=True)["dog/a.jpg"] == ("photo of zwx dog",)
    listed(folder, {"instance_data_dir": "dog"})
    data = load_captioned(folder)
    assert data.example(0).captions == ("mine",) and data.left_out["pictures without a caption"] == 1
    assert any("dog: captions come from files beside" in note for note in data.notes)


def test_what_lies_beside_the_list_is_told_of(tmp_path: Path) -> None:
    folder = fill(two(tmp_path), ["stray.jpg"])
    assert load_captioned(folder).left_out == {"pictures that no concept names": 1}
    assert load_captioned(folder / "concepts_list.json").left_out == {}
    metadata(folder, [("stray.jpg", "x")])
    with pytest.raises(SourceError, match=r"would not be used: metadata\.jsonl \(used: concepts_list\.json\)"):
        load_captioned(folder)
    assert any("ignored as asked: metadata.jsonl" in note for note in load_captioned(folder, ignore_captions=True).notes)
    with pytest.raises(ConfigError, match="prompt: is not for a list of concepts"):
        load_captioned(folder, prompt="x")


def test_paths_that_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the scripts that read such lists take them."""
    fill(tmp_path, ["data/dog/a.jpg", "data/dog_class/b.jpg", "lists/cat/c.jpg", "cat/d.jpg"])
    dog = {"instance_prompt": "sks dog", "instance_data_dir": "data/dog", "class_data_dir": "./data/dog_class"}
    listed(tmp_path / "lists", dog, {"instance_prompt": "zwx cat", "instance_data_dir": "cat"})
    with pytest.raises(SourceError, match="counts from the file, or else from the working directory, or is absolute"):
        load_captioned(tmp_path / "lists")
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path / "lists") == {"dog/a.jpg": ("sks dog",), "cat/c.jpg": ("zwx cat",)}
    notes = load_captioned("lists/concepts_list.json").notes
    for told in (
        "data/dog counts from the working directory, for there is no such folder beside the list",
        "./data/dog_class counts from the working directory, for there is no such folder beside the list",
        "cat is the folder beside the list, not the one in the working directory",
    ):
        assert f"concepts_list.json: {told}" in notes
    assert "class pictures are no part of this subset: dog_class" in " ".join(notes)


DOG = {"instance_prompt": "sks dog", "instance_data_dir": "dog"}
BAD: dict[str, tuple[Any, str]] = {
    "cut short": ('[{"instance_prompt": "sks dog", "instance', r"concepts_list\.json: the JSON is cut short"),
    "no JSON": ("instance_prompt: dog", "is no JSON"),
    "deep": ("[" * 50_000, "is no JSON: .*recursion"),
    "one object": (DOG, "is not a list of concepts"),
    "empty": ([], "is an empty list"),
    "text": (["dog"], r"\[0\]: is 'dog', not an object"),
    "no folder": (
        [DOG, {"instance_prompt": "x", "instance_dir": "dog"}],
        r"\[1\]: names no instance_data_dir; did you mean 'instance_dir'",
    ),
    "number": ([{**DOG, "instance_prompt": 7}], r"\[0\]\.instance_prompt: is 7, not text"),
    "gone": (
        [{**DOG, "instance_data_dir": "/content/data/zwx"}],
        r"\[0\]\.instance_data_dir: there is no folder '/content/data/zwx'",
    ),
    "zero byte": ([{**DOG, "instance_data_dir": "do\0g"}], r"\[0\]\.instance_data_dir: there is no folder"),
    "long": ([{**DOG, "instance_data_dir": "d" * 5000}], r"\[0\]\.instance_data_dir: 'd+': has too long a name"),
    "home of nobody": (
        [{**DOG, "instance_data_dir": "~nobody-of-this-name/x"}],
        r"\[0\]\.instance_data_dir: '~nobody-of-this-name/x': nobody has that home",
    ),
    "placeholder": ([{**DOG, "instance_prompt": "sks [filewords]"}], r"holds \[filewords\], which is not filled in"),
    "own class": ([{**DOG, "class_data_dir": "./dog"}], r"\[0\]\.class_data_dir: lies in the folder of the instance pictures"),
    "class inside": ([{**DOG, "class_data_dir": "dog/class"}], r"lies in the folder of the instance pictures"),
    "no picture": ([{**DOG, "instance_data_dir": "none"}], r"none: \[0\]: holds no picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_is_one_line(case: str, tmp_path: Path) -> None:
    content, what = BAD[case]
    (fill(tmp_path, ["dog/a.jpg", "dog/class/b.jpg"]) / "none").mkdir()
    (tmp_path / "concepts_list.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SourceError, match=what) as caught:
        load_captioned(tmp_path)
    assert caught.value.exit_code == 3 and "\n" not in caught.value.line() and len(caught.value.line()) < 700
