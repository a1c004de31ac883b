"""COCO's captions through `datasets`: the same rows by every way in, live, cached by content, and never stale."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import datasets.packaged_modules
import pytest
from datasets.distributed import split_dataset_by_node

from hf_diffusion_kit.data import builder, index, load_captioned
from hf_diffusion_kit.data.features import FEATURES
from hf_diffusion_kit.data.live import load_dataset
from hf_diffusion_kit.data.registered import NAME, register
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import ConfigError, SourceError
from pictured import coco

HALF = "captions_val2014.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco(tmp_path_factory.mktemp("coco"), 24)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def registered() -> Iterator[str]:
    before = dict(datasets.packaged_modules._PACKAGED_DATASETS_MODULES)
    yield register()
    datasets.packaged_modules._PACKAGED_DATASETS_MODULES.clear()
    datasets.packaged_modules._PACKAGED_DATASETS_MODULES.update(before)


def live(folder: Path, cache: str, **more: Any) -> datasets.Dataset:
    options = {"annotations": folder / "annotations", "images": folder, "cache_dir": cache, **more}
    return load_dataset("coco-captions", **options)


def rows(data: Any) -> list[dict[str, Any]]:
    """Everything but the picture, which is its path here and its content elsewhere."""
    return [
        {name: value for name, value in row.items() if name not in ("image", "sha256")} for row in data.remove_columns("image")
    ]


CHOICES: list[dict[str, Any]] = [
    {},
    {"category": ["dog", "frisbee"]},
    {"category": "person", "count": 5, "seed": 3},
    {"not_category": "dog", "caption": "longest"},
    {"caption": "random", "seed": 7},
    {"caption": "nth:6"},
    {"caption": "all", "max_words": 4},
    {"match": "sixth", "caption": "shortest"},
    {"license": "attribution license"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_live_rows_are_those_that_are_saved(folder: Path, cache: str, choice: dict[str, Any]) -> None:
    data = live(folder, cache, **choice)
    same = load_captioned("coco", annotations=folder / "annotations", images=folder, **choice)
    assert data.features == FEATURES and rows(data) == rows(same.dataset)
    assert data[0]["image"].size == (48, 32) and data[0]["sha256"] is None
    stream = live(folder, cache, streaming=True, **choice)
    assert rows(stream) == rows(data) and stream.features == FEATURES


def test_several_splits_are_one_train(folder: Path, tmp_path: Path, cache: str) -> None:
    for split, first in (("val2014", 1), ("train2014", 101)):
        coco(tmp_path, 9, split)
        if first > 1:  # pictures have numbers of their own
            for kind in ("captions", "instances"):
                path = tmp_path / "annotations" / f"{kind}_{split}.json"
                content = json.loads(path.read_text())
                for image in content.get("images", []):
                    image["id"] += first
                for note in content["annotations"]:
                    note["image_id"] += first
                path.write_text(json.dumps(content))
    notes = tmp_path / "annotations/instances_train2014.json"
    content = json.loads(notes.read_text())
    content["annotations"] = [note for note in content["annotations"] if note["category_id"] != 34]
    notes.write_text(json.dumps(content))  # a frisbee is in one split alone
    for choice in ({}, {"count": 7}, {"category": "dog"}, {"category": "frisbee", "count": 2}):
        same = load_captioned("coco", annotations=tmp_path / "annotations", images=tmp_path, **choice)
        assert rows(live(tmp_path, cache, **choice)) == rows(same.dataset)
    one = live(tmp_path, cache, split="val2014")
    assert len(one) == 9 and rows(one) == rows(
        load_dataset("coco-captions", "val2014", annotations=tmp_path / "annotations", images=tmp_path, cache_dir=cache)
    )
    assert rows(live(tmp_path, cache, split="train[:4]")) == rows(live(tmp_path, cache))[:4]
    assert len(live(tmp_path, cache, name="val2014", split="train[:50%]")) == 4
    shutil.rmtree(tmp_path / "train2014")
    assert len(live(tmp_path, cache)) == 9
    with pytest.raises(SourceError, match="did you mean 'val2014'"):
        live(tmp_path, cache, split="val2041")
    with pytest.raises(ConfigError, match=r"a stream cannot be cut .*take"):
        live(tmp_path, cache, split="train[:4]", streaming=True)
    with pytest.raises(ConfigError, match="cannot be cut out"):
        live(tmp_path, cache, split="train[4:oops]")


# The cache


OPENED: list[str] = []
"""Names of files that were opened while `watching` is on."""
WATCHING: list[bool] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING and event == "open":
        OPENED.append(str(arguments[0]))


def test_the_second_call_reads_no_json(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "AT_REST", 0)  # files of a moment ago are read again, for two changes may share a time stamp
    sys.addaudithook(watch)  # for good, but it hears nothing unless it watches
    for choice in ({}, {"category": "dog", "count": 3}):
        first = live(own, str(tmp_path), **choice)
        OPENED.clear()
        WATCHING.append(True)
        again = live(own, str(tmp_path), **choice)
        WATCHING.clear()
        assert not [name for name in OPENED if name.endswith((HALF, "instances_val2014.json"))] and OPENED
        assert again.cache_files == first.cache_files and again._fingerprint == first._fingerprint


def edit(path: Path, old: str, new: str) -> None:
    """In place, of the same length, under the same time stamp."""
    assert len(old) == len(new)
    stat = path.stat()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_changed_file_gives_fresh_rows_even_under_its_old_time_stamp(own: Path, tmp_path: Path) -> None:
    assert live(own, str(tmp_path))[0]["text"] == "caption 0 of 1."
    edit(own / "annotations" / HALF, "caption 0 of 1.", "caption 9 of 1.")
    assert live(own, str(tmp_path))[0]["text"] == "caption 9 of 1."
    assert len(live(own, str(tmp_path), category="frisbee")) == 8
    edit(
        own / "annotations" / "instances_val2014.json",
        '"image_id": 3, "id": 334, "category_id": 34',
        '"image_id": 3, "id": 334, "category_id": 18',
    )
    assert len(live(own, str(tmp_path), category="frisbee")) == 7
    os.utime(own / "annotations" / HALF)  # a new time stamp, the same content
    assert live(own, str(tmp_path)).cache_files == live(own, str(tmp_path)).cache_files


def test_a_changed_choice_and_changed_code_give_fresh_rows(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = live(own, str(tmp_path))
    assert live(own, str(tmp_path), caption="longest")[2]["text"] != first[2]["text"]
    assert live(own, str(tmp_path)).cache_files == first.cache_files
    (tmp_path / "more.py").write_text("x = 1")
    monkeypatch.setattr(builder, "CODE", (*builder.CODE, SimpleNamespace(__file__=str(tmp_path / "more.py"))))
    second = live(own, str(tmp_path))
    (tmp_path / "more.py").write_text("x = 2")
    third = live(own, str(tmp_path))
    assert len({data.cache_files[0]["filename"] for data in (first, second, third)}) == 3
    assert rows(first) == rows(third)


# Pictures


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress bars are shown, whatever the environment says."""
    monkeypatch.setattr(datasets, "is_progress_bar_enabled", lambda: True)


@pytest.mark.usefixtures("bars")
def test_missing_pictures_are_named_or_counted(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(live(own, str(tmp_path))) == 24
    gone = [own / "val2014" / f"COCO_val2014_{n:012d}.jpg" for n in (2, 5, 7)]
    for path in gone:
        path.unlink()
    with pytest.raises(
        SourceError, match=r"3 of 24 pictures are not there: COCO_val2014_000000000002.jpg, .*05.jpg, .*07.jpg\. Fix"
    ):
        live(own, str(tmp_path))
    with pytest.raises(SourceError, match="3 of 24"):
        live(own, str(tmp_path), streaming=True)
    capsys.readouterr()
    some = live(own, str(tmp_path), on_bad_image="skip")
    assert len(some) == 21 and "pictures that are not in the folder: 3 (COCO_val2014" in some.info.description
    live(own, str(tmp_path), on_bad_image="skip")  # from the cache, and said again
    assert capsys.readouterr().err.count("pictures that are not in the folder: 3") == 2
    full = live(own, str(tmp_path), on_bad_image="skip", count=21)
    assert len(full) == 21
    with pytest.raises(SourceError, match="22 pictures are asked for and 21 are there"):
        live(own, str(tmp_path), on_bad_image="skip", count=22)
    gone[0].with_name(gone[0].name.upper()).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"did you mean 'COCO_VAL2014_000000000002.JPG'"):
        live(own, str(tmp_path))
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match="of another split or year"):
        live(own, str(tmp_path), images=tmp_path / "other")
    with pytest.raises(SourceError, match="there is no such folder"):
        live(own, str(tmp_path), images=tmp_path / "nowhere")


@pytest.mark.usefixtures("bars")
def test_what_was_left_out_is_said_and_kept(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # the second time from the cache
        data = live(own, str(tmp_path), category=["dog", "frisbee"], count=2, seed=0)
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("coco-captions: 2 of 24 pictures of val2014; ") and "pictures beyond the count: 2" in line
        assert "pictures without dog: 12" in line and "pictures without frisbee: 8" in line
    assert data.info.description == line.removeprefix("coco-captions: ").replace("; ", "\n")
    monkeypatch.setattr(datasets, "is_progress_bar_enabled", lambda: False)
    capsys.readouterr()
    live(own, str(tmp_path), category=["dog", "frisbee"], count=2, seed=0)
    assert capsys.readouterr().err == ""


def test_without_a_folder_pictures_are_addresses(folder: Path, cache: str) -> None:
    data = live(folder, cache, images=None).cast_column("image", datasets.Image(decode=False))
    base = "https://s3.amazonaws.com/images.cocodataset.org/val2014/COCO_val2014_00000000000"
    assert data[0]["image"] == {"bytes": None, "path": f"{base}1.jpg"} and len(data) == 24
    assert data[0]["coco_url"] == "http://images.cocodataset.org/val2014/COCO_val2014_000000000001.jpg"


# Streaming, workers, nodes


def test_nodes_workers_and_processes_give_every_row_once(folder: Path, cache: str) -> None:
    from torch.utils.data import DataLoader

    whole = rows(live(folder, cache))
    stream = live(folder, cache, streaming=True).remove_columns("image")
    assert stream.num_shards == 8
    nodes = [[row["image_id"] for row in split_dataset_by_node(stream, rank=rank, world_size=4)] for rank in range(4)]
    assert all(len(node) == 6 for node in nodes) and Counter(chain(*nodes)) == Counter(row["image_id"] for row in whole)
    loaded = DataLoader(stream.select_columns("image_id"), batch_size=None, num_workers=2)
    assert Counter(row["image_id"] for row in loaded) == Counter(row["image_id"] for row in whole)
    part = iter(stream)
    seen = [next(part)["image_id"] for _ in range(7)]
    state = stream.state_dict()
    stream.load_state_dict(state)
    assert seen + [row["image_id"] for row in stream] == [row["image_id"] for row in whole]
    assert rows(live(folder, cache, num_proc=2, caption="longest")) == rows(
        live(folder, cache, streaming=True, caption="longest")
    )


def test_tables_stay_small() -> None:
    assert builder._cuts(0) == [] and [stop - start for start, stop in builder._cuts(3)] == [1, 1, 1]
    for count in (24, 82_783, 1_000_000):
        cuts = builder._cuts(count)
        sizes = [stop - start for start, stop in cuts]
        assert sum(sizes) == count and max(sizes) <= builder.SHARD_ROWS and len(cuts) % 8 == 0 and max(sizes) - min(sizes) <= 1


# Stock `load_dataset`


def test_stock_load_dataset_after_register(
    folder: Path, cache: str, registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registered == NAME == register() and "/" not in NAME
    monkeypatch.chdir(folder)
    same = rows(live(folder, cache, category=["dog", "frisbee"], count=3, seed=1))
    captions = f"annotations/{HALF}"
    options = {"images": "val2014", "category": ["dog", "frisbee"], "count": 3, "seed": 1, "cache_dir": cache}
    shutil.copy(folder / "annotations/instances_val2014.json", tmp_path / "instances_x.json")
    (tmp_path / "mine").mkdir()
    shutil.copy(folder / captions, tmp_path / "mine" / HALF)
    for files in (
        {"train": captions},
        captions,
        {"train": [captions, "annotations/instances_val2014.json"]},
        [captions],
        [str(tmp_path / "mine" / HALF), str(tmp_path / "instances_x.json")],
    ):
        told = datasets.load_dataset(NAME, data_files=files, **options)
        assert list(told) == ["train"] and rows(told["train"]) == same, files
    two = datasets.load_dataset(NAME, data_files={"train": captions, "test": captions}, images="val2014", cache_dir=cache)
    assert {name: len(part) for name, part in two.items()} == {"train": 24, "test": 24}
    stream = datasets.load_dataset(NAME, data_files=captions, split="train", streaming=True, **options)
    assert rows(stream) == same
    assert len(datasets.load_dataset(NAME, data_files=captions, images="val2014", split="train[:25%]", cache_dir=cache)) == 6
    assert rows(datasets.load_dataset(NAME, data_files=captions, split="train", num_proc=2, **{**options, "count": 4})) == rows(
        live(folder, cache, category=["dog", "frisbee"], count=4, seed=1)
    )


def test_stock_load_dataset_says_what_is_wrong(own: Path, registered: str, tmp_path: Path) -> None:
    files = str(own / "annotations" / HALF)
    options = {"data_files": files, "images": str(own), "cache_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"unknown argument 'categry'; did you mean 'category'"):
        datasets.load_dataset(NAME, categry="dog", **options)
    with pytest.raises(ConfigError, match="unknown category 'dgo'; did you mean 'dog'"):
        datasets.load_dataset(NAME, category="dgo", **options)
    with pytest.raises(SourceError, match="are no captions"):
        datasets.load_dataset(NAME, **{**options, "data_files": str(own / "annotations" / "instances_val2014.json")})
    with pytest.raises(ConfigError, match="needs data_files"):
        builder.CocoCaptions(cache_dir=str(tmp_path))
    Path(files).write_text(Path(files).read_text()[:-50])
    for load in (lambda: datasets.load_dataset(NAME, **options), lambda: live(own, str(tmp_path))):
        with pytest.raises(SourceError, match=rf"{HALF}: the JSON is cut short at byte"):
            load()


def test_the_private_place_is_where_it_was_or_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails loudly when `datasets` moves it: then `register` must learn the new place."""
    place = datasets.packaged_modules._PACKAGED_DATASETS_MODULES
    assert {"parquet", "imagefolder"} <= place.keys() and datasets.load._PACKAGED_DATASETS_MODULES is place
    monkeypatch.delattr(datasets.packaged_modules, "_PACKAGED_DATASETS_MODULES")
    with pytest.raises(ConfigError, match=r"in another place. Fix: use hf_diffusion_kit.load_dataset") as caught:
        register()
    assert caught.value.exit_code == 2


def test_a_stream_travels_to_a_process_that_registered_nothing(folder: Path, cache: str, tmp_path: Path) -> None:
    stream = live(folder, cache, streaming=True, category="dog")
    (tmp_path / "stream").write_bytes(pickle.dumps(stream))
    code = "import pickle, sys; print([row['image_id'] for row in pickle.loads(open(sys.argv[1], 'rb').read())])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "stream")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([row["image_id"] for row in stream])


# The friendly name


def test_any_other_name_goes_to_stock_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    options = {"data_files": str(tmp_path / "a.jsonl"), "split": "train", "cache_dir": str(tmp_path)}
    assert list(load_dataset("json", **options)) == list(datasets.load_dataset("json", **options)) == [{"x": 1}, {"x": 2}]
    for name in ("coco_captions", "Coco-Captions", "coco-caption"):
        with pytest.raises(ConfigError, match=r"did you mean 'coco-captions'\?"):
            load_dataset(name)
    with pytest.raises(ConfigError, match=r"call hf_diffusion_kit.register\(\) first"):
        load_dataset(NAME)
    with pytest.raises(OSError):
        load_dataset("nobody/nothing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"annotations": None}, "needs annotations"),
        ({"anotations": "x"}, "did you mean 'annotations'"),
        ({"categry": "x"}, "did you mean 'category'"),
        ({"category": "frisbe"}, "did you mean 'frisbee'"),
        ({"on_bad_image": "ignore"}, "'error' or 'skip'"),
        ({"pixel": "none"}, "did you mean 'pixels'"),
        ({"count": 0}, "must be above 0"),
        ({"count": 25}, "25 pictures are asked for and 24 are there"),
        ({"match": "nothing like it"}, "not one picture is left"),
        ({"subset": Subset(), "count": 2}, "is given beside count"),
        ({"name": "val2014", "split": "train2014"}, "are two splits"),
        ({"annotations": "nowhere"}, r"has no captions_\*.json"),
    ],
)
def test_arguments_that_cannot_be(folder: Path, cache: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, SourceError), match=words) as caught:
        live(folder, cache, **options)
    assert "\n" not in caught.value.line()


def test_names_with_marks_that_stand_for_patterns(folder: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(folder, tmp_path / "set [v1] ü *"))
    assert len(live(odd, str(tmp_path))) == 24
