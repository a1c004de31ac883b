"""What is saved is whole, self-contained, and opens anywhere; the command writes it, shows it, and does the same again."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_diffusion_kit.cards import front_matter
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import SOURCES, Captioned, as_captioned, load_captioned, saved, shards
from hf_diffusion_kit.data.check import check
from hf_diffusion_kit.data.features import FEATURES
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import ConfigError, SourceError, StorageError
from hf_diffusion_kit.records import file_sha256
from pictured import coco, encoded, fill, metadata, picture


def people(folder: Path, **options: Any) -> Captioned:
    coco(folder / "my set", 12)
    return load_captioned("coco", annotations=folder / "my set/annotations", images=folder / "my set/val2014", **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stock(folder: Path, cwd: Path, *words: str) -> Any:
    """What a process that never imported this package makes of a folder."""
    script = Path(__file__).with_name("stock_open.py")
    done = subprocess.run([sys.executable, str(script), str(folder), *words], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_stock_datasets_opens_it_in_a_process_that_never_imported_us(tmp_path: Path) -> None:
    data = people(tmp_path, category="dog", count=4)
    folder = data.save(tmp_path / "out/dogs, 1 é")
    picture(0).save(folder / "sheet.png")  # as the command does: files beside the Parquet confuse nobody
    told = stock(folder, tmp_path)
    assert told["ours"] == [] and told["names"] == ["train"] and told["examples"] == 4 and told["features"] == str(FEATURES)
    expected = [{**row, "image": ["RGB", 48, 32]} for row in data.dataset]
    assert told["rows"] == expected and list(expected[0]) == list(FEATURES)
    ids = [row["image_id"] for row in expected]
    assert told["stream"] == expected[:2] and told["part"] == ids[1:3]
    assert told["columns"] == {"image_id": ids, "captions": [row["captions"] for row in expected]}
    assert told["filtered"] == expected[:1] and told["filtered_stream"] == ids[:1]


STALE = """
import sys
from datasets import load_dataset
print([load_dataset(folder, split="train")["text"][:] for folder in sys.argv[1:]])
"""


def test_stock_datasets_does_not_answer_with_the_rows_of_another_subset_of_that_name_and_size(tmp_path: Path) -> None:
    fill(tmp_path / "mine", ["a.jpg"])
    data = {word: load_captioned(tmp_path / "mine", prompt=word) for word in ("a cat", "a dog")}
    folders = [str(data[word].save(tmp_path / word / "out")) for word in data]
    one, two = (front_matter.read((Path(folder) / "README.md").read_text()) for folder in folders)
    assert one["dataset_info"] == two["dataset_info"] and one["configs"] != two["configs"]
    done = subprocess.run([sys.executable, "-c", STALE, *folders], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[['a cat'], ['a dog']]\n", done.stderr[-2000:]


def test_it_comes_back_equal(tmp_path: Path) -> None:
    data = people(tmp_path, category=["person", "dog"], count=3, seed=4)
    folder = data.save(tmp_path / "dogs")
    again = load_captioned(folder)
    assert again == data and again.dataset["captions"][:] == data.dataset["captions"][:]
    assert again.example(0).image.tobytes() == data.example(0).image.tobytes()
    assert as_captioned(str(folder)).fingerprint == as_captioned(data.dataset).fingerprint == data.fingerprint
    assert (
        data.recipe
        == "hfdk subset coco --annotations annotations --images val2014 --category dog person --count 3 --seed 4 --out subset"
    )
    example = data.example(2)
    assert example.sha256 == hashlib.sha256(data.dataset.data["image"][2].as_py()["bytes"]).hexdigest()
    with pytest.raises(IndexError):
        data.example(3)


def test_no_path_of_this_machine_and_nothing_private_is_written(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Jane Author"
    exif.get_ifd(0x8825)[29] = "1984:12:24"
    home = tmp_path / "home-of-jane"
    home.mkdir()
    (home / "a.jpg").write_bytes(encoded(picture(1), exif=exif))
    (home / "b.jpg").touch()
    folder = load_captioned(home, prompt="a dog", on_bad_image="skip").save(tmp_path / "out")
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"b.jpg" in content and b"home-of-jane" in content  # the folder's own name is in the recipe
    for word in (str(tmp_path).encode(), b"Jane Author", b"1984:12:24"):
        assert word not in content


def rewritten(folder: Path, column: str, change: Any) -> None:
    """A shard with one column changed, and a manifest that agrees with it."""
    file = folder / "data/train-00000-of-00001.parquet"
    table = pq.read_table(file)
    number = table.column_names.index(column)
    pq.write_table(table.set_column(number, table.schema.field(number), [change(table.column(column).to_pylist())]), file)
    listed = json.loads((folder / "manifest.json").read_text())
    listed["shards"][0] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    (folder / "manifest.json").write_text(json.dumps(listed))


def shouted(captions: list[list[str]]) -> list[list[str]]:
    return [[text.upper() for text in texts] for texts in captions]


def other_picture(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [images[0], {**images[1], "bytes": encoded(picture(77))}, *images[2:]]


CHANGES = {
    "captions": (lambda folder: rewritten(folder, "captions", shouted), "rows have been changed"),
    "picture": (
        lambda folder: rewritten(folder, "image", other_picture),
        r"00000-of-00001.parquet: COCO_val2014_\d+.jpg has been changed",
    ),
    "cut": (lambda folder: cut(shard(folder)), r"00000-of-00001.parquet: has \d+ bytes; \d+ were written"),
    "bit": (lambda folder: flip(shard(folder)), "00000-of-00001.parquet: has been changed since it was saved"),
    "gone": (lambda folder: shard(folder).unlink(), "00000-of-00001.parquet: is missing"),
    "more": (lambda folder: shutil.copy(shard(folder), folder / "data/more.parquet"), "more.parquet: is in the folder and not"),
    "facts": (lambda folder: tell(folder, captions="many"), "facts.json: is not as it was written"),
    "old": (lambda folder: tell(folder, schema=None), "made by an older version.*make the subset again"),
    "new": (lambda folder: tell(folder, schema=99), "made by a newer version"),
    "field": (lambda folder: tell(folder, colour="red"), "an unknown field 'colour'"),
    "less": (lambda folder: tell(folder, recipe=None), "no field 'recipe'"),
    "foreign": (lambda folder: (folder / "facts.json").write_text("[]"), "not a subset that this package wrote"),
    "manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: cannot be read"),
}


def shard(folder: Path) -> Path:
    return folder / "data/train-00000-of-00001.parquet"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def tell(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    told = {name: value for name, value in {**facts, **changes}.items() if value is not None}
    (folder / "facts.json").write_text(json.dumps(told))


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_noticed_and_named(name: str, tmp_path: Path) -> None:
    folder = people(tmp_path, count=3).save(tmp_path / "out")
    change, words = CHANGES[name]
    change(folder)
    with pytest.raises(SourceError, match=words) as caught:
        load_captioned(folder)
    assert caught.value.case == 11 and caught.value.fix


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = people(tmp_path, count=3), people(tmp_path, count=2)
    folder = data.save(tmp_path / "out")
    (folder / "sheet.png").touch()
    assert data.save(folder) == folder and (folder / "sheet.png").exists()  # the same again: left alone
    with pytest.raises(StorageError, match=r"another subset.*--overwrite"):
        other.save(folder)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saved, "texts", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            other.save(folder, overwrite=True)
        with pytest.raises(StorageError):
            other.save(tmp_path / "new")
    assert caught.value.exit_code == 5 and load_captioned(folder) == data and not (tmp_path / "new").exists()
    assert load_captioned(other.save(folder, overwrite=True)) == other
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.tex").touch()
    with pytest.raises(StorageError, match="not an empty folder"):
        data.save(tmp_path / "foreign", overwrite=True)
    with pytest.raises(StorageError, match="for a pattern"):
        data.save(tmp_path / "dogs [1]")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".tmp", ".old"))]


def test_a_link_stays_one_and_is_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = people(tmp_path, count=2)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert load_captioned(data.save(tmp_path / "link")) == data
    assert (tmp_path / "link").is_symlink() and load_captioned(tmp_path / "disk") == data
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # replaced, it would be gone under whoever stands in it
    with pytest.raises(StorageError, match=r"^\.: is the folder that you are in"):
        data.save(".")
    assert load_captioned(data.save("inside")) == data and names(tmp_path) == ["disk", "here", "link", "my set"]


def test_the_old_subset_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = people(tmp_path, count=3), people(tmp_path, count=2)
    folder, replace = data.save(tmp_path / "out"), Path.replace

    def refused(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp"):
            raise OSError(13, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        with pytest.raises(StorageError, match="Permission denied"):
            other.save(folder, overwrite=True)
    assert load_captioned(folder) == data and names(tmp_path) == ["my set", "out"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"count": 1.0}, "count: must be a whole number, got 1.0"),
        ({"count": "2"}, "count: must be a whole number, got '2'"),
        ({"count": True}, "count: must be a whole number"),
        ({"seed": None}, "seed: must be a whole number"),
        ({"min_aspect": "1"}, "min_aspect: must be a number"),
        ({"crowd": "no"}, "crowd: must be True or False"),
        ({"match": 7}, "match: must be text"),
        ({"caption": 1}, "caption: must be text"),
        ({"category": 3.5}, "category: must be a name or several, got 3.5"),
        ({"any_category": True}, "any_category: must be a name or several, got True"),
        ({"not_category": b"dog"}, "not_category: must be a name or several, got b'dog'"),
        ({"supercategory": {"animal": 1}}, "supercategory: must be a name or several"),
        ({"license": [None]}, "license: must be a name or several, got None"),
        ({"category": ["dog", ["cat"]]}, "category: must be a name or several, got ..cat"),
        ({"category": ["dog", " "]}, "category: a name is empty"),
        ({"count": 2**63}, "count: is too large; at most 9223372036854775807"),
        ({"min_aspect": 10**400}, "min_aspect: is too large"),
        ({"min_aspect": float("inf")}, "min_aspect: must be finite, got inf"),
        ({"min_area": float("nan")}, "min_area: must lie between 0 and 1, got nan"),
        ({"match": "(" * 5000}, "match: .* is no regular expression"),
        ({"match": "a{99999999999999999999}"}, "match: .* is no regular expression"),
    ],
)
def test_a_condition_of_another_type_is_named(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Subset(**told)


def test_the_same_numbers_and_names_are_one_choice_however_they_are_written() -> None:
    assert Subset(min_aspect=1).digest == Subset(min_aspect=1.0).digest and Subset(min_aspect=1).words() == [
        "--min-aspect",
        "1.0",
    ]
    told: Any = np.array(["dog", "cat"])
    assert Subset(category=told).category == Subset(category=(name for name in ("cat", "Dog"))).category == ("cat", "dog")  # type: ignore[arg-type]
    assert Subset(license=np.int64(4)).license == Subset(license=[4]).license == ("4",)  # type: ignore[arg-type]
    assert Subset(match="[[a]").match == "[[a]"  # of which Python warns


def test_numbers_of_numpy_are_numbers() -> None:
    assert Subset(count=np.int64(3), min_aspect=np.float32(0.5)).digest == Subset(count=3, min_aspect=0.5).digest  # type: ignore[arg-type]


def test_large_sets_have_several_files_of_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:03d}.jpg" for n in range(230)]
    data = load_captioned(fill(tmp_path / "many", names), prompt="x")
    monkeypatch.setattr(shards, "SHARD_BYTES", data.dataset.data.nbytes // 9)
    folder = data.save(tmp_path / "out")
    files = sorted((folder / "data").iterdir())
    assert len(files) == 16 and files[0].name == "train-00000-of-00016.parquet"  # more than eight: a multiple of eight
    monkeypatch.setattr(shards, "SHARD_BYTES", 10**9)
    groups = pq.ParquetFile(data.save(tmp_path / "one") / "data/train-00000-of-00001.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [100, 100, 30]
    assert load_captioned(folder).fingerprint == load_captioned(tmp_path / "one").fingerprint == data.fingerprint


def test_choosing_from_a_saved_subset(tmp_path: Path) -> None:
    folder = people(tmp_path).save(tmp_path / "out")
    some = load_captioned(folder, count=5, seed=1)
    assert len(some) == 5 and set(some.licenses) == {"Attribution License", "Attribution-ShareAlike License"}
    assert some.left_out == {"pictures beyond the count": 7} and some.dataset["categories"][0][0] == "person"
    with pytest.raises(SourceError, match="captions that would not be used"):
        load_captioned(folder, prompt="a dog")
    assert load_captioned(folder, prompt="a dog", ignore_captions=True).example(0).captions == ("a dog",)


def test_a_subset_of_a_subset_tells_where_the_first_one_is_from(tmp_path: Path) -> None:
    first = people(tmp_path, category="dog", count=5)
    folder = first.save(tmp_path / "dogs")
    second = load_captioned(folder, count=3, seed=1)
    assert second.record.before == first.record and len(second.record.before.files) == 2
    assert second.record.files == {"dogs/facts.json": file_sha256(folder / "facts.json")}
    saved_second = second.save(tmp_path / "subset")
    assert load_captioned(saved_second) == second
    third = load_captioned(saved_second, min_side=20, prompt="a dog", ignore_captions=True)
    assert third.record.chain == (first.record, second.record, third.record)
    text = (third.save(tmp_path / "third") / "README.md").read_text()
    told = "3 pictures with 3 captions from a saved subset of 3 pictures from a saved subset of 5 pictures"
    assert f"{told} from [COCO](https://cocodataset.org) (`val2014`)" in text
    recipes = text.partition("```\nhfdk")[2].partition("```")[0].splitlines()
    assert recipes == [
        " subset coco --annotations annotations --images val2014 --category dog --count 5 --seed 0 --out dogs",
        "hfdk subset folder dogs --count 3 --seed 1 --out subset",
        "hfdk subset folder subset --prompt 'a dog' --ignore-captions --min-side 20 --out chosen",
    ]
    for name, sha256 in {**first.record.files, **second.record.files, **third.record.files}.items():
        assert f"| `{name}` | `{sha256}` |" in text
    assert "The source was a subset itself, of 5 pictures with 2" in text and f"`{first.fingerprint}`" in text
    assert "| in the picture, all of them | `dog` |" in text and "| pictures without dog | 6 |" in text
    assert load_captioned(first, count=3, seed=1).record.before == first.record  # one in memory as well


def test_a_folder_that_was_saved_before_there_were_such_facts_opens(tmp_path: Path) -> None:
    data = people(tmp_path, count=2)
    folder = data.save(tmp_path / "out")
    tell(folder, hub=None, before=None)
    assert "hub" not in json.loads((folder / "facts.json").read_text()) and load_captioned(folder) == data


def test_a_subset_whose_text_is_a_join_is_a_set_like_any_other(tmp_path: Path) -> None:
    data = people(tmp_path, caption="all")
    folder = data.save(tmp_path / "out")
    assert len(data.dataset["captions"][0]) == 5 and data.dataset["captions"][0] != [data.dataset["text"][0]]
    for report in (check(data), check(folder)):
        assert report.pictures == 12 and not report.broken
    for again in (load_captioned(folder, count=12), as_captioned(data.dataset), as_captioned(data.dataset.to_iterable_dataset())):
        assert sorted(again.dataset["captions"][:]) == sorted(data.dataset["captions"][:])
        assert not any("not used" in note for note in again.notes)


def test_pictures_that_are_the_same_or_of_another_size_are_told(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    data = load_captioned(tmp_path, prompt="x", count=3)
    assert any("a.jpg = c.jpg" in note or "c.jpg = a.jpg" in note for note in data.notes) and data.left_out == {}
    data = people(tmp_path / "coco")
    assert not data.notes
    (tmp_path / "coco/my set/val2014/COCO_val2014_000000000004.jpg").write_bytes(encoded(picture(0, (60, 40))))
    options: dict[str, Any] = {"annotations": tmp_path / "coco/my set/annotations", "images": tmp_path / "coco/my set"}
    assert load_captioned("coco", **options).notes == ("pictures of another size than their annotations state: 1",)


def test_pictures_with_fewer_captions_than_the_one_that_is_wanted_are_counted(tmp_path: Path) -> None:
    said = "pictures with fewer than 6 captions, of which the last was taken: 11"
    data = people(tmp_path, caption="nth:6")
    assert (
        said in data.notes
        and data.dataset["text"][2] == "a sixth, over two lines"
        and data.dataset["text"][0] == "caption 4 of 1."
    )
    assert said in (data.save(tmp_path / "out") / "README.md").read_text()
    assert not any("fewer" in note for note in people(tmp_path, caption="nth:5").notes)


def test_the_sources_are_where_the_list_says() -> None:
    for name, place in SOURCES.items():
        file, _, kind = place.partition(".")
        assert getattr(import_module(f"hf_diffusion_kit.data.{file}"), kind).name == name


# The command


def test_subset_coco_prints_one_object_and_does_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "set", 12)
    words = ["subset", "coco", "--annotations", f"{tmp_path}/set/annotations", "--images", f"{tmp_path}/set", "--category", "dog"]
    words += ["--count", "3", "--seed", "0", "--out", f"{tmp_path}/out", "--json"]
    told = []
    for _ in range(2):
        assert main(words) == 0
        out, err = capsys.readouterr()
        told.append(json.loads(out))
        assert "3 pictures with" in err and "pictures without dog: 6" in err
    assert told[0] == told[1] and told[0]["rows"] == len(told[0]["image_ids"]) == 3 and told[0]["captions"] >= 15
    with Image.open(told[0]["sheet"]) as page:
        assert page.width > 400
    assert main([*words[:-5], "--seed", "1", "--out", f"{tmp_path}/out"]) == 5
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words[:-5], "--seed", "1", "--out", f"{tmp_path}/out", "--overwrite"]) == 0


def rows_of(folder: Path) -> Any:
    return load_captioned(folder).dataset["text"][:]


def test_values_that_begin_like_a_flag_are_printed_as_they_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    metadata(fill(tmp_path / "-mine", ["a.jpg", "b.jpg"]), [("a.jpg", "one -x"), ("b.jpg", "two")])
    fill(tmp_path / "-bare", ["a.jpg"])
    coco(tmp_path / "-set", 4)
    asked = {
        "match": ["folder", "./-mine", "--match=-x"],
        "prompt": ["folder", "./-bare", "--prompt=-a -b c"],
        "coco": ["coco", "--annotations=-set/annotations", "--images=-set", "--category", "dog"],
    }
    for name, words in asked.items():
        assert main(["subset", *words, "--out", f"{name}-1", "--json"]) == 0
        recipe = shlex.split(json.loads(capsys.readouterr().out)["recipe"])
        assert recipe[:2] == ["hfdk", "subset"] and main([*recipe[1:-1], f"{name}-2"]) == 0
        assert rows_of(tmp_path / f"{name}-1") == rows_of(tmp_path / f"{name}-2")
        assert main([*recipe[1:-1], f"{name}-1"]) == 0  # the same is there
        capsys.readouterr()
    assert Subset(category=("-a", "b")).words() == ["--category=-a", "--category=b"]


def test_another_subset_is_known_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "set", 6)
    fill(tmp_path / "mine", ["a.jpg"])
    words = ["subset", "coco", "--annotations", f"{tmp_path}/set/annotations", "--images", f"{tmp_path}/set", "--count", "2"]
    assert main([*words, "--out", f"{tmp_path}/a"]) == 0
    mine = ["subset", "folder", f"{tmp_path}/mine", "--prompt"]
    assert main([*mine, "x", "--out", f"{tmp_path}/b"]) == 0 == main([*mine, "x", "--out", f"{tmp_path}/b"])
    shutil.rmtree(tmp_path / "set/val2014")  # whoever reads it says so
    shutil.rmtree(tmp_path / "mine")
    others = [
        [*words, "--seed", "1", "--out", f"{tmp_path}/a"],
        [*words, "--pixels", "none", "--out", f"{tmp_path}/a"],
        [*words, "--on-bad-image", "skip", "--out", f"{tmp_path}/a"],
        [*mine, "y", "--out", f"{tmp_path}/b"],
        [*mine, "x", "--ignore-captions", "--out", f"{tmp_path}/b"],
        ["subset", "folder", f"{tmp_path}/other", "--prompt", "x", "--out", f"{tmp_path}/b"],
    ]
    capsys.readouterr()
    for other in others:
        assert main(other) == 5, other
        assert "holds another subset. Fix: say --overwrite" in capsys.readouterr().err
    assert main([*others[0], "--overwrite"]) == 3 and "there is no such file" in capsys.readouterr().err
    assert main([*words, "--out", f"{tmp_path}/a"]) == 3  # it may be the same: the pictures would have told
    (tmp_path / "a/facts.json").write_text("{")
    assert main([*words, "--out", f"{tmp_path}/a"]) == 5


def test_subset_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata(fill(tmp_path / "mine", ["a.jpg", "b.jpg"]), [("a.jpg", "one"), ("b.jpg", "two")])
    assert main(["subset", "folder", f"{tmp_path}/mine", "--out", f"{tmp_path}/out"]) == 0
    out = capsys.readouterr().out
    assert "2 pictures with 2 captions" in out and "captions come from metadata.jsonl" in out
    assert load_captioned(tmp_path / "out").recipe == "hfdk subset folder mine --out subset"
    for words in (["folder"], ["coco", "x"], ["coco"]):
        assert main(["subset", *words, "--out", f"{tmp_path}/none"]) == 2
    assert main(["subset", "folder", f"{tmp_path}/nowhere", "--out", f"{tmp_path}/none"]) == 3
    assert not (tmp_path / "none").exists() and "Traceback" not in capsys.readouterr().err
