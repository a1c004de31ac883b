"""Memory does not grow with the pictures: rows go through a file that this process alone has; and rows without pixels."""

import functools
import gc
import http.server
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_diffusion_kit.data import Captioned, as_captioned, durable, load_captioned, saved, shards
from hf_diffusion_kit.data.addresses import secure
from hf_diffusion_kit.data.passing import contents_at
from hf_diffusion_kit.data.spool import BATCH_ROWS
from hf_diffusion_kit.data.where import cache_folder
from hf_diffusion_kit.errors import ConfigError, SourceError
from hf_diffusion_kit.records import file_sha256
from pictured import coco, encoded, fill, metadata, picture


def loaded(folder: Path, **options: Any) -> Captioned:
    return load_captioned("coco", annotations=folder / "annotations", images=folder, **options)


def python(code: str, *words: object, home: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, env=environment, **options
    )


def spools(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "hf_diffusion_kit/spool").iterdir())


LOAD = "import sys; from hf_diffusion_kit.data import load_captioned; data = load_captioned(sys.argv[1], prompt='x')\n"


def test_the_file_goes_with_its_process_and_that_of_a_killed_one_with_the_next(tmp_path: Path) -> None:
    pictures, home = fill(tmp_path / "mine", ["a.jpg", "b.jpg"]), tmp_path / "home"
    killed = python(LOAD + "import os; os.kill(os.getpid(), 9)", pictures, home=home)
    assert killed.returncode == -signal.SIGKILL
    left = spools(home)
    assert len(left) == 2 and left[1] == f"{left[0]}.lock"
    lives = LOAD + "print('there', flush=True); sys.stdin.read(); data.example(1); data.dataset[1]['image'].load()"
    words = [sys.executable, "-c", lives, str(pictures)]
    environment = {**os.environ, "HF_HOME": str(home)}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as living:
        assert living.stdout and living.stdout.readline() == "there\n"
        now = spools(home)
        assert len(now) == 2 and not set(now) & set(left)
        assert python(LOAD, pictures, home=home).returncode == 0 and spools(home) == now
        living.communicate("")
    assert living.returncode == 0 and spools(home) == []


def test_what_is_read_only_on_the_way_goes_when_it_was_read(tmp_path: Path) -> None:
    """Of a saved subset, or of Parquet, that is chosen from. What is handed out stays, for workers open it by its name."""
    data = load_captioned(fill(tmp_path / "mine", [f"{n}.jpg" for n in range(4)]), prompt="x")
    saved_one = data.save(tmp_path / "saved")
    (tmp_path / "rows").mkdir()
    shutil.copy(next((saved_one / "data").iterdir()), tmp_path / "rows/a.parquet")
    for folder in (saved_one, tmp_path / "rows"):
        before = set(cache_folder("spool").glob(f"{os.getpid()}-*/*.arrow"))
        chosen = load_captioned(folder, count=2)
        gc.collect()
        (left,) = set(cache_folder("spool").glob(f"{os.getpid()}-*/*.arrow")) - before
        assert chosen.dataset.cache_files == [{"filename": str(left)}]
        rows = chosen.dataset.select([1, 0])
        del chosen
        gc.collect()
        assert rows.map(lambda row: {"wide": row["image"].width}, num_proc=2)["wide"][:] == [48, 48]


def test_workers_are_handed_a_name_not_the_pictures(tmp_path: Path) -> None:
    data = load_captioned(fill(tmp_path / "mine", [f"{n}.jpg" for n in range(20)]), prompt="x")
    assert len(pickle.dumps(data)) < data.record.bytes / 2
    again = pickle.loads(pickle.dumps(data))
    assert again == data and again.example(3).sha256 == data.example(3).sha256
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Captioned.example, (data, 19)).image.size == (48, 32)
    wide = data.dataset.map(lambda row: {"wide": row["image"].width}, num_proc=2)
    assert wide["wide"][:] == [48] * 20


FULL = """
import resource, sys
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import KitError
data = load_captioned(sys.argv[1], prompt="x")
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
for act in (lambda: data.save(sys.argv[2]), lambda: load_captioned(sys.argv[1], prompt="y")):
    try:
        act()
    except KitError as error:
        print(error.exit_code, error.line())
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    pictures, home = fill(tmp_path / "mine", [f"{n}.jpg" for n in range(60)]), tmp_path / "home"
    done = python(FULL, pictures, tmp_path / "out", home=home)
    save, load = done.stdout.splitlines()
    for line in (save, load):
        assert line.startswith("5 error[E-DISK-03]") and "File too large" in line and "Fix: free space" in line
    assert done.stderr == "" and spools(home) == [] and not list(tmp_path.glob("*out*"))


GROWTH = """
import os, shutil, sys, threading
from pathlib import Path
from hf_diffusion_kit.data import Captioned, load_captioned

def private():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) // 1024

def peak(act):
    seen, done = [private()], threading.Event()
    def watch():
        while not done.wait(0.01):
            seen.append(private())
    thread = threading.Thread(target=watch)
    thread.start()
    result = act()
    done.set()
    thread.join()
    return result, max(seen)

home = Path(sys.argv[1])
for count in (20, 210, 1010):
    folder = home / f"of {count}"
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").unlink(missing_ok=True)
        os.link(home / "large.png", folder / f"{number}.png")
    data, load = peak(lambda: load_captioned(folder, prompt="x"))
    place, save = peak(lambda: data.save(home / f"out {count}", overwrite=True))
    again, opened = peak(lambda: Captioned.open(place))
    assert again == data
    parquet = home / f"parquet {count}"
    shutil.copytree(place / "data", parquet, dirs_exist_ok=True)
    _, foreign = peak(lambda: load_captioned(parquet))
    print(load, save, opened, foreign)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts private memory there")
def test_private_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (180, 180, 3), dtype=np.uint8)
    (tmp_path / "large.png").write_bytes(encoded(Image.fromarray(noise_HW3), "PNG", compress_level=0))
    size = (tmp_path / "large.png").stat().st_size
    assert size > 80_000
    done = python(GROWTH, tmp_path, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr[-2000:]
    _, few, many = (list(map(int, line.split())) for line in done.stdout.splitlines())
    growth = [more - less for less, more in zip(few, many, strict=True)]
    assert max(growth) < 800 * size / 1e6 / 2, f"load, save, open, foreign Parquet: {few} -> {many} MB"


@pytest.mark.parametrize(
    ("row_bytes", "limit", "number"),
    [
        ([10] * 100, 2000, 1),
        ([10] * 100, 500, 2),
        ([10] * 100, 101, 16),  # ten are a multiple of eight: sixteen
        ([10] * 5, 10, 5),
        ([1000, 1, 1, 1], 300, 4),  # one has all the bytes; no shard is empty
        ([1, 1, 1, 1000], 300, 4),
        ([900] * 3 + [10] * 997, 2000, 7),
        ([7], 1, 1),
    ],
)
def test_shards_are_equal_in_bytes(row_bytes: list[int], limit: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", limit)
    bounds = shards.cuts(np.array(row_bytes))
    assert len(bounds) == number and bounds[0][0] == 0 and bounds[-1][1] == len(row_bytes)
    assert all(a[1] == b[0] for a, b in pairwise(bounds)) and all(start < stop for start, stop in bounds)
    total, largest = sum(row_bytes), max(row_bytes)
    assert all(sum(row_bytes[start:stop]) <= total / number + largest for start, stop in bounds)


def test_a_shard_has_small_row_groups_plain_pictures_and_an_index_of_pages(tmp_path: Path) -> None:
    folder = loaded(coco(tmp_path / "set")).save(tmp_path / "out")
    listed = saved.manifest(folder)
    file = folder / listed[0].file
    assert listed[0] == shards.Shard(listed[0].file, 6, file.stat().st_size, file_sha256(file))
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert BATCH_ROWS == 100 and columns["image.bytes"].compression == "UNCOMPRESSED"
    assert not columns["image.bytes"].is_stats_set  # least and greatest of pictures say nothing and would be copies of them
    assert columns["image_id"].statistics.min == "1" and columns["image_id"].has_column_index


def test_the_record_tells_what_went_in(tmp_path: Path) -> None:
    folder = coco(tmp_path / "set", 12)
    record = loaded(folder, category="dog", count=3, seed=4).record
    notes = folder / "annotations"
    assert record.files == {name: file_sha256(notes / name) for name in ("captions_val2014.json", "instances_val2014.json")}
    assert (record.rows, record.captions, record.splits, record.pixels) == (3, 15, ["val2014"], "embedded")
    assert record.choice == {"category": ["dog"], "count": 3, "seed": 4}
    assert list(record.categories.items())[:2] == [("person", 3), ("dog", 3)] and sum(record.licenses.values()) == 3
    assert record.versions.keys() == {"hf_diffusion_kit", "datasets", "pyarrow", "pillow"} and record.bytes > 1000
    assert saved.facts(loaded(folder, count=2).save(tmp_path / "out")).splits == ["val2014"]
    own = metadata(fill(tmp_path / "own", ["a.jpg"]), [("a.jpg", "x")])
    assert load_captioned(own).record.files == {"metadata.jsonl": file_sha256(own / "metadata.jsonl")}
    fill(tmp_path / "beside", ["a.jpg", "b.jpg"])
    for name in ("a", "b"):
        (tmp_path / f"beside/{name}.txt").write_text(name)
    before = load_captioned(tmp_path / "beside").record.files
    (tmp_path / "beside/b.txt").write_text("other")
    after = load_captioned(tmp_path / "beside").record.files
    assert list(before) == list(after) == ["2 files beside the pictures"] and before != after
    assert load_captioned(tmp_path / "beside", prompt="x", ignore_captions=True).record.files == {}


def test_every_picture_that_was_not_taken_is_counted_once(tmp_path: Path) -> None:
    fill(tmp_path, [f"{n}.jpg" for n in range(8)])
    (tmp_path / "0.jpg").write_bytes(encoded(picture(0, (20, 20))))
    (tmp_path / "1.jpg").write_bytes(b"GIF8")
    data = load_captioned(tmp_path, prompt="x", min_side=30, on_bad_image="skip")
    assert data.left_out == {"pictures with a side under 30 pixels": 1, "pictures that cannot be read": 1} and len(data) == 6
    for count in range(1, 7):
        few = load_captioned(tmp_path, prompt="x", min_side=30, count=count, on_bad_image="skip")
        assert len(few) == count and count + sum(few.left_out.values()) == 8


def test_foreign_parquet_stays_on_disk(tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(picture(n)) for n in range(3)], "text": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet")
    before = pa.total_allocated_bytes()
    mapped = saved.parquet(tmp_path)
    assert mapped.num_rows == 6 and pa.total_allocated_bytes() - before < 500
    pq.write_table(table.rename_columns(["image", "caption"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: has other columns than a\.parquet"):
        saved.parquet(tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="Parquet cannot be read"):
        load_captioned(tmp_path)


@pytest.mark.parametrize("compression", ["snappy", "gzip", "lz4", "zstd"])
def test_damaged_foreign_parquet_is_one_line(compression: str, tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(picture(n)) for n in range(3)], "text": [f"{n} " + "word " * 400 for n in range(3)]})
    pq.write_table(table, tmp_path / "a.parquet", compression=compression, use_dictionary=False)
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(1)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    end = column.data_page_offset + column.total_compressed_size
    content[end - 30 : end] = b"\xff" * 30
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match="its Parquet cannot be read"):
        load_captioned(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/nowhere/x.parquet"), "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "its Parquet cannot be read"),
    ],
)
def test_parquet_that_is_no_file_is_one_line(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=words):
        load_captioned(tmp_path)


def test_a_cache_that_is_emptied_meanwhile_is_made_anew(tmp_path: Path) -> None:
    pictures = fill(tmp_path, ["a.jpg"])
    load_captioned(pictures, prompt="x")
    for folder in cache_folder("spool").glob(f"{os.getpid()}-*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    assert len(load_captioned(pictures, prompt="y")) == 1


def test_an_error_that_is_kept_holds_no_picture(tmp_path: Path) -> None:
    content = encoded(picture(0))
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError) as caught:
        load_captioned(tmp_path, prompt="x")
    assert "_decoded" not in {frame.name for frame in traceback.extract_tb(caught.tb)}
    assert caught.value.__cause__ is caught.value.__context__ is None

    def read_one(place: int, record: Any) -> bytes:
        raise SourceError("is broken", where=place) from ValueError()

    stream = datasets.Dataset.from_dict({"n": [0, 1]}).to_iterable_dataset()
    for error in contents_at(stream, [1, 0], read_one, "stream"):
        assert isinstance(error, SourceError) and error.__traceback__ is error.__cause__ is None


def test_windows_syncs_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.sync(tmp_path)
    opened: list[Path] = []

    def open_file(path: Path, flags: int) -> int:
        opened.append(path)
        return os.open(path, flags)

    windows = SimpleNamespace(name="nt", open=open_file, fsync=os.fsync, close=os.close, O_RDWR=os.O_RDWR)
    monkeypatch.setattr(durable, "os", windows)
    (tmp_path / "a").touch()
    durable.sync(tmp_path)
    durable.sync(tmp_path / "a")
    assert opened == [tmp_path / "a"]


# Without pixels


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves `tmp_path`; every request is a line in `asked`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def addressed(folder: Path, address: str) -> Path:
    """Annotations whose pictures are at an address; `{n}` is the picture's number, nothing leaves it without."""
    file = folder / "annotations/captions_val2014.json"
    told = json.loads(file.read_text())
    for image in told["images"]:
        image["coco_url"] = address.format(n=image["id"], name=image["file_name"]) if address else ""
    file.write_text(json.dumps(told))
    return folder / "annotations"


def test_without_pixels_nothing_is_read_and_stock_datasets_fetches(tmp_path: Path, server: str) -> None:
    notes = addressed(coco(tmp_path / "set", 12), server + "/set/val2014/{name}")
    data = load_captioned("coco", annotations=notes, category="dog", count=4, pixels="none")
    rows = data.dataset.with_format("arrow")[:].to_pylist()
    assert data.record.pixels == "none" and data.record.bytes == 0 and data.record.files.keys() >= {"captions_val2014.json"}
    assert all(row["image"]["bytes"] is None and row["image"]["path"].startswith(server) for row in rows)
    assert {row["sha256"] for row in rows} == {None} and {(row["width"], row["height"]) for row in rows} == {(48, 32)}
    assert (
        data.recipe == "hfdk subset coco --annotations annotations --category dog --count 4 --seed 0 --pixels none --out subset"
    )
    assert any("aiohttp" in note for note in data.notes)
    with_pixels = loaded(tmp_path / "set", category="dog", count=4)
    assert with_pixels.dataset["image_id"][:] == data.dataset["image_id"][:] and with_pixels.fingerprint != data.fingerprint

    folder = data.save(tmp_path / "out")
    again = load_captioned(folder)
    assert again == data and sum(path.stat().st_size for path in (folder / "data").iterdir()) < 20_000
    script = Path(__file__).with_name("stock_open.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert [row["image"] for row in told["rows"]] == [["RGB", 48, 32]] * 4 and told["stream"] == told["rows"][:2]
    with pytest.raises(SourceError, match=r"addresses of its pictures, not their pixels.*without pixels="):
        again.example(0)
    fewer = load_captioned(folder, count=2, pixels="none")
    assert len(fewer) == 2 and fewer.record.pixels == "none"
    with pytest.raises(SourceError, match="has only an address"):
        load_captioned(folder, count=2)


def test_a_picture_without_an_address_is_an_error_or_counted(tmp_path: Path) -> None:
    notes = addressed(coco(tmp_path, 3), "ftp://host/{name}")
    with pytest.raises(SourceError, match="has no address"):
        load_captioned("coco", annotations=notes, pixels="none")
    addressed(tmp_path, "http://images.cocodataset.org/val2014/{name}")
    told = json.loads((notes / "captions_val2014.json").read_text())
    told["images"][1]["coco_url"] = "ftp://host/a.jpg"
    (notes / "captions_val2014.json").write_text(json.dumps(told))
    data = load_captioned("coco", annotations=notes, pixels="none", on_bad_image="skip")
    assert data.left_out == {"pictures without an address": 1} and len(data) == 2
    with pytest.raises(SourceError, match="has no address"):
        load_captioned(fill(tmp_path / "own", ["a.jpg"]), prompt="x", pixels="none")
    with pytest.raises(ConfigError, match="'embedded' or 'none'"):
        load_captioned(tmp_path / "own", prompt="x", pixels="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("http://images.cocodataset.org/val2014/a.jpg", "https://s3.amazonaws.com/images.cocodataset.org/val2014/a.jpg"),
        ("http://example.org/a.jpg?x=1", "https://example.org/a.jpg?x=1"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg"),
        ("http://127.0.0.1:8000/a.jpg", "http://127.0.0.1:8000/a.jpg"),
        *(
            (wrong, None)
            for wrong in ("", "a.jpg", "ftp://host/a.jpg", "file:///etc/passwd", "http://[::1/a.jpg", "http:///a.jpg")
        ),
    ],
)
def test_addresses_are_secure(told: str, address: str | None) -> None:
    assert secure(told) == address


def test_datasets_in_memory_are_read_in_pieces(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": [encoded(picture(n)) for n in range(3)], "text": ["x", "y", "z"]})
    data = as_captioned(rows)
    assert [entry["filename"].endswith(".arrow") for entry in data.dataset.cache_files] == [True]
