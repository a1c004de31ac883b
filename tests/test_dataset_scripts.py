"""The scripts in dataset_scripts/ are the documentation, so each is run as it is shown there."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_diffusion_kit import Captioned, load_captioned
from pictured import coco, fill, metadata

SCRIPTS = Path(__file__).parent.parent / "dataset_scripts"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.py"))


def run(name: str, *words: object, at: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HFDK_HUB_DIR": str(at / "hub"), "HF_HOME": str(at / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=at)


@pytest.fixture(scope="module")
def set_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures; every object of category dog covers half of its picture, and one of them is a crowd."""
    folder = coco(tmp_path_factory.mktemp("coco"), 12)
    file = folder / "annotations/instances_val2014.json"
    told = json.loads(file.read_text())
    for thing in told["annotations"]:
        thing |= {"area": 48 * 32 / 2 if thing["category_id"] == 18 else 9.0, "iscrowd": int(thing["image_id"] == 2)}
    file.write_text(json.dumps(told))
    file = folder / "annotations/captions_val2014.json"
    told = json.loads(file.read_text())
    told["licenses"] = [
        {"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"},
        {"id": 5, "name": "Attribution-NonCommercial License", "url": "http://creativecommons.org/licenses/by-nc/2.0/"},
    ]
    file.write_text(json.dumps(told))
    return folder


def test_coco_captions(set_: Path, tmp_path: Path) -> None:
    done = run(
        *("coco_captions.py", "--coco", set_, "--category", "dog", "--count", 3, "--out", "out/dogs"),
        *("--push", "you/dogs", "--hub", "local"),
        at=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 pictures with 15 captions" in done.stdout and "left out: pictures without dog: 6" in done.stdout
    assert "licence: Attribution License: 3" in done.stdout and "published: you/dogs, commit " in done.stdout
    assert len(load_captioned(tmp_path / "out/dogs")) == 3 and (tmp_path / "out/dogs/images/sheet.png").is_file()


def test_coco_subject(set_: Path, tmp_path: Path) -> None:
    done = run("coco_subject.py", "--coco", set_, "--subject", "dog", "--count", 5, "--out", "dog", at=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    data = load_captioned(tmp_path / "dog")
    assert sorted(map(int, data.dataset["image_id"])) == [4, 6, 8, 10, 12]  # not 2, where the dogs are a crowd
    assert data.licenses == {"Attribution License": 5}
    assert done.stdout.endswith("instance prompt: a photo of sks dog\n  class prompt:    a photo of a dog\n")
    assert all(name in done.stdout for name in data.dataset["file_name"])
    small = run("coco_subject.py", "--coco", set_, "--subject", "person", "--out", "person", at=tmp_path)
    assert small.returncode == 3 and "Traceback" not in small.stderr
    assert "not one picture is left" in small.stderr


def test_own_folder(tmp_path: Path) -> None:
    fill(tmp_path / "mine", ["a.jpg", "b.jpg", "c.jpg"])
    metadata(tmp_path / "mine", [("a.jpg", "a dog"), ("b.jpg", "a cat")])
    words = ("own_folder.py", "mine", "--out", "out", "--push", "you/mine", "--hub", "local", "--license", "cc-by-4.0")
    done = run(*words, at=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 pictures with 2 captions" in done.stdout and "pictures without a caption: 1" in done.stdout
    assert "published: you/mine, commit " in done.stdout
    assert load_captioned(tmp_path / "out").dataset["text"][:] == ["a dog", "a cat"]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_short_explains_itself_and_uses_what_everybody_can(name: str) -> None:
    text = (SCRIPTS / name).read_text(encoding="utf-8")
    tree = ast.parse(text)
    told = ast.get_docstring(tree) or ""
    assert len(text.splitlines()) < 80 and f"python dataset_scripts/{name}" in told and "Why: " in told
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [module for module in modules if module and module.startswith("hf_diffusion_kit")] == [
        "hf_diffusion_kit",
        "hf_diffusion_kit.errors",
    ]


def test_load_dataset_does_not_take_the_folder_for_a_script() -> None:
    assert NAMES == ["at_scale.py", "coco_captions.py", "coco_subject.py", "own_folder.py"]
    assert f"{SCRIPTS.name}.py" not in NAMES
    readme = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in NAMES)


@pytest.mark.parametrize("shards", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_four_nodes_cover_every_row_exactly_once(shards: int, tmp_path: Path) -> None:
    """Shards that four nodes can share evenly, and shards that they cannot; then one node is started again."""
    names = [f"{number:03d}.jpg" for number in range(26)]
    texts = [f"picture {number} of a {'dog' if number % 3 else 'cat'}" for number in range(26)]
    rows = load_captioned(metadata(fill(tmp_path / "raw", names), list(zip(names, texts, strict=True)))).dataset
    for number in range(shards):
        shard = rows.shard(shards, number, contiguous=True)
        shard.to_parquet(str(tmp_path / f"shards/{number:05d}.parquet"))
    words = [sys.executable, str(SCRIPTS / "at_scale.py"), str(tmp_path / "shards/*.parquet"), "--out", "out", "--match", "dog"]
    nodes = []
    for rank in range(4):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "4", "HF_HOME": str(tmp_path / "home")}
        nodes.append(
            subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for process in nodes:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err[-2000:]
    parts = [Captioned.open(folder) for folder in sorted((tmp_path / "out").glob("part-*"))]
    found = [name for part in parts for name in part.dataset["file_name"]]
    expected = [name for name, text in zip(names, texts, strict=True) if "dog" in text]
    assert len(parts) == 4 and all(len(part) for part in parts)
    assert sorted(found) == expected  # none missing, none twice
    assert sum(sum(part.left_out.values()) for part in parts) == 26 - len(expected)
