"""The doctor names what would stop a training or spoil it, and touches nothing."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_diffusion_kit import digits
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.check import check
from hf_diffusion_kit.errors import ConfigError, ModelError, SourceError
from hf_diffusion_kit.families import detect
from hf_diffusion_kit.families.tokens import token_counter
from pictured import coco, encoded, fill, metadata, picture


def ill(folder: Path) -> Path:
    fill(folder, ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/e.jpg"])
    (folder / "b.jpg").write_bytes(b"<html>404</html>")
    (folder / "c.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "sub/e.jpg").write_bytes(encoded(picture(5, (300, 200)))[:-200])
    return metadata(
        folder, [("a.jpg", "one"), ("b.jpg", "two"), ("c.jpg", "three"), ("c.jpg", " "), ("sub/e.jpg", "five"), ("z.jpg", "six")]
    )


def test_everything_is_found_at_once(tmp_path: Path) -> None:
    report = check(ill(tmp_path), resolution=40)
    assert {fault.name: fault.what for fault in report.broken} == {
        "b.jpg": "is an HTML page, perhaps a server's answer saved under a picture's name",
        "sub/e.jpg": "is cut short: the file ends before the picture does",
    }
    assert report.faults == {
        "captions without a picture": ["z.jpg (line 6)"],
        "blank captions": ["c.jpg"],
        "pictures without a caption": ["d.jpg"],
    }
    assert report.pictures == 3 and report.captions == 4 and report.same == (("a.jpg", "c.jpg"),)
    assert report.small == ("a.jpg (48x32)", "c.jpg (48x32)", "d.jpg (48x32)") and report.smallest == (48, 32)
    assert report.exit_code == 3 and not report.flawless


def test_broken_captions_do_not_hide_broken_pictures(tmp_path: Path) -> None:
    file = ill(tmp_path) / "metadata.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    report = check(tmp_path)
    assert [fault.name for fault in report.broken] == ["metadata.jsonl: line 6", "b.jpg", "sub/e.jpg"]
    assert report.pictures == 3 and report.captions == 0


def test_a_good_set_is_flawless_in_every_form(tmp_path: Path) -> None:
    assert check(coco(tmp_path / "coco"), resolution=32).flawless
    saved = load_captioned("coco", annotations=tmp_path / "coco/annotations", images=tmp_path / "coco").save(tmp_path / "saved")
    report = check(saved)
    assert report.flawless and report.pictures == 6 and report.captions == 31 and report.exit_code == 0
    assert check(fill(tmp_path / "subject", ["a.jpg"]), prompt="a photo of sks dog").flawless
    assert check(tmp_path / "subject").broken[0].what == "has pictures and no captions"
    (tmp_path / "none").mkdir()
    assert check(tmp_path / "none").exit_code == 3
    with pytest.raises(SourceError, match="no such folder"):
        check(tmp_path / "nowhere")


def test_what_will_be_put_right_is_counted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    fill(tmp_path, ["a.jpg"])
    (tmp_path / "b.jpg").write_bytes(encoded(picture(1), exif=exif))
    (tmp_path / "c.png").write_bytes(encoded(picture(2, mode="L"), "PNG"))
    report = check(tmp_path, prompt="x")
    assert report.remarks == {
        "grey pictures": 1,
        "pictures with EXIF, GPS or comments, which are not kept": 1,
        "pictures that EXIF turns upright": 1,
    }
    assert report.flawless


def test_modes_and_names_of_another_format_are_counted(tmp_path: Path) -> None:
    for n, (mode, form) in enumerate((("RGB", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("L", "WEBP"))):
        fill(tmp_path, []).joinpath(f"{n}.{form.lower()}").write_bytes(encoded(picture(n, mode=mode), form))
    (tmp_path / "deep.png").write_bytes(encoded(Image.fromarray(np.full((20, 30), 40_000, np.uint16)), "PNG"))
    (tmp_path / "png.jpg").write_bytes(encoded(picture(9), "PNG"))
    report = check(tmp_path, prompt="x")
    assert report.modes == {"RGB": 3, "CMYK": 1, "P": 1, "RGBA": 1, "I;16": 1}  # WebP knows no grey
    assert report.misnamed == ("png.jpg (is a PNG)",) and report.flawless


def test_skipping_is_advised_for_pictures_alone(tmp_path: Path) -> None:
    mine = metadata(fill(tmp_path, ["a.jpg", "b.jpg"]), [("a.jpg", "x"), ("b.jpg", "y")])
    (mine / "b.jpg").write_bytes(b"")
    assert any("--on-bad-image skip goes on without such pictures" in advice for advice in check(mine).advice)
    (mine / "metadata.jsonl").write_text('{"file_name": "a.jpg",,}\n')
    assert check(mine).advice == ("2 files cannot be used: mend or remove what is named above",)
    fill(mine, ["a.jpg", "b.jpg"])
    assert check(mine).advice == ("1 file cannot be used: mend or remove what is named above",)


def test_pictures_that_look_the_same_are_paired_and_shown(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "a-again.jpg").write_bytes(encoded(picture(0).resize((96, 64)), quality=60))
    (tmp_path / "b-again.png").write_bytes(encoded(picture(1), "PNG"))
    shown: list[tuple[str, str, bytes, bytes]] = []
    report = check(tmp_path, prompt="x", beside=lambda pair, one, two: shown.append((pair.first, pair.second, one, two)))
    assert {(twin.first, twin.second) for twin in report.twins} == {("a-again.jpg", "a.jpg"), ("b-again.png", "b.jpg")}
    assert all(twin.distance <= report.near == 24 for twin in report.twins) and not report.same and not report.flawless
    assert {(first, second) for first, second, _, _ in shown} == {(twin.first, twin.second) for twin in report.twins}
    assert all(
        one == (tmp_path / first).read_bytes() and two == (tmp_path / second).read_bytes() for first, second, one, two in shown
    )
    assert any("2 pairs of pictures look the same" in advice for advice in report.advice)


def test_captions_that_the_tokenizer_cuts_are_counted_only_when_there_is_one(tmp_path: Path) -> None:
    metadata(
        fill(tmp_path, ["a.jpg", "b.jpg"]),
        [("a.jpg", "short"), ("b.jpg", "one two three four five six seven"), ("b.jpg", "nine")],
    )
    assert check(tmp_path).tokens is None and check(tmp_path).flawless
    report = check(tmp_path, count_tokens=lambda text: len(text.split()) + 2, tokens=7)
    assert [(cut.name, cut.tokens) for cut in report.cut] == [("b.jpg", 9)] and not report.flawless
    assert any("1 caption longer than the model's 7 tokens (up to 9)" in advice for advice in report.advice)
    asked: list[str] = []
    check(tmp_path, count_tokens=lambda text: len(asked.append(text) or text), tokens=77)  # type: ignore[func-returns-value]
    assert asked == []  # fewer bytes than tokens: nothing to count


def test_the_doctor_counts_tokens_as_training_does() -> None:
    """It reads the tokenizer alone; training asks the family, with its weights."""
    base = digits.path("digits")
    count, most = token_counter(base)
    family = detect(base).open(base)
    for text in ("a handwritten four", "four " * 40, "", "ein Hund, größer als 二 🐕"):
        told = family.count_tokens(text)
        assert count(text) == told.seen + told.cut and (told.cut > 0) == (count(text) > most)
    with pytest.raises(ModelError, match="cannot be opened"):
        token_counter(base / "vae")


def test_captions_that_say_nothing_of_their_picture_are_named(tmp_path: Path) -> None:
    """The student's: every picture with the words `COCO val`, or with its file's name."""
    names = [f"COCO_val2014_{n:012d}.jpg" for n in range(6)]
    metadata(fill(tmp_path / "one", names), [(name, "COCO val") for name in names])
    report = check(tmp_path / "one")
    assert report.shared == {"COCO val": 6} and not report.flawless
    assert any("6 of 6 pictures have the caption 'COCO val'" in advice for advice in report.advice)
    metadata(fill(tmp_path / "two", names), [(name, text) for n, name in enumerate(names) for text in (name, f"a dog {n}")])
    report = check(tmp_path / "two")
    assert report.like_names == tuple(names) and not report.shared
    assert check(fill(tmp_path / "three", names), prompt="a photo of sks dog").shared == {}  # one prompt for all was asked for
    subject = load_captioned(tmp_path / "three", prompt="a photo of sks dog")
    assert check(subject).flawless and check(subject.save(tmp_path / "saved")).flawless
    metadata(fill(tmp_path / "four", ["red car.jpg", "dog.jpg"]), [("red car.jpg", "red car"), ("dog.jpg", "dog")])
    assert check(tmp_path / "four").flawless  # short, and yet captions


def test_splits_are_looked_at_one_by_one_and_against_each_other(tmp_path: Path) -> None:
    names = ["train/a.jpg", "train/b.jpg", "val/c.jpg", "val/d.jpg"]
    metadata(fill(tmp_path, names), [(name, f"of {name}") for name in names])
    (tmp_path / "val/c.jpg").write_bytes((tmp_path / "train/a.jpg").read_bytes())
    (tmp_path / "val/d.jpg").write_bytes(encoded(picture(1).resize((96, 64))))
    report = check(tmp_path)
    assert report.sets == {"train": 2, "val": 2} and report.captions == 4 and not report.faults
    assert [(leak.first, leak.second) for leak in report.leaks] == [("train/a.jpg", "val/c.jpg"), ("train/b.jpg", "val/d.jpg")]
    assert report.leaks[0].how == "same bytes" and report.leaks[1].how.startswith("near-duplicate")
    assert any("2 pictures in more than one of train and val" in advice for advice in report.advice)
    assert check(tmp_path, split="train").flawless and check(tmp_path / "train", prompt="x").sets == {}


def test_2014_and_2017_are_known_for_the_same_pictures(tmp_path: Path) -> None:
    """By COCO's number, told by the name, where the file is another; not where the numbers only happen to be the same."""
    coco(tmp_path / "old", 4)
    fill(tmp_path / "new", [f"{n:012d}.jpg" for n in (3, 1, 2)])
    for n, content in ((1, encoded(picture(0), quality=50)), (2, encoded(picture(40))), (3, encoded(picture(2)))):
        (tmp_path / f"new/{n:012d}.jpg").write_bytes(content)
    (tmp_path / "new/broken.jpg").write_bytes(b"")
    report = check(tmp_path / "old", against=tmp_path / "new")
    first, third = (f"COCO_val2014_{n:012d}.jpg" for n in (1, 3))
    assert [(leak.first, leak.second, leak.how) for leak in report.leaks] == [
        (first, "new/000000000001.jpg", "COCO 1"),
        (third, "new/000000000003.jpg", "same bytes"),
    ]
    assert report.against == "new" and not report.flawless and report.exit_code == 0
    assert any(
        "of one COCO number, and not one picture: 1 (COCO_val2014_000000000002.jpg and new/000000000002.jpg" in n
        for n in report.notes
    )
    assert any("pictures of new that cannot be read and were not compared: 1" in note for note in report.notes)
    with pytest.raises(SourceError, match="no such folder"):
        check(tmp_path / "old", against=tmp_path / "gone")


@pytest.mark.parametrize("quality", [None, 50])
def test_a_copy_that_sorts_earlier_hides_no_picture_of_the_same_number(quality: int | None, tmp_path: Path) -> None:
    name = "000000000139.jpg"
    fill(tmp_path / "a", [name])
    (tmp_path / "a/000000000001_copy.jpg").write_bytes((tmp_path / "a" / name).read_bytes())
    (tmp_path / "b").mkdir()
    content = (tmp_path / "a" / name).read_bytes() if quality is None else encoded(picture(0), quality=quality)
    (tmp_path / "b" / name).write_bytes(content)
    report = check(tmp_path / "a", against=tmp_path / "b", prompt="x")
    assert not any("COCO number" in note for note in report.notes)
    assert "COCO 139" in [leak.how for leak in report.leaks] if quality else [leak.how for leak in report.leaks] == ["same bytes"]


def test_every_form_can_be_compared_with_every_other(tmp_path: Path) -> None:
    coco(tmp_path / "coco", 3)
    saved = load_captioned("coco", annotations=tmp_path / "coco/annotations", images=tmp_path / "coco").save(tmp_path / "saved")
    data = load_captioned(saved)
    data.dataset.to_parquet(tmp_path / "parquet/rows.parquet")
    fill(tmp_path / "concepts/thing", ["a.jpg", "b.jpg", "c.jpg"])
    told = '[{"instance_prompt": "sks thing", "instance_data_dir": "thing"}]'
    (tmp_path / "concepts/concepts_list.json").write_text(told)
    forms = [tmp_path / "coco", tmp_path / "coco/val2014", saved, tmp_path / "parquet", tmp_path / "concepts"]
    for form in forms:
        for other in {tmp_path / "coco", saved, tmp_path / "concepts"} - {form}:
            report = check(form, against=other)
            assert report.pictures == 3 and report.exit_code == 0 and not report.faults and len(report.leaks) == 3, (form, other)
    data.dataset.to_parquet(tmp_path / "parts/data/train-00000-of-00001.parquet")
    data.dataset.select([2]).to_parquet(tmp_path / "parts/data/test-00000-of-00001.parquet")
    report = check(tmp_path / "parts")
    assert (
        report.sets == {"train": 3, "test": 1}
        and len(report.leaks) == 1
        and check(tmp_path / "parts", split="test").pictures == 1
    )
    with pytest.raises(SourceError, match=r"several sets: train, test.*--split train"):
        load_captioned(tmp_path / "parts")
    assert len(load_captioned(tmp_path / "parts", split="test")) == 1
    report = check(data, resolution=64)
    assert report.pictures == 3 and len(report.small) == 3 and report.captions == 16 and report.modes == {"RGB": 3}


def test_coco_pictures_that_nobody_describes_are_named(tmp_path: Path) -> None:
    fill(coco(tmp_path, 3), ["val2014/COCO_val2014_000000000009.jpg"])
    (tmp_path / "val2014/COCO_val2014_000000000002.jpg").write_bytes(encoded(picture(1, (60, 40))))
    assert check(tmp_path).remarks == {"pictures of another size than their annotations state": 1}
    assert check(tmp_path).faults == {"pictures that the annotations do not name": ["COCO_val2014_000000000009.jpg"]}
    (tmp_path / "annotations/captions_val2014.json").write_text("{")
    report = check(tmp_path)
    assert report.pictures == 4 and report.captions == 0 and "captions_val2014.json" in report.broken[0].name


def test_repair_is_for_a_look_at_the_rest(tmp_path: Path) -> None:
    file = metadata(fill(tmp_path, ["a.jpg", "b.jpg"]), [("a.jpg", "one"), ("b.jpg", "two")]) / "metadata.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert check(tmp_path).exit_code == 3
    report = check(tmp_path, repair=True)
    assert report.exit_code == 0 and report.captions == 1 and report.pictures == 2
    assert report.faults["lines cut short that were left out, as asked (repair)"][0].startswith(
        "metadata.jsonl: line 2, which begins"
    )


def test_the_command_counts_tokens_and_shows_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata(fill(tmp_path / "mine", ["a.jpg", "b.jpg"]), [("a.jpg", "a handwritten four " * 20), ("b.jpg", "a four")])
    (tmp_path / "mine/b2.png").write_bytes(encoded(picture(1), "PNG"))
    fill(tmp_path / "other", ["a.jpg"])
    monkeypatch.chdir(tmp_path)
    assert main(["check", "mine", "--base", "digits", "--against", "other", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"] == 16 and [cut["name"] for cut in told["cut"]] == ["a.jpg"]
    assert [leak["how"] for leak in told["leaks"]] == ["same bytes"] and told["alike_sheet"] == "mine-check-alike.png"
    assert [(twin["first"], twin["second"]) for twin in told["twins"]] == [("b.jpg", "b2.png")]
    assert len(told["advice"]) >= 4 and told["faults"] == {"pictures without a caption": ["b2.png"]}
    with Image.open(tmp_path / "mine-check-alike.png") as page:
        assert page.width > 800
    assert main(["check", "mine", "--split", "val"]) == 3  # it is one set
    assert main(["check", "mine", "--strict"]) == 3
    out = capsys.readouterr().out
    assert "tokens were not counted; name the --base" in out and "to do: pictures without a caption: 1; write captions" in out
    assert main(["check", "mine", "--base", "nothing"]) == 2
    for near in ("0", "65"):
        assert main(["check", "mine", "--near", near]) == 2
    assert "near: must lie between 1 and 64, got 65" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ill(tmp_path / "mine")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(folder), "--resolution", "40", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["sheet"] == "mine-check.png" and len(told["broken"]) == 2 and told["exit_code"] == 3
    with Image.open(tmp_path / "mine-check.png") as page:
        assert page.width > 400
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert main(["check", str(folder)]) == 3
    out = capsys.readouterr().out
    assert "broken: b.jpg: is an HTML page" in out and "cannot be trained on as it is" in out
    fine = fill(tmp_path / "fine", ["a.jpg"])
    assert main(["check", str(fine), "--prompt", "x", "--sheet", str(tmp_path / "s.png")]) == 0
    capsys.readouterr()
    assert main(["check", str(fine), "--prompt", "x", "--resolution", "512"]) == 0
    assert capsys.readouterr().out.endswith("\ncan be trained on\n")
    assert main(["check", str(fine), "--prompt", "x", "--resolution", "512", "--strict"]) == 3
    assert capsys.readouterr().out.endswith("\nnot flawless, which --strict asks for (it can be trained on)\n")
    assert main(["check", str(fine), "--prompt", "x", "--sheet", str(tmp_path / "no/s.png")]) == 5
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_is_named_without_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.parquet").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "mine", Path("mine")):
        (fault,) = check(path).broken
        assert fault.name == "mine" and fault.what.endswith("No such file or directory")
        assert str(tmp_path) not in repr(fault)
    (tmp_path / "mine/a.parquet").unlink()
    (tmp_path / "mine/a.parquet").mkdir()
    assert [str(tmp_path) in repr(fault) for fault in check(tmp_path / "mine").broken] == [False]


def test_the_page_of_pictures_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = metadata(fill(tmp_path / "mine", ["a.jpg"]), [("a.jpg", "one")])
    monkeypatch.chdir(folder)
    assert main(["check", "."]) == 0 and main(["check", "."]) == 0  # not a picture of the set the second time
    assert "flawless" in capsys.readouterr().out and (tmp_path / "mine-check.png").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "metadata.jsonl"]
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "all").mkdir()
    (folder / "metadata.jsonl").write_text("{")  # whoever reads the folder says so
    for sheet, code, said in (
        ("../notes.txt", 2, "name a file that ends in .png"),
        ("a.jpg", 2, "name a file that ends in .png"),
        ("a.png", 2, "lies in the folder that is looked at"),
        ("../no/s.png", 5, "there is no folder ../no"),
        ("../notes.txt/s.png", 5, "notes.txt is a file"),
        ("../all/x.png/", 0, ""),
    ):
        assert main(["check", ".", "--sheet", sheet]) == (code or 3), sheet
        out, err = capsys.readouterr()
        assert said in err and bool(out) == (code == 0)
    assert (tmp_path / "notes.txt").read_text() == "kept" and [path.name for path in (tmp_path / "all").iterdir()] == ["x.png"]


def test_a_folder_is_not_compared_with_itself(tmp_path: Path) -> None:
    fill(tmp_path / "mine", ["a.jpg"])
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(ConfigError, match="against: is the folder itself"):
        check(tmp_path / "mine", against=tmp_path / "link", prompt="x")


def test_what_cannot_be_read_is_one_finding(tmp_path: Path) -> None:
    folder = fill(tmp_path / "mine", ["a.jpg"])
    (folder / "b.jpg").symlink_to("b.jpg")
    (folder / "c.jpg").symlink_to("gone")
    report = check(folder, prompt="x")
    assert {fault.name: fault.what for fault in report.broken} == dict.fromkeys(
        ["b.jpg", "c.jpg"], "is a link that leads nowhere"
    )
    os.mkfifo(folder / "a.txt")  # it would be waited for without end
    assert [fault.what for fault in check(folder).broken if fault.name == "a.txt"] == ["is no file"]
    (folder / "a.txt").unlink()
    os.mkfifo(folder / "metadata.jsonl")
    assert [fault.what for fault in check(folder).broken if fault.name == "metadata.jsonl"] == ["is no file"]


def test_a_home_of_nobody_is_one_line() -> None:
    for look in (check, load_captioned):
        with pytest.raises(SourceError, match="~nobody-of-this-name/x: nobody has that home folder"):
            look("~nobody-of-this-name/x")
