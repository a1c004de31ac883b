"""Annotations are read in windows, and their index is never stale, never half, never trusted when it is damaged."""

import json
import os
import pickle
import random
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hf_diffusion_kit.data import index as index_module
from hf_diffusion_kit.data.annotations import CAPTIONS, stream
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.index import open_index
from hf_diffusion_kit.data.index_columns import FILES, MANIFEST, SCHEMA, is_whole
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.data.where import cache_folder
from hf_diffusion_kit.errors import SourceError, StorageError
from pictured import coco
from test_coco import BAD

WINDOWS = (1, 7, 50, 333, 1 << 20)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def nasty(count: int, rng: random.Random) -> dict[str, Any]:
    """Everything that a window could be cut at wrongly."""
    content = {
        "info": {"a": [1, {"b": "}, {"}]},
        "images": [{"id": i, "file_name": f"{i}.jpg", "extra": [{"q": 1}, {"q": "]}"}]} for i in range(count)],
        "junk": [1, 2, [3]],
        "licenses": None if count % 2 else [],
        "annotations": [
            {
                "image_id": i,
                "id": i,
                "caption": f'é }}, {{"x" \\ "}} ]}} {i}',
                "segmentation": [[1.5], [2]],
                "more": [{"a": 1}, {}],
            }
            for i in range(count)
        ],
        "others": [{"z": 1}, {"z": 2}],
    }
    keys = list(content)
    rng.shuffle(keys)
    return {key: content[key] for key in keys}


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_gives_the_same_records(window: int, indent: int | None, tmp_path: Path) -> None:
    rng = random.Random(window)
    file = tmp_path / "captions_x.json"
    for count in (0, 1, 2, 30):
        content = nasty(count, rng)
        file.write_text(json.dumps(content, indent=indent, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
        got: dict[str, list[Any]] = {}
        seen = bytearray()
        for name, part in stream(file, CAPTIONS, window=window, watch=seen.extend):
            got.setdefault(name, []).extend(part)
        assert seen == file.read_bytes()
        assert [image.id for image in got["images"]] == list(range(count))
        assert [note.caption for note in got["annotations"]] == [note["caption"] for note in content["annotations"]]


@pytest.mark.parametrize("window", WINDOWS[:3])
@pytest.mark.parametrize("case", [name for name in BAD if name not in ("way out", "root", "address", "twice")])
def test_a_bad_file_is_the_same_error_in_every_window(case: str, window: int, tmp_path: Path) -> None:
    file = tmp_path / "captions_x.json"
    file.write_bytes(BAD[case][0])
    with pytest.raises(SourceError, match=BAD[case][1]):
        for _ in stream(file, CAPTIONS, window=window):
            pass


def test_an_error_late_in_a_file_names_its_place(tmp_path: Path) -> None:
    file = tmp_path / "captions_x.json"
    notes = [{"image_id": 1, "id": i, "caption": "x" * 20} for i in range(500)]
    text = json.dumps({"images": [], "annotations": [*notes, {"image_id": 1, "id": 7, "caption": 5}, *notes]})
    file.write_text(text)
    with pytest.raises(SourceError, match=r"annotations\[500\].caption: expected str"):
        list(stream(file, CAPTIONS, window=1000))
    broken = text.replace('"caption": 5', '"caption": ?')
    file.write_text(broken)
    with pytest.raises(SourceError, match=rf"byte {broken.index('?')}\)"):
        list(stream(file, CAPTIONS, window=1000))


def test_msgspec_counts_as_the_reader_believes() -> None:
    """The reader takes two facts from msgspec's words; this fails loudly when they change."""
    decoder = msgspec.json.Decoder(list[msgspec.Raw])
    with pytest.raises(msgspec.DecodeError, match=r"trailing characters \(byte 10\)"):
        decoder.decode(b'[{"x":1}], "b"')  # the comma is byte 9
    with pytest.raises(msgspec.DecodeError, match=r"\(byte 9\)"):
        decoder.decode(b'[{"x":1} {"x":2}]')  # the second brace is byte 9
    with pytest.raises(msgspec.DecodeError, match="truncated"):
        decoder.decode(b'[{"x":"a}]')


def pair(folder: Path, **options: Any) -> tuple[Path, Path]:
    """COCO files that have been at rest for long, as far as their own times tell."""
    notes = coco(folder, **options) / "annotations"
    return notes / "captions_val2014.json", notes / "instances_val2014.json"


def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made a moment ago pass for files at rest."""
    monkeypatch.setattr(index_module, "AT_REST", -(10**12))


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose JSON is read from here on."""
    read: list[Path] = []
    inner = index_module.build

    def watched(folder: Path, captions: Path, *rest: Any) -> Any:
        read.append(captions)
        return inner(folder, captions, *rest)

    monkeypatch.setattr(index_module, "build", watched)
    return read


def test_it_is_found_again_without_reading_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pair(tmp_path)
    at_rest(monkeypatch)
    read = reads(monkeypatch)
    first = open_index(*files)
    again = open_index(*files)
    assert len(read) == 1 and again == first and len(again) == 6 and again.split == "val2014"
    assert list(again.columns(np.arange(6)).schema) == list(SCHEMA)
    assert pickle.loads(pickle.dumps(again)).column("image_id", np.array([2])) == ["3"]


def test_content_decides_not_names_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions, instances = pair(tmp_path)
    at_rest(monkeypatch)
    first = open_index(captions, instances)
    before = captions.stat()
    text = captions.read_text()
    captions.write_text(text.replace("caption 0 of 1.", "caption 9 of 1."))  # as long as before
    os.utime(captions, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = open_index(captions, instances)
    assert changed.digest != first.digest and "caption 9 of 1." in str(changed.column("captions", np.array([0])))
    captions.write_text(text)
    assert open_index(captions, instances).digest == first.digest
    copy = tmp_path / "copy" / captions.name
    copy.parent.mkdir()
    copy.write_text(text)
    assert open_index(copy, instances) == first
    assert open_index(captions).digest != first.digest  # without the objects it is another
    instances.write_text(instances.read_text().replace('"dog"', '"cat"'))
    assert "cat" in open_index(captions, instances).categories


def test_a_file_that_may_still_change_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes within one tick of the clock leave the same times; only a file at rest is known by them."""
    files = pair(tmp_path)
    read = reads(monkeypatch)
    open_index(*files)
    open_index(*files)
    assert len(read) == 2
    monkeypatch.setattr(index_module, "AT_REST", 1)
    time.sleep(0.01)
    open_index(*files)
    open_index(*files)
    assert len(read) == 3


def test_other_code_reads_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pair(tmp_path)
    at_rest(monkeypatch)
    first = open_index(*files)
    monkeypatch.setattr(index_module, "code_mark", lambda: "another")
    assert open_index(*files).digest != first.digest


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "manifest", "empty", "pointer"])
def test_a_damaged_index_is_made_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pair(tmp_path)
    at_rest(monkeypatch)
    first = open_index(*files)
    rows = first.columns(np.arange(6)).to_pylist()
    monkeypatch.setattr(index_module, "_WHOLE", {})  # as a new process
    target = first.folder / "captions.bin"
    content = target.read_bytes()
    if damage == "cut":
        target.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        place = content.index(b"caption 3 of 4")
        target.write_bytes(content[:place] + b"C" + content[place + 1 :])
    elif damage == "gone":
        (first.folder / "width.npy").unlink()
    elif damage == "pointer":
        next(first.folder.parent.glob("at-*.json")).write_text('{"signature": 1')
    else:
        (first.folder / "manifest.json").write_text("" if damage == "empty" else '{"files": {}')
    again = open_index(*files)
    assert is_whole(again.folder) and again.columns(np.arange(6)).to_pylist() == rows
    assert ("damaged" in " ".join(again.findings().notes)) == (damage != "pointer")


def test_many_at_once_make_one(tmp_path: Path) -> None:
    files = pair(tmp_path)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(open_index(*files))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert not list(cache_folder("annotations").glob(".tmp-*"))


def test_it_works_where_the_home_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    assert len(open_index(*pair(tmp_path / "set"))) == 6
    assert list((tmp_path / "tmp").glob("hf_diffusion_kit-*/annotations/*"))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a temporary folder of one's own")
def test_a_trap_in_the_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "~nobody-of-this-name/hf")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = tmp_path / f"hf_diffusion_kit-{os.getuid()}"
    assert cache_folder("x") == usual / "x" and usual.stat().st_mode & 0o777 == 0o700
    usual.chmod(0o777)  # anybody may write there
    other = cache_folder("x")
    assert other.parent.parent == tmp_path and other.parent != usual and other == cache_folder("x")
    (usual / "x").rmdir()
    usual.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    usual.symlink_to(tmp_path / "theirs")
    assert cache_folder("y") == other.with_name("y") and not list((tmp_path / "theirs").iterdir())


def test_a_home_that_may_not_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places = {cache_folder(name).parent for name in ("one", "two", "two")}
    assert len(places) == 1
    (told,) = (record.getMessage() for record in caplog.records if "may not be written" in record.getMessage())
    assert str(tmp_path / "file") in told and str(places.pop()) in told and "set HF_HOME" in told


def test_no_place_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file: can be written neither here nor .*Fix: set HF_HOME"):
        cache_folder("spool")


def test_ids_may_be_numbers_texts_or_both(tmp_path: Path) -> None:
    captions, instances = pair(tmp_path, count=12)
    expected = list(Coco(captions.parent, None).rows(Subset(category=("dog",))))
    content = json.loads(captions.read_text())
    for at, image in enumerate(content["images"]):
        image["id"] = str(image["id"]) if at % 2 else image["id"]
    captions.write_text(json.dumps(content))
    assert list(Coco(captions.parent, None).rows(Subset(category=("dog",)))) == expected and len(expected) == 6
    content["images"] = [{**image, "id": f"pic-{image['id']}"} for image in content["images"]]
    content["annotations"] = [{**note, "image_id": f"pic-{note['image_id']}"} for note in content["annotations"]]
    captions.write_text(json.dumps(content))
    told = json.loads(instances.read_text())
    told["annotations"] = [{**thing, "image_id": f"pic-{thing['image_id']}"} for thing in told["annotations"]]
    instances.write_text(json.dumps(told))
    named = list(Coco(captions.parent, None).rows(Subset(category=("dog",))))
    assert [row.image_id for row in named] == [f"pic-{row.image_id}" for row in expected]
    assert [row.captions for row in named] == [row.captions for row in expected]


def test_a_set_larger_than_one_batch_comes_back_in_any_order(tmp_path: Path) -> None:
    count = 9000
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(count)]
    notes = [{"image_id": n, "id": n, "caption": f"this is {n}"} for n in reversed(range(count))]
    file = tmp_path / "captions_many.json"
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    index = open_index(file)
    places = np.random.default_rng(0).permutation(count)[:500]
    assert index.columns(places)["image_id"].to_pylist() == [str(place) for place in places]
    assert index.columns(places)["captions"].to_pylist() == [[f"this is {place}"] for place in places]
    assert index.columns(np.arange(count)).num_rows == len(list(index.rows(np.arange(count), None))) == count
    assert index.columns(np.zeros(0, dtype=np.int64)).num_rows == 0


def test_half_a_surrogate_pair_harms_nobody(tmp_path: Path) -> None:
    file = tmp_path / "captions_x.json"
    file.write_bytes(
        b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a \\ud83d dog"}]}'
    )
    try:
        captions = open_index(file).column("captions", np.array([0]))
    except SourceError as error:
        assert "annotations" in str(error) or "byte" in str(error)
    else:
        assert captions == [["a ? dog"]]


def test_a_number_that_the_window_cuts_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "captions_x.json"
    file.write_text('{"n":1234567890,"images":[],"annotations":[],"m":-1.5e10}')
    for window in range(1, 40):
        assert set(dict(stream(file, CAPTIONS, window=window))) == {"images", "annotations"}


def test_ids_keep_their_kind_in_every_window(tmp_path: Path) -> None:
    """7 and "007" are two pictures, also between numbers."""
    file = tmp_path / "captions_x.json"
    images = [{"id": n, "file_name": f"{i}.jpg"} for i, n in enumerate([1, "007", 7])]
    notes = [{"image_id": n, "id": i, "caption": f"said of {n!r}"} for i, n in enumerate([1, "007", 7])]
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    index = open_index(file)
    assert index.column("image_id", np.arange(3)) == ["1", "7", "007"]
    assert index.column("captions", np.arange(3)) == [["said of 1"], ["said of 7"], ["said of '007'"]]


def test_every_byte_is_read_once_and_again_when_the_files_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that finds the files as they were checked does not read them; a change that keeps size and times is seen."""
    files = pair(tmp_path)
    at_rest(monkeypatch)
    first = open_index(*files)
    looked: list[Path] = []

    def watched(folder: Path) -> bool:
        looked.append(folder)
        return is_whole(folder)

    monkeypatch.setattr(index_module, "is_whole", watched)
    for _ in range(3):
        monkeypatch.setattr(index_module, "_WHOLE", {})  # as a new process
        assert open_index(*files) == first
    assert len(looked) == 1
    target = first.folder / "thing_share.npy"
    before, content = target.stat(), target.read_bytes()
    target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = open_index(*files)  # the same process
    assert target.read_bytes() == content and "damaged" in " ".join(again.findings().notes)


def test_a_manifest_that_says_something_else_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pair(tmp_path)
    at_rest(monkeypatch)
    manifest = open_index(*files).folder / "manifest.json"
    for old, new in (('"pictures": 6', '"pictures": 5'), ('"files": {', '"none": {')):
        assert old in manifest.read_text()
        manifest.write_text(manifest.read_text().replace(old, new))
        assert len(open_index(*files)) == 6 and old in manifest.read_text()


def test_what_waits_on_disk_while_an_index_is_made_is_gone(tmp_path: Path) -> None:
    folder = open_index(*pair(tmp_path)).folder
    assert {path.name for path in folder.iterdir()} == {*FILES, MANIFEST}


@pytest.mark.parametrize("width", [1 << 40, -1e300, 1e300])
def test_a_size_beyond_all_measure_is_one_line(width: float, tmp_path: Path) -> None:
    file = tmp_path / "captions_x.json"
    image = {"id": 3, "file_name": "a.jpg", "width": width, "height": 2}
    file.write_text(json.dumps({"images": [image], "annotations": [{"image_id": 3, "caption": "x"}]}))
    with pytest.raises(SourceError, match=r"image 3 is .* pixels"):
        open_index(file)
