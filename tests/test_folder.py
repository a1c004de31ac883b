"""One's own pictures: a caption that exists is used, or somebody is told; a line that cannot be read is named."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import as_captioned, load_captioned
from hf_diffusion_kit.data.folder import ORDER
from hf_diffusion_kit.errors import ConfigError, HubError, SourceError
from hf_diffusion_kit.hub import scan_file
from hf_diffusion_kit.records import file_sha256
from pictured import coco, encoded, fill, metadata, picture


def captions(folder: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    data = load_captioned(folder, **options)
    return {data.example(n).file_name: data.example(n).captions for n in range(len(data))}


STUDENT = [f"COCO_val2014_{n:012d}.jpg" for n in range(8)]


def student(folder: Path) -> Path:
    return metadata(fill(folder, STUDENT), [(name, f"caption {k} of {name}") for k in range(5) for name in STUDENT])


def test_five_rows_a_picture_are_five_captions(tmp_path: Path) -> None:
    """The student's layout."""
    student(tmp_path)
    found = captions(tmp_path)
    assert list(found) == STUDENT and all(len(texts) == 5 for texts in found.values())


def test_stock_imagefolder_loses_all_of_them(tmp_path: Path) -> None:
    """Why this package reads folders itself: "val" in the names makes `datasets` take the files for a split, and metadata.jsonl, in
    whose name it does not find "val", for nothing. No warning; datasets#5021, #7201."""
    stock = datasets.load_dataset("imagefolder", data_dir=str(student(tmp_path)))
    assert {split: rows.column_names for split, rows in stock.items()} == {"validation": ["image"]}
    assert len(stock["validation"]) == 8


def test_a_cut_line_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    file = student(tmp_path) / "metadata.jsonl"
    cut = file.read_bytes()[:-20]
    file.write_bytes(cut)
    with pytest.raises(SourceError, match=r"metadata\.jsonl: line 40: the last line is cut short .*--repair") as caught:
        load_captioned(tmp_path)
    assert "COCO_val2014_000000000007.jpg" in caught.value.message
    data = load_captioned(tmp_path, repair=True)
    assert len(data) == 8 and sum(map(len, data.dataset["captions"])) == 39
    assert data.left_out == {"lines cut short that were left out, as asked (repair)": 1}
    assert any(
        'metadata.jsonl: line 40, which begins \'{"file_name": "COCO_val2014_000000000007.jpg"' in note for note in data.notes
    )
    assert str(data.recipe).endswith("--repair --out subset") and file.read_bytes() == cut
    whole = load_captioned(tmp_path, repair=True)
    assert whole.fingerprint == data.fingerprint


UNCUT = '{"file_name": "a.jpg", "text": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("metadata.jsonl", UNCUT + '{"file_name": "b.jpg", "text": "y', ("x",)),
        ("metadata.jsonl", UNCUT + '{"file_name": "b.jpg", "text": "y"\n\n', ("x",)),
        ("metadata.jsonl", UNCUT + '{"file_name": "b.jpg",,}\n', None),  # no end of a line is missing: it is wrong
        ("metadata.jsonl", '{"file_name": "b.jpg", "te\n' + UNCUT, None),  # not the last one
        ("metadata.jsonl", UNCUT + "garbage", None),
        ("metadata.csv", 'file_name,text\na.jpg,x\nb.jpg,"y and', ("x",)),
        ("metadata.csv", "file_name,text\na.jpg,x\nb.j", ("x",)),
        ("metadata.csv", 'file_name,text\na.jpg,"x\nb.jpg,y\n', None),  # the quote swallows all that follows
        ("metadata.csv", "file_name,text\na.jpg,x\nb.jpg,y,z\n", None),
    ],
)
def test_repair_leaves_out_a_cut_last_line_and_nothing_else(
    name: str, content: str, kept: tuple[str, ...] | None, tmp_path: Path
) -> None:
    (fill(tmp_path, ["a.jpg", "b.jpg"]) / name).write_text(content)
    with pytest.raises(SourceError, match=rf"{name}: line \d: "):
        load_captioned(tmp_path)
    if kept is None:
        with pytest.raises(SourceError, match=rf"{name}: line \d: "):
            load_captioned(tmp_path, repair=True)
    else:
        assert captions(tmp_path, repair=True) == {"a.jpg": kept}
    assert (tmp_path / name).read_text() == content


def test_metadata_in_parquet(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "sub/b.jpg"])
    rows = {"file_name": ["a.jpg", "a.jpg", "sub/b.jpg", "c.jpg"], "text": ["x", "y", None, "z"]}
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    data = load_captioned(tmp_path)
    assert data.source == "folder" and data.example(0).captions == ("x", "y") and len(data) == 1
    assert data.left_out == {"captions without a picture": 1, "blank captions": 1, "pictures without a caption": 1}
    assert any("c.jpg (row 3)" in note for note in data.notes)
    pq.write_table(pa.table({"file_name": ["a.jpg"], "text": [7]}), tmp_path / "metadata.parquet")
    with pytest.raises(SourceError, match=r"metadata\.parquet: row 0: text: is 7, not text"):
        load_captioned(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"metadata\.parquet: its Parquet cannot be read"):
        load_captioned(tmp_path)


def test_the_order_of_captions_is_stated_and_what_is_used_is_recorded(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["a.jpg"]), [("a.jpg", "of the table")])
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,of the csv\n")
    (tmp_path / "a.txt").write_text("of the file")
    with pytest.raises(
        SourceError, match=r"would not be used: metadata\.csv, files beside the pictures \(used: metadata\.jsonl\)"
    ):
        load_captioned(tmp_path)
    data = load_captioned(tmp_path, ignore_captions=True)
    assert (
        data.example(0).captions == ("of the table",)
        and f"captions come from metadata.jsonl; looked for in this order: {ORDER}" in data.notes
    )


def test_a_snapshot_of_the_hub_is_a_folder_of_links(tmp_path: Path) -> None:
    """`huggingface_hub` keeps files in blobs/ and gives links to them; a link to anywhere else is still refused."""
    home = tmp_path / "datasets--user--pictures"
    snapshot = home / "snapshots/0123abc"
    snapshot.mkdir(parents=True)
    metadata(fill(home / "blobs", ["111", "222", "333"]), [("a.jpg", "x"), ("b.jpg", "y")], "444")
    for name, blob in (("a.jpg", "111"), ("b.jpg", "222"), ("metadata.jsonl", "444")):
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    assert captions(snapshot) == {"a.jpg": ("x",), "b.jpg": ("y",)}
    (tmp_path / "here").symlink_to(snapshot)
    assert captions(tmp_path / "here") == {"a.jpg": ("x",), "b.jpg": ("y",)}
    (snapshot / "b.jpg").unlink()
    (snapshot / "b.jpg").symlink_to(fill(tmp_path, ["secret.jpg"]) / "secret.jpg")
    with pytest.raises(SourceError, match="link that leads out"):
        load_captioned(snapshot)


def test_csv_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "metadata.csv").write_text(
        'file_name;caption\na.jpg;NA\nb.jpg;1984\nc.jpg;"two\nlines; one ""caption"""\n', encoding="utf-8-sig"
    )
    assert captions(tmp_path) == {"a.jpg": ("NA",), "b.jpg": ("1984",), "c.jpg": ('two\nlines; one "caption"',)}
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.jpg,one, two\n")
    with pytest.raises(SourceError, match="line 2: has 3 fields, the first line 2"):
        load_captioned(tmp_path)


@pytest.mark.parametrize(
    "names", [["a.txt", "b.txt"], ["a.jpg.txt", "b.png.txt"], ["a.caption", "b.caption"], ["a.txt", "b.caption"]]
)
def test_files_beside_the_pictures(names: list[str], tmp_path: Path) -> None:
    fill(tmp_path, ["sub/a.jpg"])
    (tmp_path / "sub/b.png").write_bytes(encoded(picture(9), "PNG"))
    for name in names:
        (tmp_path / "sub" / name).write_text(f"of {name[0]}\n\nand again\n", encoding="utf-8-sig")
    (tmp_path / "sub/lonely.txt").write_text("x")
    data = load_captioned(tmp_path)
    assert data.example(0).file_name == "sub/a.jpg" and data.example(1).captions == ("of b", "and again")
    assert data.left_out == {"caption files without a picture": 1}


def test_one_prompt_for_all_and_never_instead_of_captions(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg"])
    with pytest.raises(SourceError, match=r"no captions.*one prompt for all"):
        load_captioned(tmp_path)
    assert captions(tmp_path, prompt="a photo of sks dog") == dict.fromkeys(["a.jpg", "b.jpg"], ("a photo of sks dog",))
    with pytest.raises(SourceError, match="prompt is blank"):
        load_captioned(tmp_path, prompt="  ")
    metadata(tmp_path, [("a.jpg", "hers"), ("b.jpg", "his")])
    with pytest.raises(SourceError, match=r"would not be used: metadata\.jsonl"):
        load_captioned(tmp_path, prompt="a photo of sks dog")
    data = load_captioned(tmp_path, prompt="a photo of sks dog", ignore_captions=True)
    assert data.example(0).captions == ("a photo of sks dog",) and any("ignored as asked" in note for note in data.notes)
    (tmp_path / "a.txt").write_text("another")
    with pytest.raises(SourceError, match="would not be used: files beside"):
        load_captioned(tmp_path)
    assert captions(tmp_path, ignore_captions=True)["a.jpg"] == ("hers",)


def test_what_is_left_over_is_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg", ".hidden.jpg", "__MACOSX/a.jpg"])
    (tmp_path / "d.gif").write_bytes(encoded(picture(0), "GIF"))
    metadata(tmp_path, [("a.jpg", "one"), ("a.jpg", "one"), ("gone.jpg", "x"), ("b.jpg", " "), ("b.jpg", None), ("a.jpg", "two")])
    data = load_captioned(tmp_path)
    assert data.example(0).captions == ("one", "two") and len(data) == 1
    assert data.left_out == {
        "files that are not JPEG, PNG, WebP or BMP": 1,
        "captions without a picture": 1,
        "metadata rows that say the same again": 1,
        "blank captions": 2,
        "pictures without a caption": 2,
    }
    assert any("gone.jpg (line 3)" in note for note in data.notes) and any("c.jpg" in note for note in data.notes)
    with pytest.raises(SourceError, match="strict"):
        load_captioned(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"image": "a.jpg", "captions": ["x", "y"]}, ("x", "y")),
        ({"path": "a.jpg", "prompt": "x"}, ("x",)),
        ({"file_name": "a.jpg", "text": "x", "captions": [" x ", "y"]}, (" x ", "y")),
        ({"filename": "a.jpg", "sentences": [{"raw": "x", "tokens": ["x"]}]}, ("x",)),
    ],
)
def test_columns_as_people_name_them(columns: dict[str, Any], found: tuple[str, ...], tmp_path: Path) -> None:
    (fill(tmp_path, ["a.jpg"]) / "metadata.jsonl").write_text(json.dumps(columns))
    assert captions(tmp_path) == {"a.jpg": found}


def test_two_columns_that_differ_are_asked_about(tmp_path: Path) -> None:
    (fill(tmp_path, ["a.jpg"]) / "metadata.jsonl").write_text(
        json.dumps({"file_name": "a.jpg", "text": "short", "caption": "a long one"})
    )
    with pytest.raises(SourceError, match="columns 'caption' and 'text' hold different captions"):
        load_captioned(tmp_path)
    assert captions(tmp_path, caption_column="text") == {"a.jpg": ("short",)}
    with pytest.raises(SourceError, match="did you mean 'caption'"):
        load_captioned(tmp_path, caption_column="captoin")


BAD = {
    "list": (b'[{"file_name": "a.jpg", "text": "x"}]', "line 1: is a JSON list"),
    "broken": (
        b'{"file_name": "a.jpg", "text": "x"}\n{"file_name": "a.jpg",,}\n{"file_name": "a.jpg", "text": "y"}\n',
        r"line 2: it is .*byte",
    ),
    "number": (b'{"file_name": "a.jpg", "text": 7}', "line 1: text: is 7, not text"),
    "latin-1": ('{"file_name": "a.jpg", "text": "é"}'.encode("latin-1"), "line 1: is not UTF-8"),
    "utf-16": ('{"file_name": "a.jpg", "text": "x"}'.encode("utf-16"), "UTF-16"),
    "empty": (b"\n \n", "is empty"),
    "bare": (b'"a.jpg"\n', "line 1: is not an object"),
    "no name": (b'{"text": "x"}', "no column for the file name; it has text"),
    "no text": (b'{"file_name": "a.jpg", "label": "x"}', "no column for the captions; it has file_name, label"),
    "null name": (b'{"file_name": null, "text": "x"}', "the file name is None"),
    "case": (b'{"file_name": "A.JPG", "text": "x"}', "did you mean 'a.jpg'"),
    **{
        way: (json.dumps({"file_name": way, "text": "x"}).encode(), "not the name of a file inside|a file name is empty")
        for way in (
            "../a.jpg",
            "/a.jpg",
            "..\\a.jpg",
            "file:///a.jpg",
            "http://x/a.jpg",
            "a.jpg::/etc/hostname",
            "c:/a.jpg",
            "s/../../a.jpg",
            "",
        )
    },
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(case: str, tmp_path: Path) -> None:
    content, what = BAD[case]
    (fill(tmp_path, ["a.jpg"]) / "metadata.jsonl").write_bytes(content)
    with pytest.raises(SourceError, match=what) as caught:
        load_captioned(tmp_path)
    assert "metadata.jsonl" in caught.value.line() and caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["metadata.jsonl.json", "metadata.json", "metadata.json1", "meta-data.jsonl"])
def test_a_table_of_nearly_the_right_name_is_seen(name: str, tmp_path: Path) -> None:
    (fill(tmp_path, ["a.jpg"]) / name).write_text('{"file_name": "a.jpg", "text": "x"}')
    with pytest.raises(SourceError, match=f"found {name}, did you mean 'metadata.jsonl'"):
        load_captioned(tmp_path)


def test_unicode_forms_of_one_name_are_one_name(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café 你好 #%[1].jpg") for form in ("NFC", "NFD"))
    metadata(fill(tmp_path, [apart]), [(composed, "x")])
    assert captions(tmp_path) == {composed: ("x",)}


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    known = load_captioned(coco(tmp_path / "coco"))
    assert known.source == "coco" and len(known) == 6 and "--annotations coco/annotations --images coco" in str(known.recipe)
    metadata(fill(tmp_path / "sets", ["train/a.jpg", "validation/b.jpg"]) / "train", [("a.jpg", "x")])
    with pytest.raises(SourceError, match=r"several sets: train, validation.*sets/train"):
        load_captioned(tmp_path / "sets")
    assert captions(tmp_path / "sets/train") == {"a.jpg": ("x",)}
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        load_captioned(tmp_path / "none")
    with pytest.raises(SourceError, match="no such folder"):
        load_captioned(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is a file"):
        load_captioned(tmp_path / "sets/train/a.jpg")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, ["secret.jpg", "set/a.jpg"])
    (tmp_path / "set/b.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(SourceError, match="link that leads out"):
        load_captioned(tmp_path / "set", prompt="x")


def test_all_bad_pictures_are_told_at_once_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"<html>")
    with pytest.raises(SourceError, match=r"2 of 3 pictures cannot be used: .*a\.jpg: is empty.*c\.jpg: is an HTML"):
        load_captioned(tmp_path, prompt="x")
    data = load_captioned(tmp_path, prompt="x", on_bad_image="skip")
    assert len(data) == 1 and data.left_out == {"pictures that cannot be read": 2}
    (tmp_path / "b.jpg").write_bytes(b"GIF89a")
    with pytest.raises(SourceError, match="3 of 3"):
        load_captioned(tmp_path, prompt="x", on_bad_image="skip")


def test_nothing_is_written_into_the_folder(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["a.jpg"]), [("a.jpg", "x")])
    before = sorted(path.name for path in tmp_path.iterdir())
    load_captioned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# Tables


def table(**columns: Any) -> datasets.Dataset:
    pictures = [{"bytes": encoded(picture(n)), "path": None} for n in range(3)]
    return datasets.Dataset.from_dict({"image": pictures, **columns}).cast_column("image", datasets.Image())


def test_any_dataset_with_pictures_and_captions() -> None:
    data = as_captioned(table(caption=[["x", "y"], ["z"], ["w"]]))
    assert data.source == "dataset" and data.recipe is None and data.example(0).captions == ("x", "y") and len(data) == 3
    assert as_captioned(data) is data
    assert as_captioned(datasets.DatasetDict(train=table(text=["x", "y", "z"]))).dataset["text"] == ["x", "y", "z"]
    seven, eight = ({"bytes": encoded(picture(n)), "path": None} for n in (7, 8))
    grouped = as_captioned(table(image=[seven, seven, eight], image_id=["7", "7", "8"], text=["x", "y", "z"]))
    assert [grouped.example(n).captions for n in range(2)] == [("x", "y"), ("z",)]
    leaky = as_captioned(table(file_name=["/home/me/a.jpg", "b.jpg", "../c.jpg"], text=["x", "y", "z"]))
    assert leaky.dataset["file_name"] == ["a.jpg", "b.jpg", "c.jpg"] and leaky.dataset["image_id"] == [
        "000000",
        "b.jpg",
        "000002",
    ]
    with pytest.raises(SourceError, match="no column for the captions; it has label"):
        as_captioned(table(label=[1, 2, 3]))
    stream = as_captioned(table(text=["x", "y", "z"]).to_iterable_dataset())
    assert stream.fingerprint == as_captioned(table(text=["x", "y", "z"])).fingerprint
    with pytest.raises(SourceError, match=r"is a list, not a datasets.Dataset"):
        as_captioned([1, 2])


def test_a_parquet_folder_that_somebody_else_wrote(tmp_path: Path) -> None:
    table(text=["x", "y", "z"]).to_parquet(tmp_path / "data.parquet")
    data = load_captioned(tmp_path, count=2)
    assert len(data) == 2
    assert data.recipe == f"hfdk subset folder {tmp_path.name} --caption-column text --count 2 --seed 0 --out subset"
    assert data.record.files == {"data.parquet": file_sha256(tmp_path / "data.parquet")}
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="Parquet cannot be read"):
        load_captioned(tmp_path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            "mine/dosg",
            r"there is no such folder; did you mean 'mine/dogs'\? Fix: mend the path; where the Hub is meant, say hf://datasets/",
        ),
        ("mien/dogs", "did you mean 'mine/dogs'"),
        ("Mine/Dogs", "did you mean 'mine/dogs'"),
        ("mine/whales", r"there is no such folder; mine holds cats, dogs\. Fix"),
        ("mine/dogs/pupies", r"did you mean 'mine/dogs/puppies'"),
        ("mine\\dogs", "did you mean 'mine/dogs'"),
        ("mine\\whales", "mine holds cats, dogs"),
        ("a/b/c", "a/b/c: there is no such folder"),
        ("../here/mine/dosg", r"did you mean '\.\./here/mine/dogs'"),
        ("hf://datasets/mine", "is no id of a dataset of the Hub"),
        (Path("no/where"), "there is no such folder"),
        ("n" * 300, "has too long a name"),
        ("n/" * 3000, "has too long a name"),
    ],
)
def test_a_mistyped_folder_is_not_taken_for_something_of_the_hub(
    told: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "here", ["mine/dogs/puppies/a.jpg", "mine/cats/a.jpg"])
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SourceError, match=words) as caught:
        load_captioned(told)
    assert "\n" not in caught.value.line() and len(caught.value.line()) < 400


def test_what_can_only_be_the_hub_s_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata(fill(tmp_path / "you/dogs", ["a.jpg"]), [("a.jpg", "x")])
    monkeypatch.chdir(tmp_path)
    assert len(load_captioned("you/dogs")) == len(load_captioned(Path("you/dogs"))) == 1
    for source, options in (("hf://datasets/you/dogs", {}), ("you/cats", {"streaming": True}), ("you/cats", {"revision": "v1"})):
        with pytest.raises(HubError, match=r"^you/(dogs|cats): .*cannot be reached"):
            load_captioned(source, **options)
    with pytest.raises(ConfigError, match=r"revision: is for datasets of the Hub.* say hf://datasets/user/name"):
        load_captioned("you/dogs", revision="main")
    assert main(["subset", "hub", "you/dogs", "--out", "out"]) == 6 and not Path("out").exists()
    metadata(fill(tmp_path / "coco", ["a.jpg"]), [("a.jpg", "a folder that is called so")])
    assert main(["subset", "folder", "coco", "--out", "out"]) == 0


@pytest.mark.parametrize("name", ["janedoe", "pictures-of-janedoe", "hf_" + "a1B2" * 9])
def test_a_folder_that_is_called_like_its_owner_can_be_published(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "janedoe")
    mine = metadata(fill(tmp_path / name, ["a.jpg", "b.jpg"]), [("a.jpg", "x"), ("b.jpg", "y")])
    data = load_captioned(mine)
    assert data.recipe == "hfdk subset folder pictures --out subset"
    assert any("the name of a folder tells of this machine or its user" in note for note in data.notes)
    again = load_captioned(data.save(tmp_path / "sets" / name), count=1)
    table(text=["x", "y", "z"]).to_parquet(tmp_path / "rows" / name / "a.parquet")
    rows = load_captioned(tmp_path / "rows" / name)
    coco(tmp_path / "coco" / name)
    found = load_captioned("coco", annotations=tmp_path / "coco" / name / "annotations", images=tmp_path / "coco" / name)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "concepts_list.json").write_text(json.dumps([{"instance_data_dir": str(mine)}]))
    concepts = load_captioned(tmp_path / "list")
    assert concepts.dataset["file_name"][:] == ["concept/a.jpg", "concept/b.jpg"]
    for number, made in enumerate((data, again, rows, found, concepts)):
        folder = made.save(tmp_path / f"out{number}")
        for file in (folder / "facts.json", folder / "README.md"):
            assert scan_file(file) == [] and name not in file.read_text()


def test_a_folder_s_own_name_is_told_where_it_is_harmless(tmp_path: Path) -> None:
    data = load_captioned(metadata(fill(tmp_path / "holiday", ["a.jpg"]), [("a.jpg", "x")]))
    assert data.recipe == "hfdk subset folder holiday --out subset" and not any("folder tells" in note for note in data.notes)


def test_the_column_of_the_metadata_is_told(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["a.jpg"]), [("a.jpg", "x")])
    assert "captions are read from the column 'text' of metadata.jsonl" in load_captioned(tmp_path).notes
    assert not any("are read from" in note for note in load_captioned(tmp_path, caption_column="text").notes)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "caption": "x", "text": "x"}')
    assert "captions are read from the columns 'caption' and 'text' of metadata.jsonl" in load_captioned(tmp_path).notes


def test_what_mends_bad_pictures_is_said_and_only_what_does(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    both = "fetch it again; hfdk check names all of them; --on-bad-image skip goes on without them"
    with pytest.raises(SourceError) as caught:
        load_captioned(tmp_path, prompt="x")
    assert caught.value.fix == both
    (tmp_path / "c.jpg").write_bytes(b"GIF89a")
    with pytest.raises(SourceError) as caught:
        load_captioned(tmp_path, prompt="x", on_bad_image="skip")  # which is what was done
    assert caught.value.fix == "hfdk check names all of them"
    with pytest.raises(SourceError) as caught:
        load_captioned(tmp_path, prompt="x", pixels="none")
    assert caught.value.fix == "embed the pixels; --on-bad-image skip goes on without them"


def test_a_hub_id_that_cannot_be_had_is_one_line() -> None:
    with pytest.raises(HubError, match="neither a folder here nor a dataset") as caught:
        load_captioned("nobody/nothing-of-that-name")
    assert caught.value.exit_code == 6 and "\n" not in caught.value.line()


def test_pictures_given_by_address_are_not_fetched() -> None:
    pictures = [{"bytes": None, "path": "https://example.com/a.jpg"}]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    with pytest.raises(SourceError, match="only an address"):
        as_captioned(datasets.Dataset.from_dict({"image": pictures, "text": ["x"]}, features=features))


@pytest.mark.parametrize("content", ["\u00a0", "\x1c"])
def test_a_table_of_spaces_that_only_unicode_knows_is_empty(content: str, tmp_path: Path) -> None:
    (fill(tmp_path, ["a.jpg"]) / "metadata.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=r"metadata\.csv: is empty"):
        load_captioned(tmp_path)
