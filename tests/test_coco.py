"""COCO annotations as a source: every caption is taken or counted, and the choice depends on content and seed alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import ConfigError, KitError, SourceError
from pictured import coco


def rows(folder: Path, **options: Any) -> Coco:
    split = options.pop("split", None)
    source = Coco(folder / "annotations", folder, split)
    source.found = list(source.rows(Subset.of(**options)))  # type: ignore[attr-defined]
    return source


def edit(folder: Path, kind: str, change: Callable[[dict[str, Any]], Any], split: str = "val2014") -> None:
    file = folder / "annotations" / f"{kind}_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_every_caption_is_kept_as_it_was_written_and_text_is_tidy(tmp_path: Path) -> None:
    data = load_captioned("coco", annotations=coco(tmp_path) / "annotations", images=tmp_path)
    assert data.dataset["image_id"] == ["1", "2", "3", "4", "5", "6"]
    assert [len(captions) for captions in data.dataset["captions"]] == [5, 5, 6, 5, 5, 5]
    assert data.example(2).captions[0] == " caption 0 of 3. " and data.example(2).captions[5] == "a sixth,\nover two lines\n"
    assert data.dataset["text"][2] == "caption 0 of 3."
    row = data.dataset[1]
    assert row["file_name"] == "COCO_val2014_000000000002.jpg" and (row["width"], row["height"]) == (48, 32)
    assert (
        row["categories"] == ["person", "dog"] and row["license"] == "Attribution License" and row["license_url"] == "http://by"
    )
    assert row["coco_url"] == "http://images.cocodataset.org/val2014/COCO_val2014_000000000002.jpg"
    assert data.licenses == {"Attribution License": 3, "Attribution-ShareAlike License": 3} and data.left_out == {}


def test_the_order_of_files_changes_nothing(tmp_path: Path) -> None:
    options: dict[str, Any] = {"category": "dog", "count": 4, "seed": 5}
    folders = [coco(tmp_path / "a", 12), coco(tmp_path / "b", 12, backwards=True)]
    one, two = (load_captioned("coco", annotations=folder / "annotations", images=folder, **options) for folder in folders)
    assert one.fingerprint == two.fingerprint and one.dataset["categories"] == two.dataset["categories"]
    fewer = load_captioned("coco", annotations=folders[0] / "annotations", images=folders[0], **{**options, "count": 2})
    assert list(fewer.dataset["image_id"]) == one.dataset["image_id"][:2]
    other = load_captioned("coco", annotations=folders[0] / "annotations", images=folders[0], **{**options, "seed": 6})
    assert other.fingerprint != one.fingerprint
    assert one.left_out == {"pictures without dog": 6, "pictures beyond the count": 2}


def test_who_else_is_there_changes_nothing(tmp_path: Path) -> None:
    drawn = []
    for count in (9, 12):
        folder = coco(tmp_path / str(count), count)
        data = load_captioned("coco", annotations=folder / "annotations", images=folder, count=count)
        drawn.append([number for number in data.dataset["image_id"] if int(number) <= 9])
    assert drawn[0] == drawn[1] != sorted(drawn[0])


def test_all_categories_must_be_in_the_picture(tmp_path: Path) -> None:
    coco(tmp_path, 12)
    source = rows(tmp_path, category=["dog", "Frisbee"])
    assert [row.image_id for row in source.found] == ["6", "12"]  # type: ignore[attr-defined]
    assert source.findings.left_out == {"pictures without dog": 6, "pictures without frisbee": 4}
    with pytest.raises(ConfigError, match="unknown category 'frisby'; did you mean 'frisbee'"):
        rows(tmp_path, category="frisby")
    (tmp_path / "annotations" / "instances_val2014.json").unlink()
    assert rows(tmp_path).found[0].categories == ()  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match=r"only with instances_val2014\.json"):
        rows(tmp_path, category="dog")


def test_what_is_not_as_it_should_be_is_counted_and_named(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"] += [{"image_id": 99, "id": 7, "caption": "lost"}, {"image_id": 1, "id": 8, "caption": " \n"}]
        content["annotations"] += [
            {"image_id": 1, "id": 9, "caption": None},
            {"image_id": 1, "id": 10, "caption": "the same number"},
        ]
        content["images"].append({"id": 50, "file_name": "unspoken.jpg", "width": 1, "height": 1})

    coco(tmp_path)
    edit(tmp_path, "captions", change)
    data = load_captioned("coco", annotations=tmp_path / "annotations", images=tmp_path / "val2014")
    assert data.left_out == {"captions of pictures that are not listed": 1, "blank captions": 2, "pictures without a caption": 1}
    assert any("annotation 7 of image 99" in note for note in data.notes) and any("unspoken.jpg" in note for note in data.notes)
    assert len(data.example(0).captions) == 6 and any("annotation numbers" in note for note in data.notes)
    with pytest.raises(SourceError, match=r"not listed: 1 .annotation 7"):
        load_captioned("coco", annotations=tmp_path / "annotations", images=tmp_path, strict=True)


def renumbered(content: dict[str, Any]) -> None:
    for image in content.get("images", []):
        image["id"] += 1000
    for note in content["annotations"]:
        note["image_id"] += 1000


def test_layouts(tmp_path: Path) -> None:
    """The root of several splits, one split's own folder, a flat folder, one file of captions."""
    coco(tmp_path, 4, "train2014")
    coco(tmp_path, 3, "val2014")
    edit(tmp_path, "captions", renumbered)
    edit(tmp_path, "instances", renumbered)
    assert len(rows(tmp_path).found) == 7  # type: ignore[attr-defined]
    assert "pictures come from train2014, val2014" in rows(tmp_path).findings.notes
    notes = tmp_path / "annotations"
    assert len(list(Coco(notes, tmp_path / "val2014").rows(Subset()))) == 3
    assert len(list(Coco(notes, tmp_path, split="train2014").rows(Subset()))) == 4
    assert len(list(Coco(notes / "captions_val2014.json", tmp_path).rows(Subset()))) == 3
    with pytest.raises(SourceError, match="did you mean 'val2014'"):
        list(Coco(notes, tmp_path, split="val2041").rows(Subset()))
    (tmp_path / "val2014").rename(tmp_path / "pictures")
    flat = Coco(notes, tmp_path / "pictures")
    assert len(list(flat.rows(Subset()))) == 3 and "none of its 4 pictures" in flat.findings.notes[0]
    alone = Coco(notes, tmp_path)
    assert len(list(alone.rows(Subset()))) == 4 and "no folder val2014" in alone.findings.notes[0]


def test_two_splits_with_the_same_numbers_are_told_apart(tmp_path: Path) -> None:
    coco(tmp_path, 2, "train2014")
    coco(tmp_path, 2, "val2014")
    with pytest.raises(SourceError, match="image 1 is in both"):
        rows(tmp_path)


def test_pictures_that_are_missing_are_named_or_skipped(tmp_path: Path) -> None:
    coco(tmp_path)
    options: dict[str, Any] = {"annotations": tmp_path / "annotations", "images": tmp_path}
    first = load_captioned("coco", **options, count=6).dataset["file_name"][0]
    (tmp_path / "val2014" / first).unlink()
    with pytest.raises(SourceError, match=f"{first}: there is no such file"):
        load_captioned("coco", **options)
    data = load_captioned("coco", **options, on_bad_image="skip", count=5)
    assert (
        len(data) == 5 and data.left_out["pictures that cannot be read"] == 1 and "pictures beyond the count" not in data.left_out
    )
    with pytest.raises(SourceError, match="6 pictures are asked for and 5 can be read"):
        load_captioned("coco", **options, on_bad_image="skip", count=6)
    (tmp_path / "val2014").rename(tmp_path / "old")
    (tmp_path / "val2014").mkdir()
    with pytest.raises(SourceError, match=r"6 of 6 pictures.*another split or year"):
        load_captioned("coco", **options)


def test_more_than_there_are_is_an_error(tmp_path: Path) -> None:
    coco(tmp_path)
    options: dict[str, Any] = {"annotations": tmp_path / "annotations", "images": tmp_path}
    with pytest.raises(SourceError, match="7 pictures are asked for and 6 are there") as caught:
        load_captioned("coco", **options, count=7)
    assert caught.value.exit_code == 3
    edit(tmp_path, "instances", lambda content: content.update(annotations=[]))
    with pytest.raises(SourceError, match=r"not one picture is left .pictures without dog: 6"):
        load_captioned("coco", **options, category="dog")
    for wrong in ({"count": 0}, {"count": -1}):
        with pytest.raises(ConfigError, match="above 0"):
            load_captioned("coco", **options, **wrong)


TEXT = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "id": 1, "caption": "x"}]}'
BAD: dict[str, tuple[bytes, str]] = {
    "cut": (TEXT[:60].encode(), "cut short at byte 60"),
    "utf-16": (TEXT.encode("utf-16"), "UTF-16"),
    "latin-1": (TEXT.replace("x", "é").encode("latin-1"), "not UTF-8 at byte"),
    "list": (b"[1, 2]", "expected object, got array"),
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><p>404", "HTML"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "LFS"),
    "zip": (b"PK\x03\x04rest", "zip"),
    "yaml": (b"images: []", "no JSON"),
    "nan": (TEXT.replace('"id": 1, "file', '"id": NaN, "file').encode(), r"invalid character \(byte 19\)"),
    "no images": (b'{"annotations": []}', "required field images"),
    "no annotations": (b'{"images": []}', "required field annotations"),
    "number": (TEXT.replace('"x"', "7").encode(), r"annotations\[0\].caption: expected str"),
    "objects": (TEXT.replace('"caption": "x"', '"bbox": []').encode(), r"annotations\[0\].*caption.*captions_\*\.json"),
    "trailing": (TEXT.encode() + b"}", "trailing"),
    "deep": (b'{"x":' + b"[" * 100_000, "deep"),
    "way out": (TEXT.replace("a.jpg", "../../etc/passwd").encode(), "image 1.*not the name of a file inside"),
    "root": (TEXT.replace("a.jpg", "/etc/passwd").encode(), "not the name of a file inside"),
    "address": (TEXT.replace("a.jpg", "file:///etc/passwd").encode(), "not the name of a file inside"),
    "twice": (TEXT.replace("}],", '}, {"id": 1, "file_name": "b.jpg"}],', 1).encode(), "image id 1 is 'a.jpg' and 'b.jpg'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_of_annotations_is_one_line_with_the_place(case: str, tmp_path: Path) -> None:
    content, what = BAD[case]
    file = tmp_path / "captions_val2014.json"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=what) as caught:
        list(Coco(file, tmp_path).rows(Subset()))
    assert caught.value.exit_code == 3 and str(file) in caught.value.line() and "\n" not in caught.value.line()


def test_a_byte_order_mark_and_text_ids_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "captions_val2014.json"
    file.write_text(TEXT.replace('"image_id": 1', '"image_id": "1"'), encoding="utf-8-sig")
    assert [row.captions for row in Coco(file, tmp_path).rows(Subset())] == [("x",)]


def test_links_and_names_that_nearly_fit(tmp_path: Path) -> None:
    coco(tmp_path / "set")
    options: dict[str, Any] = {"annotations": tmp_path / "set/annotations", "images": tmp_path / "set"}
    picture = tmp_path / "set/val2014/COCO_val2014_000000000001.jpg"
    picture.rename(tmp_path / "elsewhere.jpg")
    picture.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(SourceError, match="link that leads out"):
        load_captioned("coco", **options)
    picture.unlink()
    (tmp_path / "elsewhere.jpg").rename(picture.with_suffix(".JPG"))
    with pytest.raises(SourceError, match=r"did you mean 'COCO_val2014_000000000001\.JPG'"):
        load_captioned("coco", **options)


def test_arguments_that_do_not_go_together(tmp_path: Path) -> None:
    for options in ({}, {"images": tmp_path}, {"annotations": "a", "images": "b", "prompt": "x"}):
        with pytest.raises(ConfigError):
            load_captioned("coco", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belong to source"):
        load_captioned(tmp_path, images=tmp_path)
    with pytest.raises(KitError, match="no such folder"):
        load_captioned("coco", annotations=tmp_path, images=tmp_path / "none")
    with pytest.raises(SourceError, match=r"no captions_\*\.json"):
        load_captioned("coco", annotations=tmp_path, images=tmp_path)


def test_a_home_folder_may_be_named_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_captioned("coco", annotations="~/set/annotations", images="~/set")) == 6
