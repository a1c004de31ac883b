"""Whatever people's files hold, the answer is right, or one line that names the file: never a traceback, never a silent loss.

Every odd input that was tried on stock `imagefolder` (facts/data.md, section 3) and where it is held here:

    five rows for one picture                   test_folder::test_five_rows_a_picture_are_five_captions
    exact duplicate rows                        test_folder::test_what_is_left_over_is_counted_and_named
    a row without its picture                   test_folder::test_what_is_left_over_is_counted_and_named
    a picture without a row                     test_folder::test_what_is_left_over_is_counted_and_named
    a last line that is cut short               test_folder::test_a_cut_line_is_named_and_can_be_left_out
    a missing brace                             test_folder::test_repair_leaves_out_a_cut_last_line_and_nothing_else
    blank lines, byte order mark                test_bad_input::test_harmless_oddities_are_accepted
    latin-1, UTF-16, a JSON list                test_folder::test_a_bad_line_is_named
    metadata.json, metadata.jsonl.json          test_folder::test_a_table_of_nearly_the_right_name_is_seen
    no column for the name                      test_folder::test_a_bad_line_is_named
    a name that is null or empty                test_folder::test_a_bad_line_is_named
    a caption that is null, absent or empty     test_bad_input::test_a_caption_that_is_absent_is_a_blank_one
    a caption that is a number                  test_folder::test_a_bad_line_is_named
    a caption that is a list                    test_folder::test_columns_as_people_name_them
    a column that only later rows have          test_bad_input::test_a_column_that_comes_late_is_read
    .. and / and addresses and :: in a name     test_folder::test_a_bad_line_is_named
    a name of a folder, or of another file      test_bad_input::test_a_name_of_something_else_is_counted
    garbage, half a picture, an empty file      test_pictures::test_a_bad_file_says_what_it_really_is
    flipped bytes in a picture                  test_pictures::test_damage_ends_in_one_line_or_in_the_same_pixels
    a PNG called .jpg                           test_check::test_modes_and_names_of_another_format_are_counted
    EXIF that turns                             test_pictures::test_exif_turns_are_applied_and_nothing_else_of_it_is_kept
    grey, palette, CMYK, transparency           test_pictures::test_transparency_lies_on_white_for_stock_loaders_too
    an animation                                test_pictures::test_the_first_frame_of_an_animation_counts
    unicode, spaces, #%?[1] in a name           test_bad_input::test_odd_names_are_names
    NFD on disk, NFC in the table               test_folder::test_unicode_forms_of_one_name_are_one_name
    another case in the table                   test_folder::test_a_bad_line_is_named
    glob characters in the folder's name        test_bad_input::test_odd_folders_are_folders
    train/ and val/, each with its table        test_bad_input::test_splits_with_a_table_each
    train/ and val/ with one table above        test_bad_input::test_splits_with_one_table_above_them
    COCO's own layout                           test_folder::test_folders_that_are_something_else
    COCO_val2014_*.jpg in one folder            test_folder::test_stock_imagefolder_loses_all_of_them
    one file called train-station.jpg           test_bad_input::test_a_picture_of_a_train_is_no_split
    splits with different columns               test_bad_input::test_splits_with_a_table_each
    metadata.csv beside metadata.jsonl          test_folder::test_the_order_of_captions_is_stated_and_what_is_used_is_recorded
    captions NA, null, 1984 in a CSV            test_folder::test_csv_is_text_whatever_it_looks_like
    captions that look like dates               test_bad_input::test_a_caption_is_text_whatever_it_looks_like
    an empty table, an empty folder             test_folder::test_folders_that_are_something_else

and the cases DATA-1 to DATA-14 of facts/reliability.md, section 5:

    1, 4, 5   test_pictures::test_a_bad_file_says_what_it_really_is    4   test_check::test_everything_is_found_at_once
    2         test_pictures::test_exif_turns_are_applied_and_nothing_else_of_it_is_kept
    3         test_pictures::test_other_modes_are_what_stock_loaders_make_of_them
    6         test_coco::test_links_and_names_that_nearly_fit          6   test_folder::test_unicode_forms_of_one_name_are_one_name
    7         test_coco::test_a_bad_file_of_annotations_is_one_line_with_the_place
    7         test_folder::test_a_bad_line_is_named                    7   test_concepts::test_a_bad_list_is_one_line
    8         test_bad_input::test_long_and_dirty_captions_are_kept_and_tidied
    8         test_check::test_captions_that_the_tokenizer_cuts_are_counted_only_when_there_is_one
    9         test_folder::test_what_is_left_over_is_counted_and_named
    10        test_coco::test_more_than_there_are_is_an_error
    11        test_index::test_a_damaged_index_is_made_anew
    13        test_resume::test_a_changed_setting_is_refused_unless_it_is_named
    14        test_pictures::test_what_phones_append_is_dropped
"""

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import pytest

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.check import check
from hf_diffusion_kit.data.folder import Folder
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import SourceError
from pictured import encoded, fill, metadata, picture


def captions(folder: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    return {row.file_name: row.captions for row in Folder(folder, **options).rows(Subset())}


def test_every_test_that_is_named_above_is_there() -> None:
    named = re.findall(r"(test_\w+)::(test_\w+)", str(__doc__))
    here = Path(__file__).parent
    gone = [f"{file}::{test}" for file, test in named if f"\ndef {test}(" not in (here / f"{file}.py").read_text()]
    assert not gone and len(named) > 45


# Rows of the table


def test_harmless_oddities_are_accepted(tmp_path: Path) -> None:
    line = '{"file_name": "a.jpg", "text": "x"}'
    fill(tmp_path, ["a.jpg"])
    for content in (f"\ufeff{line}", f"\n\n{line}\n \n\n", f"{line}\r\n", f"  {line}  ", line):
        (tmp_path / "metadata.jsonl").write_bytes(content.encode())
        assert captions(tmp_path) == {"a.jpg": ("x",)}
    (tmp_path / "metadata.jsonl").unlink()
    for content in ("file_name,text\r\na.jpg,x\r\n", "\nfile_name , text\n\na.jpg,x", "\ufefffile_name\ttext\ra.jpg\tx\r"):
        (tmp_path / "metadata.csv").write_bytes(content.encode())
        assert captions(tmp_path) == {"a.jpg": ("x",)}
    (tmp_path / "metadata.csv").write_text("file_name,text,text\na.jpg,x,y\n")
    with pytest.raises(SourceError, match="line 1: has two columns 'text'"):
        captions(tmp_path)


def test_a_caption_that_is_absent_is_a_blank_one(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    rows = [
        {"file_name": "a.jpg", "text": "x"},
        {"file_name": "b.jpg"},
        {"file_name": "c.jpg", "text": None},
        {"file_name": "d.jpg", "text": ""},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Folder(tmp_path)
    assert [row.captions for row in source.rows(Subset())] == [("x",)]
    assert (
        source.findings.faults["blank captions"]
        == ["b.jpg", "c.jpg", "d.jpg"]
        == source.findings.faults["pictures without a caption"]
    )


def test_a_column_that_comes_late_is_read(tmp_path: Path) -> None:
    """Stock `datasets` settles the columns by the first 10 MB and drops what comes later."""
    fill(tmp_path, ["a.jpg", "b.jpg"])
    rows = [{"file_name": "a.jpg", "text": "x"}] * 2000 + [{"file_name": "b.jpg", "captions": ["y", "z"]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(tmp_path) == {"a.jpg": ("x",), "b.jpg": ("y", "z")}


def test_a_name_of_something_else_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "sub/b.jpg"])
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "c.tiff").write_bytes(b"II*\0")
    metadata(tmp_path, [("a.jpg", "x"), ("sub", "a folder"), ("notes.md", "a text"), ("c.tiff", "a TIFF"), ("sub/b.jpg", "y")])
    source = Folder(tmp_path)
    assert len(list(source.rows(Subset()))) == 2
    assert source.findings.faults == {
        "files that are not JPEG, PNG, WebP or BMP": ["c.tiff"],
        "captions without a picture": ["sub (line 2)"],
        "captions of files that are not read as pictures": ["notes.md (line 3)", "c.tiff (line 4)"],
    }


def test_a_caption_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    texts = ["2024-01-01", "2024-02-30T10:00:00", "NaN", "true", "007", "1e5", "=1+1", "'quoted'", "None"]
    names = [f"{n}.jpg" for n in range(len(texts))]
    metadata(fill(tmp_path, names), list(zip(names, texts, strict=True)))
    assert captions(tmp_path) == {name: (text,) for name, text in zip(names, texts, strict=True)}
    (tmp_path / "metadata.jsonl").unlink()
    told = io.StringIO()
    csv.writer(told).writerows([("file_name", "text"), *zip(names, texts, strict=True)])
    (tmp_path / "metadata.csv").write_text(told.getvalue())
    assert captions(tmp_path) == {name: (text,) for name, text in zip(names, texts, strict=True)}


def test_splits_with_a_table_each(tmp_path: Path) -> None:
    fill(tmp_path, ["train2014/a.jpg", "val2014/b.jpg", "poster.jpg"])
    metadata(tmp_path / "train2014", [("a.jpg", "x")])
    (tmp_path / "val2014/metadata.jsonl").write_text('{"image": "b.jpg", "caption": "y", "more": 1}')
    with pytest.raises(SourceError, match=r"several sets: train2014, val2014.*--split train2014"):
        captions(tmp_path)
    assert captions(tmp_path, split="train2014") == {"train2014/a.jpg": ("x",)} and captions(tmp_path / "train2014") == {
        "a.jpg": ("x",)
    }
    source = Folder(tmp_path, split="val2014")
    assert [row.captions for row in source.rows(Subset())] == [("y",)]
    assert source.findings.left_out == {"pictures of other splits": 2} and source.words()[-2:] == ["--split", "val2014"]
    with pytest.raises(SourceError, match="no split 'val2017'; did you mean 'val2014'"):
        captions(tmp_path, split="val2017")


def test_splits_with_one_table_above_them(tmp_path: Path) -> None:
    """Of which stock imagefolder drops every caption, and makes a column `label` of the folders' names."""
    names = ["train/a.jpg", "train/b.jpg", "validation/c.jpg"]
    metadata(fill(tmp_path, names), [(name, f"of {name}") for name in names])
    stock = datasets.load_dataset("imagefolder", data_dir=str(tmp_path))
    assert all("text" not in rows.column_names for rows in stock.values())
    assert captions(tmp_path, split="train") == {name: (f"of {name}",) for name in names[:2]}
    source = Folder(tmp_path, split="validation")
    assert len(list(source.rows(Subset()))) == 1 and source.findings.left_out["captions of other splits"] == 2
    data = load_captioned(tmp_path, split="train")
    assert len(data) == 2 and "--split train" in str(data.recipe)


def test_a_picture_of_a_train_is_no_split(tmp_path: Path) -> None:
    names = ["train-station.jpg", *(f"{n}.jpg" for n in range(9))]
    metadata(fill(tmp_path, names), [(name, "x") for name in names])
    assert len(captions(tmp_path)) == 10
    fill(tmp_path / "things", ["train/a.jpg", "car/a.jpg"])  # locomotives
    metadata(tmp_path / "things", [("train/a.jpg", "x"), ("car/a.jpg", "y")])
    assert len(captions(tmp_path / "things")) == 2


def test_long_and_dirty_captions_are_kept_and_tidied(tmp_path: Path) -> None:
    dirty = "\ufeff a\x00 dog\u200b,\x07\n two\tlines\u2028 \x85e\u0301 "
    metadata(fill(tmp_path, ["a.jpg", "b.jpg"]), [("a.jpg", "word " * 20_000), ("b.jpg", dirty)])
    data = load_captioned(tmp_path)
    assert data.dataset["captions"][1] == [dirty] and data.dataset["text"][1] == "a dog, two lines é"
    assert len(data.dataset["text"][0]) == 99_999
    report = check(tmp_path, count_tokens=lambda text: len(text.split()) + 2)
    assert [(cut.name, cut.tokens, len(cut.text)) for cut in report.cut] == [("a.jpg", 20_002, 60)]
    for form in ("metadata.jsonl", "metadata.csv"):
        (tmp_path / form).unlink(missing_ok=True)
    (tmp_path / "metadata.csv").write_text(f'file_name,text\na.jpg,"{"x" * 200_000}"\n')
    with pytest.raises(SourceError, match=r"metadata\.csv: line 2: .*field larger"):
        captions(tmp_path)


# Names

NAMES = [
    "a b.jpg",
    "#1 100%?.jpg",
    "set[1]*.jpg",
    "{a,b}.jpg",
    "café 你好 🐕‍🦺.jpg",
    "con.jpg",
    "aux.png.jpg",
    "nul.jpg",
    "-rf.jpg",
    "$HOME`id`.jpg",
    "a'b\"c.jpg",
    "&amp;<b>.jpg",
    "UPPER.JPG",
    "two.dots.jpg",
    "trailing .jpg",
    "x" * 240 + ".jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names(name: str, tmp_path: Path) -> None:
    metadata(fill(tmp_path / "table", [name]), [(name, "x")])
    assert captions(tmp_path / "table") == {name: ("x",)}
    fill(tmp_path / "beside", [name])
    (tmp_path / "beside" / f"{name.rsplit('.', 1)[0]}.txt").write_text("y")
    data = load_captioned(tmp_path / "beside")
    assert list(data.dataset["file_name"]) == [name] and data.dataset["captions"][0] == ["y"]


@pytest.mark.parametrize("name", ["set [v1]", "a*b?", "{x,y}", "100%", "#", "ü", "aux", "🐕", "-x", "a'b"])
def test_odd_folders_are_folders(name: str, tmp_path: Path) -> None:
    metadata(fill(tmp_path / name, ["in [1]/a.jpg"]), [("in [1]/a.jpg", "x")])
    data = load_captioned(tmp_path / name)
    assert list(data.dataset["file_name"]) == ["in [1]/a.jpg"] and check(tmp_path / name).flawless


def test_a_path_of_more_than_260_letters(tmp_path: Path) -> None:
    deep = "/".join(["a rather long name of a folder"] * 12)
    metadata(fill(tmp_path, [f"{deep}/a.jpg"]), [(f"{deep}/a.jpg", "x"), ("y" * 5000 + ".jpg", "too long for any disk")])
    source = Folder(tmp_path)
    assert [row.file_name for row in source.rows(Subset())] == [f"{deep}/a.jpg"]
    assert len(source.findings.faults["captions without a picture"]) == 1


def test_names_that_cannot_be_written_or_told_apart(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["a.jpg"]), [("a.jpg", "x")])
    raw = bytes(tmp_path) + b"/b\xff.jpg"
    with open(raw, "wb") as file:  # noqa: PTH123  (no str names it)
        file.write(encoded(picture(1)))
    data = load_captioned(tmp_path)
    assert data.left_out == {"files whose names are not UTF-8": 1} and any("b\\udcff.jpg" in note for note in data.notes)
    fill(tmp_path / "two", [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")])
    with pytest.raises(SourceError, match=r"two files are called 'é\.jpg', in two Unicode forms"):
        captions(tmp_path / "two", prompt="x")
    with pytest.raises(SourceError, match="the prompt is not UTF-8"):
        captions(fill(tmp_path / "one", ["a.jpg"]), prompt="a \udcff dog")


def test_folders_that_are_links_are_told_of(tmp_path: Path) -> None:
    metadata(fill(tmp_path, ["set/a.jpg", "more/b.jpg"]) / "set", [("a.jpg", "x")])
    (tmp_path / "set/more").symlink_to(tmp_path / "more")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")  # and no endless walk
    source = Folder(tmp_path / "set")
    assert len(list(source.rows(Subset()))) == 1
    assert source.findings.faults == {"folders that are links, which are not followed": ["again", "more"]}
