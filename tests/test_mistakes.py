"""A stranger's mistake at the command line is one line with what to do, the right exit code, and nothing half written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.paths import inside
from hf_diffusion_kit.data.place import check_writable
from hf_diffusion_kit.data.where import expanded
from hf_diffusion_kit.errors import SourceError, StorageError
from pictured import coco, fill, metadata

FOLDER = ["subset", "folder", "mine", "--out"]
COCO = ["subset", "coco", "--annotations", "set/annotations", "--images", "set", "--out", "out"]
ONLY = ["subset", "coco", "--out", "out"]
CHECK = ["check", "mine"]
WRONG: list[tuple[list[str], int, str]] = [
    (["subset"], 2, "arguments are required: source, --out"),
    (["subset", "cocoo", "--out", "out"], 2, "invalid choice: 'cocoo'"),
    (["subset", "hub", "--out", "out"], 2, "hfdk subset hub USER/NAME --out DIR"),
    (["subset", "hub", "mine", "--out", "out"], 3, "is no id of a dataset of the Hub"),
    (["subset", "folder", "", "--out", "out"], 2, "which one?"),
    (["subset", "folder", "mien", "--out", "out"], 3, "there is no such folder; did you mean 'mine'?"),
    (["subset", "folder", "no/where", "--out", "out"], 3, "there is no such folder"),  # and not that the Hub has none
    (["subset", "folder", "file.txt", "--out", "out"], 3, "is a file"),
    (["subset", "folder", "loop", "--out", "out"], 3, "loop: there is no such folder."),
    (["subset", "folder", "x" * 5000, "--out", "out"], 3, "too long a name"),
    (["subset", "folder", "empty", "--out", "out"], 3, "holds no picture"),
    (["subset", "folder", "bare", "--out", "out"], 3, "has pictures and no captions"),
    (["subset", "folder", "bare", "--prompt", "", "--out", "out"], 2, "--prompt: is empty"),
    (["subset", "folder", "pipe", "--out", "out"], 3, "a.txt: is no file"),
    (["subset", "folder", "-dash", "--out", "out"], 2, "unrecognized arguments: -dash"),
    ([*FOLDER, ""], 2, "--out: is empty"),
    ([*FOLDER, "-x"], 2, "--out=VALUE for one that begins with -"),
    ([*FOLDER, "/"], 5, "not an empty folder"),
    ([*FOLDER, "mine"], 5, "not an empty folder"),
    ([*FOLDER, "mine/out"], 2, "lies in the folder that is read"),
    ([*FOLDER, "mine/../mine/deep/out"], 2, "lies in the folder that is read"),
    ([*FOLDER, "file.txt"], 5, "not an empty folder"),
    ([*FOLDER, "file.txt/out"], 5, "file.txt is a file"),
    ([*FOLDER, "loop"], 5, "Too many levels of symbolic links"),
    ([*FOLDER, "loop/out"], 5, "Too many levels of symbolic links"),
    ([*FOLDER, "x" * 250], 5, "File name too long"),
    ([*FOLDER, "o*ut"], 5, "name another folder"),
    ([*FOLDER, "~nobody-of-this-name/x"], 3, "nobody has that home folder"),
    ([*FOLDER, "saved"], 5, "holds another subset"),
    ([*FOLDER, "torn"], 5, "holds another subset"),
    ([*COCO, "--count", "0"], 2, "count: must be above 0, got 0"),
    ([*COCO, "--count", "1.5"], 2, "invalid int value: '1.5'"),
    ([*COCO, "--count", "9" * 30], 2, "count: is too large"),
    ([*COCO, "--count", "9"], 3, "9 pictures are asked for and 6 are there"),
    ([*COCO, "--seed", "x"], 2, "invalid int value: 'x'"),
    ([*COCO, "--min-area", "nan"], 2, "min_area: must lie between 0 and 1, got nan"),
    ([*COCO, "--min-aspect", "1e400"], 2, "min_aspect: must be finite"),
    ([*COCO, "--min-aspect", "2", "--max-aspect", "1"], 2, "2.0 is above max_aspect 1.0"),
    ([*COCO, "--min-side", "99999"], 3, "pictures with a side under 99999 pixels: 6"),
    ([*COCO, "--category"], 2, "expected at least one argument"),
    ([*COCO, "--category", ""], 2, "category: a name is empty"),
    ([*COCO, "--category", "dgo"], 2, "did you mean 'dog'"),
    ([*COCO, "--category", "dog", "--not-category", "DOG"], 2, "'dog' is excluded and stands in category too"),
    ([*COCO, "--supercategory", "animal"], 2, "unknown supercategory 'animal'; there is none"),
    ([*COCO, "--license", "comercial"], 2, "did you mean 'commercial'"),
    ([*COCO, "--match", "("], 2, "is no regular expression"),
    ([*COCO, "--match", "-x"], 2, "--match=VALUE for one that begins with -"),
    ([*COCO, "--caption", "nth:0"], 2, "unknown caption policy"),
    ([*COCO, "--pixels", "non"], 2, "invalid choice: 'non'"),
    ([*COCO, "--split", ""], 2, "--split: is empty"),
    ([*COCO, "--split", "val2017"], 3, "did you mean 'val2014'"),
    ([*COCO, "--prompt", "x"], 2, "prompt: is for folders"),
    ([*COCO, "--no-crowd"], 2, "no category is asked for"),
    ([*COCO, "--crowd"], 2, "did you mean '--no-crowd'"),
    (ONLY, 2, "which annotations?"),
    ([*ONLY, "--annotations", "", "--split", "val2017"], 2, "--annotations: is empty"),  # and is not fetched instead
    ([*ONLY, "--annotations", "file.txt", "--images", "set"], 3, "is no JSON"),
    ([*ONLY, "--annotations", "set/val2014", "--images", "set"], 3, "has no captions_*.json"),
    ([*ONLY, "--annotations", "set/annotations", "--images", "loop"], 3, "there is no such folder"),
    ([*ONLY, "--annotations", "set/annotations", "--images", "mine"], 3, "6 of 6 pictures cannot be used"),
    (["check", ""], 2, "DIR: is empty"),
    (["check", "mien"], 3, "did you mean 'mine'"),
    (["check", "loop"], 3, "loop: there is no such folder."),
    (["check", "x" * 5000], 3, "too long a name"),
    ([*CHECK, "--resolution", "-1"], 2, "resolution: must be above 0, got -1"),
    ([*CHECK, "--near", "65"], 2, "must lie between 1 and 64, got 65"),
    ([*CHECK, "--against", "mine"], 2, "is the folder itself"),
    ([*CHECK, "--against", "nowhere"], 3, "there is no such folder"),
    ([*CHECK, "--base", ""], 2, "--base: is empty"),
    ([*CHECK, "--base", "x" * 5000], 2, "File name too long"),
    ([*CHECK, "--sheet", "a.jpg"], 2, "name a file that ends in .png"),
    ([*CHECK, "--sheet", "loop"], 2, "name a file that ends in .png"),
    ([*CHECK, "--sheet", "x" * 250 + ".png"], 5, "File name too long"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("made")
    coco(here / "set", 6)
    metadata(fill(here / "mine", ["a.jpg", "b.jpg"]), [("a.jpg", "one"), ("b.jpg", "two")])
    fill(here / "bare", ["a.jpg"])
    fill(here / "-dash", ["a.jpg"])
    os.mkfifo(fill(here / "pipe", ["a.jpg"]) / "a.txt")
    (here / "empty").mkdir()
    (here / "file.txt").write_text("hello")
    (here / "loop").symlink_to("loop")
    shutil.copytree(load_captioned(here / "bare", prompt="x").save(here / "saved"), here / "torn")
    (here / "torn/facts.json").write_text("[]")
    return here


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in folder.rglob("*")}


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=lambda value: str(value)[:60])
def test_it_is_one_line_and_leaves_nothing(
    words: list[str], code: int, said: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    before = tree(made)
    assert main(words) == code
    out, err = capsys.readouterr()
    line = err.replace("\r", "\n").strip().splitlines()[-1]  # above it at most a progress bar
    assert said in line and line.startswith("error[E-") and err.count("error[") == 1 and "Traceback" not in err and not out
    assert tree(made) == before


@pytest.fixture
def locked() -> Iterator[tuple[Path, Any]]:
    """A folder that anybody may enter, and what it takes to be nobody: root may write everywhere."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if os.geteuid() != 0:
        yield folder, lambda: None
    else:
        yield folder, lambda: os.setresuid(65534, 65534, 0)
        os.setresuid(0, 0, 0)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_or_written_is_said(locked: tuple[Path, Any]) -> None:
    folder, as_nobody = locked
    fill(folder / "shut", ["in/a.jpg"])
    (folder / "full").mkdir()
    for path in (folder / "shut", folder / "full"):
        path.chmod(0o000 if path.name == "shut" else 0o555)
    as_nobody()
    for path in (folder / "shut", folder / "shut/in"):
        with pytest.raises(SourceError, match=f"{path.name}: may not be read"):
            expanded(path)
        with pytest.raises(StorageError, match=r"Permission denied|may not be written to"):
            check_writable(path / "out", "name another")
    with pytest.raises(StorageError, match="full may not be written to"):
        check_writable(folder / "full/new/deep", "name another")
    with pytest.raises(SourceError, match=r"a\.jpg: cannot be read: Permission denied"):
        inside(folder / "shut", "in/a.jpg")
    assert expanded(folder / "full") == folder / "full"
