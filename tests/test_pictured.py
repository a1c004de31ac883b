"""A run that is resumed on other pictures is refused, and told which they are."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from PIL import Image

import tiny
import toyset
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import CheckpointError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import DreamBooth
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training.pictured import differences, pictured
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer


def trainer(home: Path, run: str = "run") -> tuple[Trainer, list[str]]:
    heard: list[str] = []
    settings = TrainSettings(steps=3, resolution=(tiny.HEIGHT, tiny.WIDTH))
    told: dict[str, Any] = {"class_data": load_captioned(home / "class"), "folder": home / run, "progress": False}
    data = load_captioned(home / "data")
    return Trainer(FAMILIES["sd1"](tiny.pipeline()), DreamBooth(rank=2), settings, data, **told, say=heard.append), heard


@pytest.fixture
def home(tmp_path: Path) -> Path:
    toyset.folder(tmp_path / "data", count=6)
    toyset.folder(tmp_path / "class", count=2, captions=1)
    run, _ = trainer(tmp_path)
    run.step()
    run.save()
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def reworded(folder: Path, name: str | None = None, *, drop: str | None = None, add: str | None = None) -> None:
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{**row, "text": "another thing"} if row["file_name"] == name else row for row in rows if row["file_name"] != drop]
    rows += [{**rows[0], "file_name": add}] if add else []
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def refusal(home: Path) -> str:
    with pytest.raises(CheckpointError, match="belongs to another run") as raised:
        trainer(home)[0].resume()
    return raised.value.line()


def test_the_refusal_names_what_changed_was_added_and_is_gone(home: Path) -> None:
    data = home / "data"
    first, second, third, *_ = names(data)
    Image.new("RGB", (24, 16), "red").save(data / first)
    reworded(data, second)
    (data / third).unlink()
    reworded(data, drop=third)
    Image.new("RGB", (24, 16), "blue").save(data / "new.png")
    reworded(data, add="new.png")
    told = f"data: of 6 pictures 1 changed ({first}), 1 with other captions ({second}), 1 added (new.png), 1 gone ({third})"
    assert told in refusal(home) and "class_data" not in refusal(home)
    run, heard = trainer(home)
    assert run.resume(allow=["data"]) == 1
    assert heard == [f"changed on request: {told}"]


def test_class_pictures_are_told_apart_and_many_are_counted(home: Path) -> None:
    for name in names(home / "class"):
        Image.new("RGB", (24, 16), "red").save(home / "class" / name)
    for name in names(home / "data"):
        Image.new("RGB", (24, 16), "red").save(home / "data" / name)
    line, (one, two, three, *_) = refusal(home), names(home / "data")
    assert f"data: of 6 pictures 6 changed ({one}, {two}, {three}, and 3 more)" in line
    assert "class_data: of 2 pictures 2 changed (" in line


def test_a_checkpoint_that_does_not_know_is_refused_by_the_whole_sets_mark(home: Path) -> None:
    """As earlier versions wrote them."""
    found = checkpoints.load(home / "run" / "checkpoint-000001")
    assert found.pictures
    shutil.rmtree(home / "run")
    found.pictures.clear()
    checkpoints.save(home / "run", found, keep=1)
    reworded(home / "data", names(home / "data")[0])
    assert f"data: {found.state['identity']['data']} -> " in refusal(home)


def test_another_order_is_called_so(home: Path) -> None:
    data = load_captioned(home / "data")
    turned = SimpleNamespace(dataset=data.dataset.select(list(reversed(range(len(data))))))
    told = differences(pictured(data, "instance"), pictured(turned, "instance"), "instance")  # type: ignore[arg-type]
    assert told == "the 6 pictures are in another order"


def test_coco_takes_less_than_two_megabytes_and_seconds() -> None:
    count = 118_287
    rows = {
        "file_name": [f"{number * 4987 % 581_929:012d}.jpg" for number in range(count)],
        "sha256": [f"{number:064x}" for number in range(count)],
        "captions": [[f"a thing {number}"] for number in range(count)],
    }
    begun = time.monotonic()
    kept = pictured(SimpleNamespace(dataset=datasets.Dataset.from_dict(rows)), "instance")  # type: ignore[arg-type]
    assert sum(value.nbytes for value in kept.values()) < 2_000_000
    assert time.monotonic() - begun < 30
