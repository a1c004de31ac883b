"""Only what a subset needs is fetched, once, whole; and whatever goes wrong is one line or one row."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import faulty
from hf_diffusion_kit.data import archives
from hf_diffusion_kit.data.archives import Archive, take_out
from hf_diffusion_kit.data.arrivals import place_of
from hf_diffusion_kit.data.base import Row
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.downloads import Downloads
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import ConfigError, HubError, KitError, SourceError, StorageError
from hf_diffusion_kit.web import Patience
from pictured import coco, encoded, picture

SPLIT = "val2014"
ZIP = "/annotations/annotations_trainval2014.zip"
NO_PAUSE = Patience(pause=0, stall=5)
COUNT = 8


def zipped(path: Path, members: dict[str, bytes | str]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def archive_like(content: bytes) -> Archive:
    return Archive(ZIP[1:], len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[Row]]:
    """What COCO's server has, and the rows of its annotations."""
    folder = tmp_path_factory.mktemp("site")
    for split in (SPLIT, "train2014"):
        coco(folder, COUNT, split)
    notes = {f"annotations/{file.name}": file.read_bytes() for file in sorted((folder / "annotations").iterdir())}
    extra = {"annotations/person_keypoints_val2014.json": b"{}", "../outside.json": b"{}", "/absolute.json": b"{}"}
    files = {f"/{SPLIT}/{file.name}": file.read_bytes() for file in (folder / SPLIT).iterdir()}
    files[ZIP] = zipped(folder / "a.zip", {**extra, **notes})
    return files, list(Coco(folder / "annotations", None, SPLIT).rows(Subset()))


@pytest.fixture
def server(site: Any) -> Iterator[faulty.Faulty]:
    with faulty.Faulty(site[0]) as running:
        yield running


@pytest.fixture
def rows(site: Any) -> list[Row]:
    return list(site[1])


def downloads(server: faulty.Faulty, folder: Path, **options: Any) -> Downloads:
    archive = archive_like(server.files[ZIP])
    archives = {"train2014": archive, SPLIT: archive}
    return Downloads(server.url, folder, **{"patience": NO_PAUSE, "archives": archives, **options})


def path_of(row: Row) -> str:
    return f"/{SPLIT}/{row.file_name}"


def bytes_of(server: faulty.Faulty, rows: list[Row]) -> list[bytes]:
    return [server.files[path_of(row)] for row in rows]


def files_in(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts
    )


# Pictures


def test_only_what_is_asked_for_comes_and_only_once(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    chosen = [rows[5], rows[1], rows[3]]
    for _ in range(2):
        found = list(downloads(server, tmp_path).contents(chosen))
        assert found == list(zip(chosen, bytes_of(server, chosen), strict=True))
    assert server.counts() == {path_of(row): 1 for row in chosen}
    assert files_in(tmp_path) == [f"manifest_{SPLIT}.jsonl", *sorted(path_of(row)[1:] for row in chosen)]
    entry = json.loads((tmp_path / f"manifest_{SPLIT}.jsonl").read_text().splitlines()[0])
    content = server.files[f"/{SPLIT}/{entry['name']}"]
    assert entry["bytes"] == len(content)
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["etag"] == hashlib.md5(content).hexdigest()
    assert entry["fetched"].endswith("Z")


@pytest.mark.parametrize("connections", [1, 3])
def test_it_works_ahead_a_little_and_in_order(connections: int, server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    for row in rows:
        server.always[path_of(row)] = lambda asked, content: (time.sleep(0.02), faulty.proper(asked, content))[1]
    coming = downloads(server, tmp_path, connections=connections).contents(rows)
    assert next(coming)[0] == rows[0]
    time.sleep(0.2)
    assert len(server.requests) <= 1 + connections
    assert [row for row, _ in coming] == rows[1:]
    assert server.most_at_once == server.connections == connections


TROUBLED = {
    "503 Slow Down": [faulty.status(503, b"<Code>SlowDown</Code>", Retry_After="0")] * 3,
    "reset": [faulty.reset] * 2,
    "cut": [faulty.cut(300)] * 2,
    "an HTML page": [faulty.page],
    "an HTML page as a picture": [faulty.page_in_disguise],
    "a page of XML": [faulty.plain(b"<?xml version='1.0'?><Error/>", ETag="")],
    "half of it, as if it were whole": [
        lambda asked, content: faulty.plain(content[: len(content) // 2], ETag="")(asked, content)
    ],
    "another picture, by its MD5": [faulty.plain(encoded(picture(99)))],
    "nothing": [faulty.plain(b"", ETag="")],
    "gzip, cut": [faulty.zipped(whole=False)],
}


@pytest.mark.parametrize("faults", TROUBLED.values(), ids=TROUBLED)
def test_trouble_that_passes_is_not_seen(
    faults: list[faulty.Fault], server: faulty.Faulty, rows: list[Row], tmp_path: Path
) -> None:
    for row in rows[:4]:
        server.faults[path_of(row)] = list(faults)
    source = downloads(server, tmp_path)
    assert [content for _, content in source.contents(rows[:5])] == bytes_of(server, rows[:5])
    assert len(server.requests) == 5 + 4 * len(faults)
    assert source.findings.notes == []
    assert not [name for name in files_in(tmp_path) if ".part" in name]


def later(fault: faulty.Fault) -> faulty.Fault:
    """So that others come meanwhile."""
    return lambda asked, content: (time.sleep(0.05), fault(asked, content))[1]


SOME = [
    faulty.status(503),
    faulty.status(404),
    faulty.reset,
    faulty.hung_up,
    faulty.cut(0),
    faulty.cut(700),
    faulty.page,
    faulty.page_in_disguise,
    faulty.plain(b"", ETag=""),
    faulty.plain(Content_Length="99999"),
    faulty.plain(Content_Length=""),
    faulty.plain(Content_Length="300", ETag=""),
    faulty.chunked(end=False),
    faulty.zipped(),
    faulty.zipped(lie=True),
    faulty.half_headers,
    faulty.garbage,
    faulty.other_part,
    faulty.no_ranges,
    faulty.redirect("/nowhere"),
    faulty.proper,
]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_a_picture_is_right_or_not_there(
    seed: int, server: faulty.Faulty, rows: list[Row], tmp_path: Path
) -> None:
    """Any faults in any order, over several runs; and when they end, everything is there."""
    chance = random.Random(seed)
    for _ in range(3):
        server.faults = {path_of(row): chance.choices(SOME, k=chance.randrange(12)) for row in rows}
        try:
            for row, content in downloads(server, tmp_path).contents(rows):
                assert isinstance(content, SourceError) or content == server.files[path_of(row)]
        except HubError as error:
            assert "\n" not in error.line()
        for row in rows:
            path = tmp_path / path_of(row)[1:]
            assert not path.exists() or path.read_bytes() == server.files[path_of(row)]
    server.faults.clear()
    assert [content for _, content in downloads(server, tmp_path).contents(rows)] == bytes_of(server, rows)


BAD = {
    "not there": (faulty.status(404), "is not there: the server answered 404"),
    "not for everybody": (faulty.status(403), "may not be read"),
    "an HTML page": (faulty.page, "sent an HTML page instead"),
    "an HTML page as a picture": (faulty.page_in_disguise, "is an HTML page, perhaps"),
    "text": (faulty.plain(b"hello", ETag=""), "is no picture that is known here"),
    "empty": (faulty.plain(b"", ETag=""), "is empty (0 bytes)"),
    "half": (faulty.plain(encoded(picture(3))[:400], ETag=""), "is cut short or damaged"),
    "flipped": (faulty.plain(encoded(picture(99))), "not what the server itself says"),
    "no end": (faulty.endless, "does not end"),
    "inside": (faulty.redirect("https://169.254.169.254/latest"), "was not asked"),
    "elsewhere": (faulty.redirect("https://elsewhere.example/a.jpg"), "leads to elsewhere.example and not to 127.0.0.1"),
    "a circle": (faulty.redirect("/a"), "redirects"),
    "always busy": (later(faulty.status(503)), "answered 503 Service Unavailable (6 times in a row), while others came"),
    "always cut": (later(faulty.cut(100)), "while others came"),
}


@pytest.mark.parametrize(("fault", "why"), BAD.values(), ids=BAD)
def test_a_bad_picture_is_one_row(
    fault: faulty.Fault, why: str, server: faulty.Faulty, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_diffusion_kit.data.arrivals.MOST_BYTES", 100_000)
    server.always[path_of(rows[1])] = fault
    server.always["/a"] = faulty.redirect("/a")
    found = [content for _, content in downloads(server, tmp_path).contents(rows[:4])]
    bad = found.pop(1)
    assert isinstance(bad, SourceError)
    assert why in str(bad)
    assert "\n" not in bad.line()
    assert found == bytes_of(server, [rows[0], *rows[2:4]])
    assert not (tmp_path / path_of(rows[1])[1:]).exists()
    assert rows[1].file_name not in (tmp_path / f"manifest_{SPLIT}.jsonl").read_text()


def test_a_network_that_is_down_is_one_line(rows: list[Row], server: faulty.Faulty, tmp_path: Path) -> None:
    source = replace(downloads(server, tmp_path), endpoint="http://127.0.0.1:9")  # the port of `discard`, where nobody is
    began = time.monotonic()
    with pytest.raises(HubError) as caught:
        list(source.contents(rows))
    assert time.monotonic() - began < 3
    line = caught.value.line()
    assert "nobody answers there (connection refused)" in line
    assert f"8 ({', '.join(row.file_name for row in rows[:5])} and 3 more) of 8 pictures still to come, about 1.3 MB" in line
    assert "\n" not in line
    with pytest.raises(HubError, match=r"annotations_trainval2014.zip is still to come, 0.1 MB"):
        source.annotations(SPLIT)


def test_a_server_that_goes_away_is_one_line_and_the_rest_comes_later(
    server: faulty.Faulty, rows: list[Row], tmp_path: Path
) -> None:
    for row in rows[3:]:
        server.always[path_of(row)] = faulty.hung_up
    coming = downloads(server, tmp_path, connections=1).contents(rows)
    assert [content for _, content in (next(coming), next(coming), next(coming))] == bytes_of(server, rows[:3])
    with pytest.raises(HubError, match=r"connection was cut \(6 times in a row\); 5 \(.*\) of 8 pictures still to come"):
        next(coming)
    server.always.clear()
    server.requests.clear()
    assert [content for _, content in downloads(server, tmp_path).contents(rows)] == bytes_of(server, rows)
    assert server.counts() == {path_of(row): 1 for row in rows[3:]}


def test_a_server_that_refuses_all_is_not_asked_for_all(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    many = [replace(rows[0], file_name=f"{n:012d}.jpg", coco_url="") for n in range(100)]
    with pytest.raises(HubError, match="not one of the first 20 pictures came; of the last: is not there"):
        list(downloads(server, tmp_path).contents(many))
    assert len(server.requests) <= 24


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_nothing_is_asked(
    name: str, server: faulty.Faulty, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for told in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(told, raising=False)
    list(downloads(server, tmp_path).contents(rows[:2]))
    monkeypatch.setenv(name, "1")
    away = Downloads(folder=tmp_path)
    assert [content for _, content in away.contents(rows[:2])] == bytes_of(server, rows[:2])
    with pytest.raises(HubError) as caught:
        next(away.contents(rows))
    assert f"6 ({rows[2].file_name}" in str(caught.value)
    assert f"of 8 pictures still to come, about 1.0 MB, and {name} is set" in str(caught.value)
    with pytest.raises(HubError, match=rf"annotations_trainval2014.zip is still to come, about 252.9 MB, and {name} is set"):
        away.annotations(SPLIT)
    (tmp_path / path_of(rows[0])[1:]).write_bytes(b"changed")
    with pytest.raises(HubError, match=f"not as it was when it was first fetched, and {name} is set"):
        list(away.contents(rows[:2]))


def test_a_changed_file_in_the_folder_is_fetched_anew(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    list(downloads(server, tmp_path).contents(rows))
    kept = (tmp_path / f"manifest_{SPLIT}.jsonl").read_text()
    for row in rows[:2]:
        path = tmp_path / path_of(row)[1:]
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    server.requests.clear()
    source = downloads(server, tmp_path)
    assert [content for _, content in source.contents(rows)] == bytes_of(server, rows)
    assert server.counts() == {path_of(row): 1 for row in rows[:2]}
    assert len(source.findings.notes) == 1
    assert "not as they were first fetched, and were asked for anew: 2 (" in source.findings.notes[0]
    assert (tmp_path / f"manifest_{SPLIT}.jsonl").read_text() == kept


def test_a_picture_that_the_server_has_changed_is_reported(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    list(downloads(server, tmp_path).contents(rows[:2]))
    (tmp_path / path_of(rows[0])[1:]).unlink()
    server.files[path_of(rows[0])] = encoded(picture(77))
    (_, first), (_, second) = downloads(server, tmp_path).contents(rows[:2])
    assert isinstance(first, SourceError)
    assert "is another picture than on 20" in str(first)
    assert f"delete its line from manifest_{SPLIT}.jsonl" in str(first)
    assert second == server.files[path_of(rows[1])]
    manifest = tmp_path / f"manifest_{SPLIT}.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if rows[0].file_name not in line))
    assert [content for _, content in downloads(server, tmp_path).contents(rows[:2])] == bytes_of(server, rows[:2])


def test_pictures_that_somebody_put_there_are_kept_if_they_are_whole(
    server: faulty.Faulty, rows: list[Row], tmp_path: Path
) -> None:
    for row, content in zip(rows[:3], [*bytes_of(server, rows[:2]), b"no picture"], strict=True):
        path = tmp_path / path_of(row)[1:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    source = downloads(server, tmp_path)
    assert [content for _, content in source.contents(rows[:3])] == bytes_of(server, rows[:3])
    assert server.counts() == {path_of(rows[2]): 1}
    assert any("not in its manifest; they are whole, and were kept: 2 (" in note for note in source.findings.notes)


@pytest.mark.parametrize("end", [b'{"name": "COCO', b"[]\n", b'{"name": 3, "bytes": 1, "sha256": "x"}\n', b"\xff\xfe\n"])
def test_a_line_of_the_manifest_that_is_broken_costs_nothing_else(
    end: bytes, server: faulty.Faulty, rows: list[Row], tmp_path: Path
) -> None:
    list(downloads(server, tmp_path).contents(rows[:2]))
    with (tmp_path / f"manifest_{SPLIT}.jsonl").open("ab") as file:
        file.write(end)
    list(downloads(server, tmp_path).contents(rows[:3]))
    server.requests.clear()
    source = downloads(server, tmp_path)
    assert [content for _, content in source.contents(rows[:3])] == bytes_of(server, rows[:3])
    assert server.requests == []
    assert source.findings.notes == ["lines of the folder's manifest that cannot be read: 1"]


def test_the_same_picture_twice_comes_once(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    twice = [rows[0], rows[0], rows[1], rows[0]]
    assert [content for _, content in downloads(server, tmp_path).contents(twice)] == bytes_of(server, twice)
    assert server.counts() == {path_of(rows[0]): 1, path_of(rows[1]): 1}


@pytest.mark.parametrize(
    ("url", "split", "name", "place"),
    [
        ("http://images.cocodataset.org/val2017/000000397133.jpg", "", "x.jpg", "val2017/000000397133.jpg"),
        ("https://s3.amazonaws.com/images.cocodataset.org/val2014/a.jpg", "", "x.jpg", "val2014/a.jpg"),
        ("http://mscoco.org/images/391895", "val2014", "a.jpg", "val2014/a.jpg"),
        ("", "train2017", "deep/a.jpg", "train2017/a.jpg"),
        ("http://[", "train2017", "a.jpg", "train2017/a.jpg"),
        ("http://x/val2014/../a.jpg", "val2014", "b.jpg", "val2014/b.jpg"),
        ("http://x/val2014/..%2f..%2fa.jpg", "val2014", "b.jpg", "val2014/b.jpg"),
        ("http://x/val2014/.a.jpg", "val2014", "..", None),
        ("file:///etc/passwd", "", "a.jpg", None),
        ("http://x/a.jpg", "my", "a.jpg", None),
        ("", "", "", None),
    ],
)
def test_where_a_picture_lies(url: str, split: str, name: str, place: str | None, tmp_path: Path) -> None:
    row = Row("1", name, None, ("a",), coco_url=url, split=split)
    if place is not None:
        assert place_of(row) == place
        return
    ((_, error),) = Downloads("http://127.0.0.1:9", tmp_path).contents([row])
    assert isinstance(error, SourceError)
    assert "has no address at COCO's server" in str(error)
    assert files_in(tmp_path) == []


# Stopped from outside

RUN = """
import sys, json, time, pathlib
from hf_diffusion_kit.data.base import Row
from hf_diffusion_kit.data.downloads import Downloads
names, url, folder = json.loads(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
rows = [Row(str(n), name, None, ("a",), split="val2014") for n, name in enumerate(names)]
done = [isinstance(content, bytes) for _, content in Downloads(url, folder).contents(rows)]
print(sum(done))
"""


def started(server: faulty.Faulty, rows: list[Row], folder: Path) -> "subprocess.Popen[str]":
    names = json.dumps([row.file_name for row in rows])
    command = [sys.executable, "-c", RUN, names, server.url, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_it_is_stopped_and_goes_on(sign: signal.Signals, server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    for row in rows:
        server.always[path_of(row)] = faulty.stall(500)
    for row in rows[:3]:
        del server.always[path_of(row)]
    process = started(server, rows, tmp_path)
    while len(server.requests) < 7:
        time.sleep(0.01)
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(sign)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 4
    assert process.returncode != 0
    there = [row for row in rows if (tmp_path / path_of(row)[1:]).exists()]
    assert there == rows[:3]
    assert list((tmp_path / SPLIT).glob("*.part"))
    server.always.clear()
    server.requests.clear()
    assert [content for _, content in downloads(server, tmp_path).contents(rows)] == bytes_of(server, rows)
    assert server.counts() == {path_of(row): 1 for row in rows[3:]}
    assert sum("range" in headers for _, headers in server.requests) == 4
    assert not list((tmp_path / SPLIT).glob("*.part*"))


def test_two_commands_at_once_fetch_each_picture_once(server: faulty.Faulty, rows: list[Row], tmp_path: Path) -> None:
    for row in rows:
        server.always[path_of(row)] = later(faulty.proper)
    running = [started(server, rows, tmp_path) for _ in range(2)]
    assert [process.communicate(timeout=30)[0].strip() for process in running] == ["8", "8"]
    assert server.counts() == {path_of(row): 1 for row in rows}


# Annotations


def test_the_archive_comes_once_for_both_splits(server: faulty.Faulty, tmp_path: Path) -> None:
    source = downloads(server, tmp_path / "coco")
    folder = source.annotations(SPLIT)
    assert sorted(path.name for path in folder.glob("*.json")) == [f"captions_{SPLIT}.json", f"instances_{SPLIT}.json"]
    assert len(list(Coco(folder, None, SPLIT).rows(Subset.of(category="dog")))) == COUNT // 2
    source.annotations(SPLIT)
    source.annotations("train2014")
    assert server.counts() == {ZIP: 1}
    assert (tmp_path / "coco" / "annotations_trainval2014.zip").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]
    (folder / f"captions_{SPLIT}.json").write_text("{}")
    source.annotations(SPLIT)
    assert len((folder / f"captions_{SPLIT}.json").read_bytes()) > 100
    assert server.counts() == {ZIP: 1}


def test_the_archive_goes_if_told(server: faulty.Faulty, tmp_path: Path) -> None:
    source = downloads(server, tmp_path, keep_archive=False)
    source.annotations(SPLIT)
    source.annotations(SPLIT)
    assert server.counts() == {ZIP: 1}
    assert not (tmp_path / "annotations_trainval2014.zip").exists()


@pytest.mark.parametrize(
    "faults",
    [[faulty.cut(500)] * 3, [faulty.status(503)] * 2, [faulty.plain(b"PK no zip")], [faulty.page], [faulty.chunked(b"x")]],
    ids=["cut", "503", "another file", "an HTML page", "another size"],
)
def test_the_archive_comes_through_trouble(faults: list[faulty.Fault], server: faulty.Faulty, tmp_path: Path) -> None:
    server.faults[ZIP] = list(faults)
    assert (downloads(server, tmp_path).annotations(SPLIT) / f"captions_{SPLIT}.json").is_file()
    assert len(server.requests) == 1 + len(faults)


def test_a_wrong_checksum_is_fetched_twice_and_then_said(server: faulty.Faulty, tmp_path: Path) -> None:
    content = server.files[ZIP]
    server.files[ZIP] = content[:-1] + bytes([content[-1] ^ 1])
    source = downloads(server, tmp_path, archives={SPLIT: archive_like(content)})
    with pytest.raises(SourceError) as caught:
        source.annotations(SPLIT)
    assert caught.value.line().startswith("error[E-DATA-12] ")
    assert "has another sha256 than it must" in str(caught.value)
    assert len(server.requests) == 2
    assert files_in(tmp_path) == []


def test_a_wrong_archive_that_lies_there_is_replaced(server: faulty.Faulty, tmp_path: Path) -> None:
    (tmp_path / "annotations_trainval2014.zip").write_bytes(b"half")
    source = downloads(server, tmp_path)
    source.annotations(SPLIT)
    assert source.findings.notes == ["annotations_trainval2014.zip was not as COCO publishes it, and was fetched anew"]
    assert (tmp_path / "annotations_trainval2014.zip").read_bytes() == server.files[ZIP]


def damaged(content: bytes) -> bytes:
    at = content.index(b"annotations/captions_val2014.json") + 200
    return content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]


ARCHIVES = {
    "no zip": (lambda tmp, content: b"PK\x03\x04 no zip", "is damaged"),
    "cut": (lambda tmp, content: content[: len(content) // 2], "is damaged"),
    "damaged": (lambda tmp, content: damaged(content), "is damaged"),
    "nothing in it": (
        lambda tmp, content: zipped(tmp / "z", {"annotations/other.json": "{}"}),
        "it has no annotations/captions_",
    ),
    "only outside": (
        lambda tmp, content: zipped(tmp / "z", {"../annotations/captions_val2014.json": "{}"}),
        "it has no annotations/",
    ),
    "encrypted": (
        lambda tmp, content: content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "is damaged",
    ),
}


@pytest.mark.parametrize(("made", "why"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_is_not_as_it_should_be(made: Any, why: str, server: faulty.Faulty, tmp_path: Path) -> None:
    server.files[ZIP] = made(tmp_path, server.files[ZIP])
    with pytest.raises(SourceError, match=why) as caught:
        downloads(server, tmp_path / "coco").annotations(SPLIT)
    assert caught.value.code == "E-DATA-12"
    assert files_in(tmp_path / "coco") == ["annotations_trainval2014.zip"]


def test_an_archive_that_is_gone_or_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / "out/captions_val2014.json"
    with pytest.raises(SourceError, match=r"z\.zip: cannot be read: No such file") as caught:
        take_out(tmp_path / "z.zip", to.name, to)
    assert caught.value.code == "E-DATA-12"
    zipped(tmp_path / "z.zip", {f"annotations/{to.name}": "{}"})

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "os", SimpleNamespace(fsync=full))
    with pytest.raises(StorageError, match="No space left"):
        take_out(tmp_path / "z.zip", to.name, to)
    assert files_in(tmp_path / "out") == []


def test_of_two_files_with_one_name_none_is_taken(server: faulty.Faulty, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for text in ("{}", "[]"):
            archive.writestr("annotations/captions_val2014.json", text)
    server.files[ZIP] = (tmp_path / "z").read_bytes()
    with pytest.raises(SourceError, match=r"it has 2 annotations/captions_val2014\.json"):
        downloads(server, tmp_path / "coco").annotations(SPLIT)


@pytest.mark.parametrize(
    ("split", "why"),
    [
        ("val_2014", "did you mean 'val2014'"),
        ("val", "did you mean 'val20"),
        ("test2015", "COCO publishes no captions of it"),
        ("test2017", "COCO publishes no captions of it"),
        ("../val2014", "is no split of COCO"),
        ("", "known: train2014, train2017, val2014, val2017"),
    ],
)
def test_splits_are_known_by_name(split: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        Downloads(folder=tmp_path).annotations(split)
    assert why in str(caught.value)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://images.cocodataset.org", "is not https"),
        ("https://10.0.0.1", "10.0.0.1, which is not of the public"),
        ("ftp://127.0.0.1", "is not https but ftp"),
        ("127.0.0.1:80", "is not https"),
        ("https://[", "is no address"),
        ("https://s3.amazonaws.com:8443", "asks at port 8443"),
        ("", "is not https"),
    ],
)
def test_an_endpoint_is_public_and_secure(
    endpoint: str, why: str, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    with pytest.raises(KitError) as caught:
        Downloads(endpoint, tmp_path, patience=NO_PAUSE).annotations(SPLIT)
    assert why in str(caught.value)


def test_settings_that_cannot_be(tmp_path: Path, rows: list[Row], server: faulty.Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    for connections in (0, 17):
        with pytest.raises(ConfigError, match="connections: lies between 1 and 16"):
            Downloads(connections=connections)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(StorageError, match=r"8 \(.*\) of 8 pictures still to come; 1.3 MB are needed and 1.0 MB free"):
        next(downloads(server, tmp_path).contents(rows))
    assert server.requests == []
