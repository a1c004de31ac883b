"""The doctor names what would stop a training or spoil it, and touches nothing."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.check import check
from hf_diffusion_kit.errors import SourceError
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
    assert main(["check", str(fine), "--prompt", "x", "--resolution", "512", "--strict"]) == 3
    assert main(["check", str(fine), "--prompt", "x", "--sheet", str(tmp_path / "no/s.png")]) == 5
    assert "Traceback" not in capsys.readouterr().err
