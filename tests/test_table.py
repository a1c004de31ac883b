"""Any captioned table is a source: whatever its columns are called, on disk or as a stream, one's own or the Hub's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_diffusion_kit.data import as_captioned, load_captioned
from hf_diffusion_kit.data.captioned import Captioned
from hf_diffusion_kit.data.gather import Choice, gather
from hf_diffusion_kit.data.remote import _caches
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.data.table import Table
from hf_diffusion_kit.errors import ConfigError, HubError, SourceError
from hf_diffusion_kit.testing import LocalHub
from pictured import encoded, fill, metadata, picture

Rows = datasets.Dataset | datasets.IterableDataset
FORMS: dict[str, Callable[[datasets.Dataset], Rows]] = {
    "on disk": lambda data: data,
    "a stream": lambda data: data.to_iterable_dataset(num_shards=2),
    "a stream that knows no columns": lambda data: datasets.IterableDataset.from_generator(lambda: iter(data)),
}


def images(count: int, name: str = "image") -> datasets.Dataset:
    rows = [{"bytes": encoded(picture(n)), "path": f"{n}.jpg"} for n in range(count)]
    return datasets.Dataset.from_dict({name: rows}).cast_column(name, datasets.Image())


def table(name: str = "image", **columns: list[Any]) -> datasets.Dataset:
    """`image`: which picture each row has, where rows share one."""
    which = columns.pop("image", None)
    data = images(len(next(iter(columns.values()))), name)
    if which:
        data = data.select(which).flatten_indices()
    for column, values in columns.items():
        data = data.add_column(column, values)
    return data


def told(data: Captioned) -> list[list[str]]:
    return [list(data.example(n).captions) for n in range(len(data))]


FLAT = {"text": ["a", "b", "c", "d"]}
PAIRS = [["a", "b"], ["c", "d"]]
LAYOUTS: dict[str, dict[str, Any]] = {
    "image + captions": {"captions": PAIRS},
    "image + caption list": {"caption": PAIRS},
    "image + caption": {"caption": ["a", "b"]},
    "HuggingFaceM4/COCO": {
        "sentences": [{"raw": "a", "tokens": ["a"], "imgid": 0}, {"raw": "b", "tokens": ["b"], "imgid": 0}],
        "cocoid": [9, 9],
        "imgid": [0, 0],
        "image": [0, 0],
    },
    "sentences as a list": {"sentences": [[{"raw": "a"}, {"raw": "b"}], [{"raw": "c"}, {"raw": "d"}]], "imgid": [0, 1]},
    "sentences_raw": {"sentences_raw": PAIRS},
    "flat by image_id": {**FLAT, "image_id": [1, 1, 2, 2], "image": [0, 0, 1, 1]},
    "flat by imgid": {**FLAT, "imgid": [0, 0, 1, 1], "image": [0, 0, 1, 1]},
    "flat by filename": {**FLAT, "filename": ["x.jpg", "x.jpg", "y.jpg", "y.jpg"], "image": [0, 0, 1, 1]},
    "all of the captions joined in text": {"text": ["a b", "c d"], "captions": PAIRS, "image_id": ["1", "2"]},
    "one of the captions in text": {"text": ["b", "c"], "captions": PAIRS, "image_id": ["1", "2"], "split": ["a", "b"]},
    "webdataset, txt": {"name": "jpg", "txt": ["a\nb\n", "c"], "__key__": ["0", "1"]},
    "webdataset, json": {"name": "jpg", "json": [{"captions": ["a", "b"], "cocoid": 3}, {"captions": ["c"], "cocoid": 4}]},
    "webdataset, two shards with one key": {"name": "png", "txt": ["a", "b"], "__key__": ["0", "0"]},
    "upper case": {"name": "IMAGE", "TEXT": ["a", "b"]},
}
EXPECTED = {
    "image + caption": [["a"], ["b"]],
    "HuggingFaceM4/COCO": [["a", "b"]],
    "webdataset, txt": [["a", "b"], ["c"]],
    "webdataset, json": [["a", "b"], ["c"]],
    "webdataset, two shards with one key": [["a"], ["b"]],
    "upper case": [["a"], ["b"]],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_columns_of_known_mirrors(layout: str, form: str) -> None:
    data = gather(Table(FORMS[form](table(**LAYOUTS[layout]))), Choice(Subset()))
    assert told(data) == EXPECTED.get(layout, PAIRS)


def test_a_chosen_column_may_lie_below_another() -> None:
    data = table(text=["x", "y"], json=[{"captions": ["a", "b"]}, {"captions": ["c"]}], image_id=[1, 2])
    assert told(gather(Table(data, caption_column="json.captions"), Choice(Subset()))) == [["a", "b"], ["c"]]
    for wrong, told_so in (("jsn", "did you mean 'json'"), ("json.caption", "did you mean 'captions'")):
        with pytest.raises(SourceError, match=told_so):
            gather(Table(data, caption_column=wrong), Choice(Subset()))
    two = data.add_column("other", [{"bytes": encoded(picture(9)), "path": None}] * 2).cast_column("other", datasets.Image())
    assert "'image' is the picture; other not used" in gather(Table(two, caption_column="text"), Choice(Subset())).notes
    other = gather(Table(two, caption_column="text", image_column="other"), Choice(Subset()))
    assert other.example(0).sha256 == other.example(1).sha256 and not any("not used" in note for note in other.notes)
    with pytest.raises(SourceError, match="did you mean 'image'"):
        Table(two, image_column="imag")


@pytest.mark.parametrize("form", FORMS)
def test_a_draw_depends_on_ids_not_on_the_order_of_rows(form: str) -> None:
    data = table(text=[f"text {n}" for n in range(30)], image_id=[f"id{n}" for n in range(30)])
    drawn = [gather(Table(FORMS[form](rows)), Choice(Subset(count=7, seed=3))) for rows in (data, data.shuffle(seed=1))]
    assert drawn[0].fingerprint == drawn[1].fingerprint and len(drawn[0]) == 7
    assert drawn[0].left_out == {"pictures beyond the count": 23}
    for n in range(7):  # each caption is with its own picture
        example = drawn[0].example(n)
        assert example.image.tobytes() == data[int(example.image_id[2:])]["image"].tobytes()
        assert example.captions == (f"text {example.image_id[2:]}",)


def test_a_name_is_an_id_only_while_the_picture_is_the_same() -> None:
    rows = {"text": [f"{n}" for n in range(6)], "image": [0, 1, 0, 1, 4, 5]}
    for column in ("filename", "key"):
        data = table(**rows, **{column: ["a"] * 4 + ["b", "c"]})
        there = gather(Table(data), Choice(Subset()))
        assert told(there) == [["0", "2"], ["1", "3"], ["4"], ["5"]] and len(set(there.dataset["sha256"])) == 4
        assert f"6 rows are 4 pictures, told by their column {column!r}" in there.notes
        assert any(f"1 pictures have a {column!r} that another picture has" in note for note in there.notes)
        stream = gather(Table(data.to_iterable_dataset()), Choice(Subset()))
        assert told(stream) == [["0", "1", "2", "3"], ["4"], ["5"]]  # a stream cannot be asked, but it says so
        assert f"6 rows are 3 pictures, told by their column {column!r}" in stream.notes
    assert not any("told by" in note for note in gather(Table(table(text=["a", "b"], key=["1", "2"])), Choice(Subset())).notes)


@pytest.mark.parametrize("ids", [["000001", "x:1"], ["000001", None], [None, "000000"], ["000001", "", "row-000001"]])
def test_a_made_up_id_is_never_a_real_one(ids: list[str | None]) -> None:
    data = table(text=[f"{n}" for n in range(len(ids))], image_id=ids)
    there = gather(Table(data), Choice(Subset()))
    assert len(set(there.dataset["image_id"])) == len(ids) == len(there)
    for n in range(len(ids)):
        example = there.example(n)
        assert example.image.tobytes() == data[int(example.captions[0])]["image"].tobytes()
    assert {name for name in ids if name and name != "x:1"} <= set(there.dataset["image_id"])


def test_a_stream_is_read_for_texts_first_and_no_picture_waits_in_memory(tmp_path: Path) -> None:
    """Pictures of a megabyte each: what is held at once stays below two of them."""
    import tracemalloc

    from hf_diffusion_kit.data.passing import contents_at

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(40):
            yield {"image": {"bytes": n.to_bytes(1) * 1_000_000, "path": None}, "text": f"{n}"}

    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    stream = datasets.IterableDataset.from_generator(rows, features=features)
    tracemalloc.start()
    order = list(range(39, -1, -1))
    for place, content in zip(order, contents_at(stream, order, lambda _, row: row["image"]["bytes"], "here"), strict=True):
        assert content[0] == place
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000, f"{peak} bytes"


def test_a_stream_that_changes_is_not_believed() -> None:
    times = iter(range(100))

    def rows() -> Iterator[dict[str, Any]]:
        turn = next(times)
        for n in range(3):
            yield {"image": picture(n), "text": f"{(n + turn) % 3}"}

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    with pytest.raises(SourceError, match="another row when the stream is read again"):
        gather(Table(datasets.IterableDataset.from_generator(rows, features=features)), Choice(Subset()))


def test_a_stream_that_breaks_is_one_line() -> None:
    def rows(error: Exception) -> Iterator[dict[str, Any]]:
        yield {"image": picture(0), "text": "x"}
        raise error

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for error, kind, words in (
        (ConnectionError("reset"), HubError, "broke off: ConnectionError: reset"),
        (ValueError("two\nlines hf_abcdefghijkl"), SourceError, "cannot be read: ValueError: two lines hf_…"),
    ):
        stream = datasets.IterableDataset.from_generator(rows, features=features, gen_kwargs={"error": error})
        with pytest.raises(kind, match=words):
            gather(Table(stream), Choice(Subset()))


def test_what_only_reading_can_tell_is_counted() -> None:
    data = table(text=["a", " ", "c"], image_id=["1", "2", "3"])
    taken = gather(Table(data.to_iterable_dataset()), Choice(Subset()))
    assert len(taken) == 2 and taken.left_out == {"blank captions": 1, "pictures without a caption": 1}
    sized = table(text=["a", "b"], width=[48, 10], height=[32, 10])
    assert gather(Table(sized), Choice(Subset(min_side=20))).left_out == {"pictures with a side under 20 pixels": 1}
    numbered = table(text=["a"], license=[4], coco_url=["http://images.cocodataset.org/val2017/1.jpg"])
    assert gather(Table(numbered), Choice(Subset(license="commercial"))).licenses == {"Attribution License": 1}


@pytest.mark.parametrize(
    ("column", "value", "within", "words"),
    [
        ("url", "https://example.com/a.jpg", None, "has only an address"),
        ("coco_url", "http://images.cocodataset.org/val2017/1.jpg", None, "has only an address"),
        ("image", "zip://a.jpg::https://example.com/a.zip", None, "has only an address"),
        ("image", None, None, "has no picture"),
        ("image", [b"a", b"b"], None, "2 pictures in one row"),
        ("image", 7, None, "is a int, not a picture"),
        ("image", "/etc/hostname", (Path("/nowhere"),), "a file of this machine"),
        ("image", "/nowhere/a.jpg", None, "cannot be read"),
    ],
)
def test_pictures_that_are_none(column: str, value: Any, within: Any, words: str) -> None:
    data = datasets.Dataset.from_dict({column: [value], "text": ["x"]})
    with pytest.raises(SourceError, match=words):
        gather(Table(data, within=within), Choice(Subset()))


def test_pictures_by_path_and_as_bytes(tmp_path: Path) -> None:
    names = [str(fill(tmp_path, ["a.jpg", "b.jpg"]) / name) for name in ("a.jpg", "b.jpg")]
    paths = datasets.Dataset.from_dict({"image": names, "text": ["x", "y"]})
    content = datasets.Dataset.from_dict({"img": [Path(name).read_bytes() for name in names], "text": ["x", "y"]})
    assert (
        gather(Table(paths, within=(tmp_path,)), Choice(Subset())).fingerprint
        == gather(Table(content), Choice(Subset())).fingerprint
    )


# The Hub

CLIENT = """
import json, sys
from hf_diffusion_kit import load_captioned
from hf_diffusion_kit.errors import KitError

told = []
for name, options, choosing in json.loads(sys.argv[1]):
    try:
        data = load_captioned(name, **options, **choosing)
        told.append([data.fingerprint, len(data), data.recipe, list(data.notes)])
    except KitError as error:
        told.append(error.line())
print(json.dumps(told))
"""
CONFIGS = """---
configs:
- config_name: cats
  data_files: [{split: train, path: cats.parquet}]
- config_name: dogs
  data_files: [{split: train, path: dogs.parquet}, {split: test, path: cats.parquet}]
---
"""


def ask(hub: LocalHub, home: Path, asked: list[Any], **more: str) -> list[Any]:
    """In a process of its own, which has to end by itself: half-read streams of Parquet have hung at the end of one."""
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(home), **more}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def upload(hub: LocalHub, folder: Path, name: str, private: bool = False) -> None:
    hub.door.api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
    hub.door.api.upload_folder(repo_id=name, folder_path=folder, repo_type="dataset")


@pytest.mark.slow
def test_a_dataset_of_the_hub_by_id_on_disk_and_as_a_stream(hub: LocalHub, tmp_path: Path) -> None:
    data = table(captions=[[f"{n} a", f"{n} b"] for n in range(24)], image_id=list(range(24)))
    for shard in range(2):
        part = data.select(range(shard * 12, shard * 12 + 12))
        part.to_parquet(tmp_path / "flat" / "data" / f"train-0000{shard}-of-00002.parquet", batch_size=4)
    upload(hub, tmp_path / "flat", "you/flat")
    metadata(fill(tmp_path / "own", ["a.jpg", "b.jpg"]), [("a.jpg", "x"), ("b.jpg", "y")])
    upload(hub, tmp_path / "own", "you/own")
    for name in ("cats", "dogs"):
        data.select(range(3)).to_parquet(tmp_path / "two" / f"{name}.parquet")
    (tmp_path / "two" / "README.md").write_text(CONFIGS)
    upload(hub, tmp_path / "two", "you/two")
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("print(1)")
    upload(hub, tmp_path / "script", "you/script")
    hub.requests.clear()
    some = {"count": 5, "seed": 1}
    answers = ask(
        hub,
        tmp_path / "home",
        [
            ["you/flat", {"streaming": True}, some],
            ["you/flat", {}, some],
            ["you/flat", {"streaming": True}, {}],
            ["you/own", {"streaming": True}, {}],
            ["you/own", {}, {}],
            ["you/two", {"config": "cats"}, {}],
            ["you/two", {"config": "dogs", "split": "test", "streaming": True}, {}],
            ["you/two", {}, {}],
            ["you/two", {"config": "dgs"}, {}],
            ["you/two", {"config": "dogs", "split": "tset"}, {}],
            ["you/script", {}, {}],
            ["you/nothing", {}, {}],
            ["you/flat", {"revision": "v9"}, {}],
        ],
    )
    stream, disk, whole, own_stream, own_disk, cats, test, *refused = answers
    local = gather(Table(data), Choice(Subset(**some)))
    assert stream[:2] == disk[:2] == [local.fingerprint, 5] and whole[1] == 24
    pinned = f"--revision {hub.door.api.dataset_info('you/flat').sha} --streaming --caption-column captions"
    assert stream[2] == f"hfdk subset hub you/flat {pinned} --count 5 --seed 1 --out subset"
    assert own_stream[:2] == own_disk[:2] and own_disk[1] == 2
    assert cats[:2] == test[:2] and cats[1] == 3
    for line, words in zip(
        refused,
        [
            "configurations ['cats', 'dogs']",
            "configurations ['cats', 'dogs']",
            "did you mean 'test'",
            "is a loading script",
            "is private",
            "v9",
        ],
        strict=True,
    ):
        assert line.startswith("error[E-PUSH-05] you/") and words in line and len(line) < 400, line


RECORD = """
import json, shlex, sys
from dataclasses import asdict
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
if sys.argv[1:]:
    sys.exit(main([*shlex.split(sys.argv[1])[1:-1], "again", "--json"]))
print(json.dumps(asdict(load_captioned("hf://datasets/you/cats", revision="main", config="cats").record)))
"""


@pytest.mark.slow
def test_what_was_read_of_the_hub_is_told_by_its_commit_and_read_again_from_there(hub: LocalHub, tmp_path: Path) -> None:
    rows = table(text=["a", "b"], image_id=[1, 2])
    rows.to_parquet(tmp_path / "set" / "cats.parquet")
    card = CONFIGS.replace("---\nconfigs", "---\nlicense: cc-by-4.0\nconfigs")
    (tmp_path / "set" / "README.md").write_text(card.replace("dogs", "cats", 1).replace("dogs.parquet", "cats.parquet"))
    upload(hub, tmp_path / "set", "you/cats")
    commit = hub.door.api.dataset_info("you/cats").sha
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path / "home")}

    def client(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RECORD, *words]
        return subprocess.run(command, env={**environment, **more}, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    done = client()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    known = {name: value for name, value in told["hub"].items() if value not in (None, False)}
    assert known == {"id": "you/cats", "revision": commit, "license": "cc-by-4.0", "sha256": {}}
    assert told["files"] == {f"you/cats@{commit}": commit} and f"you/cats: 'main' is the commit {commit}" in told["notes"]
    assert told["recipe"] == f"hfdk subset hub you/cats --config cats --revision {commit} --caption-column text --out subset"
    table(text=["other", "texts", "now"], image_id=[1, 2, 3]).to_parquet(tmp_path / "set" / "cats.parquet")
    upload(hub, tmp_path / "set", "you/cats")
    metadata(fill(tmp_path / "you/cats", ["z.jpg"]), [("z.jpg", "of a folder that happens to be called so")])
    again = client(told["recipe"], HF_HOME=str(tmp_path / "elsewhere"))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["fingerprint"] == told["fingerprint"] != json.loads(client().stdout)["fingerprint"]
    card = (tmp_path / "again/README.md").read_text()
    assert f"from the dataset `you/cats` at commit `{commit[:12]}`" in card and f"| `you/cats@{commit}` | `{commit}` |" in card
    assert "The card of `you/cats`, from which the pictures are, states for that dataset the licence `cc-by-4.0`" in card
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # the cache has the newer commit alone
    assert f"the cache has not the commit {commit[:12]}" in client(told["recipe"], **offline).stderr


def test_the_column_that_captions_come_from_is_told() -> None:
    for columns, note, word in (
        ({"caption": ["a"]}, "captions are read from the column 'caption'", "--caption-column caption"),
        ({"text": ["a"], "caption": ["a"]}, "captions are read from the columns 'caption' and 'text', which agree", ""),
        ({"json": [{"captions": ["a"]}]}, "captions are read from the column 'json.captions'", "--caption-column json.captions"),
        ({"captions": [["a", "b"]], "text": ["b"]}, "captions are read from the column 'captions'", "--caption-column captions"),
    ):
        data = gather(Table(table(**columns), "pictures"), Choice(Subset()))
        assert note in data.notes and data.recipe == " ".join(f"hfdk subset folder pictures {word} --out subset".split())
    ours = gather(Table(data.dataset, "pictures"), Choice(Subset()))
    assert ours.notes == () and ours.recipe == "hfdk subset folder pictures --out subset"


def test_what_becomes_of_pictures_in_memory_is_counted() -> None:
    modes = ["RGB", "CMYK", "HSV", "P", "L", "YCbCr", "CMYK"]
    deep = Image.fromarray(np.full((32, 48), 40_000, np.int32))

    def rows() -> Iterator[dict[str, Any]]:
        for n, image in enumerate([*(picture(n).convert(mode) for n, mode in enumerate(modes)), deep]):
            yield {"image": image, "text": f"{n}"}

    data = gather(Table(FORMS["a stream that knows no columns"](list(rows()))), Choice(Subset()))  # type: ignore[arg-type]
    told = {note.rpartition(": ")[0]: note.rpartition(": ")[2] for note in data.notes}
    assert {name: told.get(name) for name in ("pictures converted from CMYK", "pictures converted from HSV")} == {
        "pictures converted from CMYK": "2",
        "pictures converted from HSV": "1",
    }
    assert told["pictures converted from YCbCr"] == told["pictures converted from a palette"] == told["grey pictures"] == "1"
    assert told["pictures of 16 bits, which are scaled to 8"] == "1" and np.asarray(data.example(7).image).max() == 156


def test_several_splits_in_memory(tmp_path: Path) -> None:
    one, two = table(text=["a"]), table(text=["b", "c"])
    only = load_captioned(datasets.DatasetDict(test=two))
    assert len(only) == 2 and "the split is test, the only one" in only.notes
    both = datasets.DatasetDict(train=one, test=two)
    with pytest.raises(SourceError, match=r"holds 2 sets: train, test\. Fix: say which: split='train'"):
        load_captioned(both)
    with pytest.raises(SourceError, match="has no split 'tset'; did you mean 'test'"):
        load_captioned(both, split="tset")
    chosen = load_captioned(both, split="test")
    assert chosen.fingerprint == only.fingerprint and "the split is test; not read: train" in chosen.notes
    assert "the split is train; not read: test" in as_captioned(both).notes
    stream = datasets.IterableDatasetDict({"test": two.to_iterable_dataset()})
    assert load_captioned(stream).fingerprint == only.fingerprint
    with pytest.raises(SourceError, match=r"holds 2 sets: a, b\. Fix: say which"):
        as_captioned(datasets.DatasetDict(a=one, b=two))
    with pytest.raises(ConfigError, match="split: is for folders"):
        load_captioned(one, split="train")
    with pytest.raises(SourceError, match=r"is a list, not a datasets\.Dataset"):
        load_captioned([1, 2])  # type: ignore[arg-type]


def test_private_gone_and_offline_are_one_line(hub: LocalHub, tmp_path: Path) -> None:
    table(text=["x"]).to_parquet(tmp_path / "data" / "train.parquet")
    upload(hub, tmp_path / "data", "you/secret", private=True)
    once = [["you/secret", {}, {}]]
    assert ask(hub, tmp_path / "a", once)[0][1] == 1
    assert "is not on the Hub, or is private. Fix: log in" in ask(hub, tmp_path / "b", once, HF_TOKEN="")[0]
    offline = ask(hub, tmp_path / "c", once, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    assert "cannot be reached" in offline[0] and offline[0].count("\n") == 0


def test_what_is_for_the_hub_is_not_for_folders(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["a.jpg"]), [("a.jpg", "x")])
    for options, words in (
        ({"streaming": True}, "streaming: is for datasets of the Hub"),
        ({"config": "x"}, "config: is for"),
        ({"image_column": "image"}, "is not for a folder of pictures"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_captioned(tmp_path, **options)


def test_an_id_is_believed_only_while_the_picture_is_the_same() -> None:
    for column in ("image_id", "cocoid", "imgid"):
        data = table(text=["a red one", "a blue one", "red again"], image=[0, 1, 0], **{column: ["1", "1", "1"]})
        there = gather(Table(data), Choice(Subset()))
        assert told(there) == [["a red one", "red again"], ["a blue one"]] and len(set(there.dataset["sha256"])) == 2
        assert any(f"1 pictures have a {column!r} that another picture has" in note for note in there.notes)


def test_a_cache_in_the_home_of_nobody_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "~nobody-of-this-name/hub")
    with pytest.raises(SourceError, match="~nobody-of-this-name/hub: nobody has that home folder"):
        _caches()
