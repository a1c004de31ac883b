"""An index holds what a plain reading of the JSON finds, whatever the size of the blocks it is made in; memory does not grow with it."""

import json
import math
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_diffusion_kit.data import index_build, index_spill, index_things
from hf_diffusion_kit.data.annotations import stream
from hf_diffusion_kit.data.captions import tidy
from hf_diffusion_kit.data.index import open_index
from hf_diffusion_kit.data.index_columns import FILES, Index
from hf_diffusion_kit.data.index_ids import Ids, Places, repeated
from hf_diffusion_kit.data.index_spill import Column, Spill
from hf_diffusion_kit.errors import SourceError

BLANK = ["", "  ", "\n", "\u200b", None]
SAID = ["a dog", "é cat", "\u200b x", "two\nlines", " stray "]
Naming = Callable[[int], Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def some_texts(number: int) -> Any:
    """Every 50th id is a text, between integers."""
    return str(number) if number % 50 == 0 else number


NAMINGS: dict[str, Naming] = {
    "numbers": int,
    "far apart": lambda number: number * 10**14,
    "beyond int64": lambda number: number + 2**63 - 900,
    "texts": str,
    "names": lambda number: f"picture-{number}",
    "both": some_texts,
}


def odd(naming: Naming, seed: int, count: int = 120) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pictures listed twice, without captions, without sizes; captions blank, of one number, of no picture; objects of nothing."""
    rng = random.Random(seed)
    numbers = rng.sample(range(1, 8 * count), count)
    images = []
    for number in numbers:
        image: dict[str, Any] = {"id": naming(number), "file_name": f"{number}.jpg"}
        if rng.random() < 0.9:
            image |= {"width": rng.choice([0, 640]), "height": rng.choice([480, 333.0]), "license": rng.choice([1, "2", 9, None])}
        images += [image, image] if rng.random() < 0.1 else [image]
    rng.shuffle(images)
    notes = [
        {
            "image_id": naming(rng.choice(numbers) if rng.random() < 0.9 else 8 * count + place),
            "id": naming(rng.randrange(1, 20 * count)),
            "caption": rng.choice(BLANK if rng.random() < 0.1 else SAID),
        }
        for place in range(3 * count)
    ]
    things = [
        {
            "image_id": naming(rng.choice(numbers) if rng.random() < 0.9 else 8 * count + place),
            "category_id": naming(rng.randrange(1, 9)),
            "area": rng.choice([None, 5, rng.uniform(0, 9e4), 1e300]),
            "iscrowd": rng.choice([0, 0, 1, None, True]),
        }
        for place in range(5 * count)
    ]
    categories = [{"id": naming(number), "name": f"kind {number}"} for number in rng.sample(range(1, 8), 6)]
    licenses = [{"id": 1, "name": "one", "url": None}, {"id": "2", "name": "two", "url": "http://two"}]
    return {"images": images, "annotations": notes, "licenses": licenses}, {"annotations": things, "categories": categories}


def pair(folder: Path, captions: dict[str, Any], instances: dict[str, Any]) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "captions_val2014.json", folder / "instances_val2014.json"
    for file, content in zip(files, (captions, instances), strict=True):
        file.write_text(json.dumps(content))
    return files


def by_number(value: Any) -> tuple[int, str]:
    return len(str(value)), str(value)


def plainly(captions: dict[str, Any], instances: dict[str, Any]) -> dict[str, Any]:
    """The same with dicts and lists, one record after another."""
    images: dict[str, dict[str, Any]] = {}
    for image in captions["images"]:
        images.setdefault(str(image["id"]), image)
    said: dict[str, list[Any]] = {number: [] for number in images}
    lost, blank = [], []
    for place, note in enumerate(captions["annotations"]):
        name = f"annotation {note['id']} of image {note['image_id']}"
        if str(note["image_id"]) not in images:
            lost.append(name)
        elif not tidy(note["caption"] or ""):
            blank.append(name)
        else:
            said[str(note["image_id"])].append((*by_number(note["id"]), place, note["caption"]))
    ids = sorted((number for number in images if said[number]), key=by_number)
    kinds = {str(entry["id"]): entry["name"] for entry in instances["categories"]}
    rows: list[Any] = []
    objects: dict[str, list[Any]] = {name: [] for name in kinds.values()}
    for thing in instances["annotations"]:
        number, kind = str(thing["image_id"]), kinds.get(str(thing["category_id"]))
        if kind is None or not said.get(number):
            continue
        size = images[number].get("width", 0) * images[number].get("height", 0)
        area = math.inf if thing["area"] == 1e300 else thing["area"]  # beyond float32
        share = math.nan if area is None or not size else area / size
        objects[kind].append((ids.index(number), share, bool(thing["iscrowd"])))
    for place, number in enumerate(ids):
        here = [kinds[kind] for kind in sorted(kinds, key=by_number) if any(at == place for at, *_ in objects[kinds[kind]])]
        image = images[number]
        rows.append(
            {
                "image_id": number,
                "file_name": image["file_name"],
                "captions": [caption for *_, caption in sorted(said[number])],
                "width": image.get("width", 0),
                "height": image.get("height", 0),
                "categories": here,
                "license": {"1": "one", "2": "two", "9": "licence 9"}.get(str(image.get("license")), ""),
            }
        )
    faults = {
        "captions of pictures that are not listed": lost,
        "blank captions": blank,
        "pictures without a caption": [images[n]["file_name"] for n in sorted(set(images) - set(ids), key=by_number)],
    }
    twice = sum(1 for number in Counter(str(note["id"]) for note in captions["annotations"]).values() if number > 1)
    return {"rows": rows, "objects": objects, "faults": faults, "twice": twice}


def told(index: Index) -> dict[str, Any]:
    """What the index says, in the same words."""
    rows = index.columns(np.arange(len(index))).to_pylist()
    starts = index.arrays["thing_starts"]
    objects = {}
    for kind, name in enumerate(index.names):
        span = slice(starts[kind], starts[kind + 1])
        columns = [index.arrays[f"thing_{name}"][span].tolist() for name in ("picture", "share", "crowd")]
        objects[name] = list(zip(*columns, strict=True))
    notes = [note for note in index.findings().notes if "annotation numbers are used more than once" in note]
    return {
        "rows": [{name: value for name, value in row.items() if "url" not in name} for row in rows],
        "objects": objects,
        "faults": index.findings().faults,
        "twice": int(notes[0].split(": ")[1].split()[0]) if notes else 0,
    }


@pytest.mark.parametrize("naming", NAMINGS)
def test_it_holds_what_a_plain_reading_finds(naming: str, tmp_path: Path) -> None:
    for seed in range(3):
        captions, instances = odd(NAMINGS[naming], seed)
        found, expected = told(open_index(*pair(tmp_path / str(seed), captions, instances))), plainly(captions, instances)
        assert found["rows"] == expected["rows"] and len(found["rows"]) > 90
        assert found["faults"] == expected["faults"] and all(expected["faults"].values())
        assert found["twice"] == expected["twice"] > 0
        assert found["objects"].keys() == expected["objects"].keys()
        for name, objects in expected["objects"].items():
            np.testing.assert_allclose(found["objects"][name], objects, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, 50])
@pytest.mark.parametrize("naming", ["numbers", "far apart", "both"])
def test_every_size_of_block_gives_the_same_bytes(
    block: int, naming: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pair(tmp_path, *odd(NAMINGS[naming], 7, 60))
    whole = open_index(*files)
    expected = {name: (whole.folder / name).read_bytes() for name in FILES}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(index_spill, "BLOCK", block)
    monkeypatch.setattr(index_spill, "HELD", 100)
    again = open_index(*files)
    assert again.folder != whole.folder and again.findings() == whole.findings()
    assert {name: (again.folder / name).read_bytes() for name in FILES} == expected


@pytest.mark.parametrize("naming", ["numbers", "names"])
def test_memory_does_not_grow_with_captions_and_objects(naming: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same 100 pictures, and four times as much said and seen of them."""
    monkeypatch.setattr(index_spill, "BLOCK", 512)
    monkeypatch.setattr(index_spill, "HELD", 4096)
    for module in (index_build, index_things):
        monkeypatch.setattr(module, "stream", partial(stream, window=10_000))
    name = NAMINGS[naming]
    images = [{"id": name(number), "file_name": f"{number}.jpg", "width": 9, "height": 9} for number in range(100)]
    peaks = []
    for count in (3000, 3000, 12000):  # once to warm up
        notes = [{"image_id": name(n * 7 % 100), "id": name(n * 77 % 99991), "caption": "a dog"} for n in range(count)]
        things = [{"image_id": name(n * 7 % 100), "category_id": n % 5, "area": 9} for n in range(count)]
        categories = [{"id": number, "name": str(number)} for number in range(5)]
        files = pair(
            tmp_path / f"{len(peaks)}",
            {"images": images, "annotations": notes},
            {"annotations": things, "categories": categories},
        )
        del notes, things
        tracemalloc.start()
        open_index(*files)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float64, np.bool_])
@pytest.mark.parametrize("count", [0, 1, 99_999])
def test_a_column_is_what_numpy_writes(kind: type, count: int, tmp_path: Path) -> None:
    values = np.random.default_rng(count).integers(0, 2, count).astype(kind)
    np.save(tmp_path / "stock.npy", values)
    column = Column(tmp_path / "ours.npy", kind)
    for start in range(0, count, 1000):
        column.add(values[start : start + 1000])
    column.close()
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "stock.npy").read_bytes()


def test_what_waits_on_disk_is_sorted_there(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-99, 99, 300_000)
    spill = Spill(tmp_path / "x", np.int64)
    for part in np.split(values, 30):
        spill.add(part)
    assert np.array_equal(spill.sort(), np.sort(values))
    assert np.array_equal(np.fromfile(tmp_path / "x", np.int64), np.sort(values))


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
@pytest.mark.parametrize("naming", [int, str])
def test_repeated_numbers_are_counted_across_blocks(
    block: int, naming: Naming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_spill, "BLOCK", block)
    rng = random.Random(block)
    for case in range(60):
        values = [rng.randrange(1 + case % 12) for _ in range(rng.randrange(9))]
        (folder := tmp_path / str(case)).mkdir()
        ids = Ids(folder, "x")
        ids.add([naming(value) for value in values])
        assert repeated(ids) == sum(1 for number in Counter(values).values() if number > 1), values


@pytest.mark.parametrize(
    ("ids", "wanted", "expected"),
    [
        ([5, 3, 5], [3, 5, 4, -1, 2**62], [1, 0, -1, -1, -1]),
        ([-(2**63), 2**63 - 1], [2**63 - 1, 0, -(2**63)], [1, -1, 0]),
        ([-4, 4], [-4, 4, -(2**63), 2**63 - 1], [0, 1, -1, -1]),
        ([7, 1], ["7", "07", "x"], [0, -1, -1]),
        (["7", "x"], [7, 8], [0, -1]),
        ([], [1], [-1]),
        ([1], [], []),
    ],
)
def test_places_are_exact_at_every_distance(ids: list[Any], wanted: list[Any], expected: list[int]) -> None:
    told = [np.array(values, dtype=None if values else np.int64) for values in (ids, wanted)]
    found = Places(told[0]).of(told[1])
    assert found.tolist() == expected and found.dtype == np.int32


def test_a_number_of_two_files_is_named_with_the_first(tmp_path: Path) -> None:
    captions, instances = odd(int, 1)
    first = captions["images"][30]
    captions["images"] += [{**captions["images"][50], "file_name": "other.jpg"}, {**first, "file_name": "another.jpg"}]
    with pytest.raises(SourceError, match=rf"image id {captions['images'][50]['id']} is '\d+\.jpg' and 'other\.jpg'"):
        open_index(*pair(tmp_path, captions, instances))
