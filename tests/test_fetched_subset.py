"""Without a folder of pictures, a subset fetches those that were chosen, from a server on this machine, and no other."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import faulty
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import Subset, load_captioned, load_dataset
from hf_diffusion_kit.data.archives import Archive
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.downloads import Downloads
from hf_diffusion_kit.data.features import FEATURES
from hf_diffusion_kit.data.gather import Choice, gather
from hf_diffusion_kit.errors import ConfigError, HubError, SourceError
from pictured import coco

ZIP = "annotations/annotations_trainval2014.zip"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return coco(tmp_path / "set", 12)


@pytest.fixture
def server(folder: Path) -> Iterator[faulty.Faulty]:
    """Has the pictures and the archive; the folder keeps the annotations alone."""
    files = {f"/val2014/{file.name}": file.read_bytes() for file in (folder / "val2014").iterdir()}
    shutil.rmtree(folder / "val2014")
    with zipfile.ZipFile(folder / "notes.zip", "w") as archive:
        for file in (folder / "annotations").iterdir():
            archive.write(file, f"annotations/{file.name}")
    with faulty.Faulty({**files, f"/{ZIP}": (folder / "notes.zip").read_bytes()}) as running:
        yield running


def test_only_the_chosen_pictures_are_fetched_and_only_once(
    folder: Path, server: faulty.Faulty, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["subset", "coco", "--annotations", str(folder / "annotations"), "--images", server.url, "--category", "dog"]
    assert main([*words, "--count", "2", "--out", str(tmp_path / "two"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 2 and len(server.requests) == 2
    assert all(path.startswith("/val2014/COCO_val2014_") for path in server.counts())
    assert main([*words, "--count", "3", "--out", str(tmp_path / "three"), "--json"]) == 0
    assert len(server.requests) == 3 and max(server.counts().values()) == 1  # two of the three are here already
    again = load_captioned(tmp_path / "two")
    assert "127.0.0.1" not in json.dumps([again.recipe, *again.notes]) and again.recipe.startswith(
        "hfdk subset coco --annotations"
    )


def test_annotations_come_from_the_archive_when_none_are_named(folder: Path, server: faulty.Faulty, tmp_path: Path) -> None:
    content = server.files[f"/{ZIP}"]
    archives = {"val2014": Archive(ZIP, len(content), hashlib.sha256(content).hexdigest())}
    downloads = Downloads(server.url, tmp_path / "coco", archives=archives)
    data = gather(Coco(None, None, "val2014", downloads), Choice(Subset(category=("frisbee",))))
    assert len(data) == 4 and server.counts()[f"/{ZIP}"] == 1
    assert set(data.record.files) == {"captions_val2014.json", "instances_val2014.json"}
    whole = load_captioned("coco", annotations=tmp_path / "coco/annotations", images=tmp_path / "coco", on_bad_image="skip")
    assert len(whole) == 4 and whole.left_out["pictures that cannot be read"] == 8  # what was fetched has COCO's own layout
    assert replace(data.record, recipe=None).licenses == whole.licenses
    with pytest.raises(ConfigError, match=r"which annotations\? Fix: say which split"):
        gather(Coco(None, None, None, downloads), Choice(Subset()))


def test_the_live_name_fetches_as_the_command_does(
    folder: Path, server: faulty.Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"annotations": folder / "annotations", "category": "dog", "count": 2, "cache_dir": str(tmp_path)}
    now = {name: value for name, value in options.items() if name != "cache_dir"}
    asked = load_captioned("coco", images=server.url, **now)
    assert len(server.requests) == 2
    for images in (server.url, "https"):
        monkeypatch.setattr("hf_diffusion_kit.data.load.SECURE", server.url)
        data = load_dataset("coco-captions", images=images, **now)
        assert data.features == FEATURES and data[:] == asked.dataset[:] and data[0]["sha256"]
        stream = load_dataset("coco-captions", images=images, streaming=True, **now)
        assert [row["image_id"] for row in stream] == data["image_id"][:]
    assert load_dataset("coco-captions", pixels="embedded", **now)[:] == data[:]
    assert len(server.requests) == 2  # all of them were here
    for images in (None, "https", server.url):
        addresses = load_dataset("coco-captions", images=images, pixels="none", **options)
        same = load_captioned("coco", images=images, pixels="none", **now)
        assert addresses.data["image"].to_pylist() == same.dataset.data["image"].to_pylist()
    assert len(server.requests) == 2
    with pytest.raises(ConfigError, match=r"cache_dir: is not used where pictures are read now.*pixels=\"none\""):
        load_dataset("coco-captions", images="https", **options)
    with pytest.raises(ConfigError, match="cannot be cut out of pictures that are read now"):
        load_dataset("coco-captions", images="https", split="train[:1]", **now)
    with pytest.raises(ConfigError, match="pixels: is 'embedded' or 'none', not 'all'"):
        load_dataset("coco-captions", pixels="all", **now)


def test_the_live_name_fetches_the_annotations_of_a_split(
    folder: Path, server: faulty.Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = server.files[f"/{ZIP}"]
    archives = {"val2014": Archive(ZIP, len(content), hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr("hf_diffusion_kit.data.live.Downloads", partial(Downloads, archives=archives))
    options = {"images": server.url, "pixels": "none", "cache_dir": str(tmp_path)}
    data = load_dataset("coco-captions", "val2014", category="frisbee", **options)
    assert len(data) == 4 and list(server.counts()) == [f"/{ZIP}"]
    with pytest.raises(ConfigError, match=r"needs annotations\. Fix: .*the split whose official ones"):
        load_dataset("coco-captions", **options)


def test_pictures_in_a_folder_are_read_now_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = coco(tmp_path / "set", 4)
    options: dict[str, Any] = {"annotations": folder / "annotations", "images": folder}
    data = load_dataset("coco-captions", pixels="embedded", **options)
    assert data[:] == load_captioned("coco", **options).dataset[:]
    live = load_dataset("coco-captions", cache_dir=str(tmp_path), **options)
    assert [row["path"] for row in live.data["image"].to_pylist()] == [
        str(folder / "val2014" / name) for name in live["file_name"][:]
    ]


def test_a_picture_that_is_gone_is_an_error_or_is_replaced(folder: Path, server: faulty.Faulty) -> None:
    options = {"annotations": folder / "annotations", "images": server.url, "category": "dog", "count": 3}
    first = load_captioned("coco", **options).dataset["file_name"][0]
    server.files.pop(f"/val2014/{first}")
    shutil.rmtree(folder.parent / "home" / "hf_diffusion_kit" / "coco")
    with pytest.raises(SourceError, match=first):
        load_captioned("coco", **options)
    data = load_captioned("coco", **options, on_bad_image="skip")
    assert len(data) == 3 and first not in data.dataset["file_name"][:]
    assert data.left_out["pictures that cannot be read"] == 1


def test_a_network_that_is_down_is_one_line(folder: Path, server: faulty.Faulty) -> None:
    server.__exit__()
    with pytest.raises(HubError) as caught:
        load_captioned("coco", annotations=folder / "annotations", images=server.url, count=3)
    assert caught.value.exit_code == 6 and "\n" not in caught.value.line() and "3 " in caught.value.line()


def test_the_official_address_stays_out_of_recipes(folder: Path) -> None:
    assert Coco(None, None, "val2017", Downloads()).words() == ["coco", "--split", "val2017"]
    mirror = Coco(folder / "annotations", None, None, Downloads("https://mirror.example/coco"))
    assert mirror.words() == ["coco", "--annotations", "annotations", "--images", "https://mirror.example/coco"]
