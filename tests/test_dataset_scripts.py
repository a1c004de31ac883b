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


def at_scale(at: Path, nodes: int, *words: str) -> list[tuple[int, str, str]]:
    """All nodes at once: exit code, what was printed, what was said to be wrong."""
    command = [sys.executable, str(SCRIPTS / "at_scale.py"), str(at / "shards/*.parquet"), "--out", "out", *words]
    running = []
    for rank in range(nodes):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(nodes), "HF_HOME": str(at / "home")}
        running.append(
            subprocess.Popen(command, env=environment, cwd=at, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=100) for process in running]
    return [(process.returncode, *words) for process, words in zip(running, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("shards", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_four_nodes_cover_every_row_exactly_once(shards: int, tmp_path: Path) -> None:
    """Shards that four nodes can share evenly, and shards that they cannot; rows without ids, as most sets of the web have them."""
    names = [f"{number:03d}.jpg" for number in range(26)]
    texts = [f"picture {number} of a {'dog' if number % 3 else 'cat'}" for number in range(26)]
    rows = load_captioned(metadata(fill(tmp_path / "raw", names), list(zip(names, texts, strict=True)))).dataset
    for number in range(shards):
        shard = rows.select_columns(["image", "text"]).shard(shards, number, contiguous=True)
        shard.to_parquet(str(tmp_path / f"shards/{number:05d}.parquet"))
    for code, _, wrong in at_scale(tmp_path, 4, "--match", "dog"):
        assert code == 0, wrong[-2000:]
    parts = [Captioned.open(folder) for folder in sorted((tmp_path / "out").glob("part-*"))]
    found = [text for part in parts for text in part.dataset["text"]]
    expected = [text for text in texts if "dog" in text]
    assert len(parts) == 4 and all(len(part) for part in parts)
    assert sorted(found) == sorted(expected)  # none missing, none twice
    assert len({name for part in parts for name in part.dataset["image_id"]}) == len(expected)
    assert len(load_captioned(tmp_path / "out")) == len(expected)  # told apart when they are read as one
    assert sum(sum(part.left_out.values()) for part in parts) == 26 - len(expected)


@pytest.mark.parametrize("files", ["none/*.parquet", "none.parquet", "raw/*.jpg"])
def test_shards_that_are_none_are_one_line(files: str, tmp_path: Path) -> None:
    fill(tmp_path / "raw", ["a.jpg"])
    done = run("at_scale.py", files, "--out", "out", at=tmp_path)
    assert done.returncode == 3 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error[E-DATA-09] {files}: no shards: ") and line.endswith("Fix: name Parquet files.")


@pytest.mark.slow
def test_a_part_is_taken_only_for_what_it_was_made_of(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    texts = ["a dog", "a dog too", "a cat", "a cat too"]
    rows = load_captioned(metadata(fill(tmp_path / "raw", names), list(zip(names, texts, strict=True)))).dataset
    for number in range(2):
        rows.shard(2, number, contiguous=True).to_parquet(str(tmp_path / f"shards/{number:05d}.parquet"))
    first, second = at_scale(tmp_path, 2, "--match", "dog")
    assert first[:2] == (0, "node 0 of 2: 2 pictures, left out: none\n"), first
    assert second[0] == 0 and second[1].startswith("node 1 of 2: 0 pictures: not one picture is left"), (
        second
    )  # no fault of its own
    [part] = (tmp_path / "out").glob("part-*")
    (part / "data/train-00000-of-00001.parquet").write_bytes(b"")  # nothing but the facts is opened
    before = sorted((path, path.stat().st_mtime_ns) for path in part.rglob("*"))
    assert at_scale(tmp_path, 2, "--match", "dog") == [first, second]
    for nodes, words in ((2, ("--match", "cat")), (2, ("--match", "dog", "--caption-column", "text")), (1, ("--match", "dog"))):
        code, _, wrong = at_scale(tmp_path, nodes, *words)[0]
        assert code == 5 and wrong.count("\n") == 1 and "part-00000-of-00002" in wrong, wrong
    assert sorted((path, path.stat().st_mtime_ns) for path in part.rglob("*")) == before
