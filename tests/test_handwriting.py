"""Real handwriting, read from scikit-learn or MNIST's files, judged by an independent eye, written as a COCO folder."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.digits import handwriting
from hf_diffusion_kit.digits.coco import write_coco
from hf_diffusion_kit.digits.judge import Judge, nearest_distance, nn_ratio
from hf_diffusion_kit.errors import ConfigError, SourceError, StorageError


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.fit()


def as_list(split: handwriting.Split, digit: int) -> list[Image.Image]:
    return list(handwriting.as_images(handwriting.load(split).only([digit])))


def write_mnist(folder: Path, count: int = 20) -> None:
    random = np.random.default_rng(0)
    for stem in ("train", "t10k"):
        pictures = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pictures.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2i", 2049, count) + labels.tobytes()))


def test_split_is_fixed_and_nothing_is_in_both_halves() -> None:
    seen, held_out = handwriting.load("train"), handwriting.load("test")
    assert (len(seen), len(held_out)) == (1442, 355)
    assert not {p.tobytes() for p in held_out.pictures_NHW} & {p.tobytes() for p in seen.pictures_NHW}
    assert set(held_out.labels_N) == set(range(10))
    pixels = handwriting.as_pixels(held_out.only([1]))
    assert pixels.shape[1:] == (3, 32, 32) and pixels.min() == -1 and pixels.max() == 1
    assert pixels.mean() > 0, "dark ink on light paper"


def test_mnist_files_are_read(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = handwriting.load("train", idx=tmp_path)
    assert data.pictures_NHW.shape == (20, 32, 32) and data.labels_N.tolist() == [*range(10)] * 2


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda f: (f / "train-images-idx3-ubyte").unlink(), "holds no train-images"),
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 20, 28, 28) + b"x"), "promises"),
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2049, 20, 28, 28)), "magic number 2049"),
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"abc"), "cut short"),
        (lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(b"no gzip"), "cannot be read"),
        (
            lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2i", 2049, 1) + b"\1")),
            "1 labels for 20",
        ),
        (
            lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(
                gzip.compress(struct.pack(">2i", 2049, 20) + bytes(range(20)))
            ),
            "label 19",
        ),
    ],
)
def test_broken_mnist_files_are_named(tmp_path: Path, harm: object, word: str) -> None:
    write_mnist(tmp_path)
    harm(tmp_path)  # type: ignore[operator]
    with pytest.raises(SourceError, match=word) as caught:
        handwriting.load("train", idx=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_judge_knows_real_digits(judge: Judge) -> None:
    assert judge.real_accuracy > 0.97
    sevens = as_list("test", 7)
    assert judge.accuracy(sevens, 7) > 0.9 and judge.accuracy(sevens, 4) < 0.05
    assert judge.classify(sevens[:3]).tolist() == [7, 7, 7]


def test_copies_are_told_from_new_handwriting() -> None:
    seen, held_out = as_list("train", 4), as_list("test", 4)
    assert nearest_distance(seen[:5], seen).max() == pytest.approx(0, abs=1e-3)
    copies = [picture.point(lambda level: max(0, level - 8)) for picture in seen[:30]]
    assert nn_ratio(copies, seen, held_out) < 0.5
    assert nn_ratio(held_out[::2], seen, held_out) == pytest.approx(1, abs=0.25)


def test_coco_folder_is_official_and_true(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", [4, 7], limit_per_digit=6)
    said, boxed = (
        json.loads((folder / "annotations" / f"{kind}_train2017.json").read_text()) for kind in ("captions", "instances")
    )
    assert list(said) == ["info", "licenses", "images", "annotations"] and list(boxed)[-1] == "categories"
    assert len(said["images"]) == 12 == len(boxed["annotations"]) and len(said["annotations"]) == 60
    assert {image["license"] for image in said["images"]} <= {licence["id"] for licence in said["licenses"]}
    names = {category["id"]: category["name"] for category in boxed["categories"]}
    for image, ink in zip(said["images"], boxed["annotations"], strict=True):
        assert ink["image_id"] == image["id"]
        word = names[ink["category_id"]]
        sentences = [a["caption"] for a in said["annotations"] if a["image_id"] == image["id"]]
        assert len(set(sentences)) == 5 and all(word in sentence.split() for sentence in sentences)
        picture = Image.open(folder / "train2017" / image["file_name"])
        assert picture.size == (image["width"], image["height"]) == (32, 32)
        dark = np.asarray(picture.convert("L")) < 128
        runs = ink["segmentation"]["counts"]
        mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(32, 32, order="F")
        assert (mask == dark).all() and ink["area"] == dark.sum()
        left, top, wide, high = ink["bbox"]
        assert dark[top : top + high, left : left + wide].sum() == dark.sum()
        assert dark[top].any() and dark[top + high - 1].any() and dark[:, left].any() and dark[:, left + wide - 1].any()


def test_coco_folder_is_the_same_each_time_and_halves_share_nothing(tmp_path: Path) -> None:
    one, two = (write_coco(tmp_path / name, [3], limit_per_digit=5) for name in "ab")
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert len(files) == 7 and all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
    other = write_coco(tmp_path / "c", [3], limit_per_digit=5, seed=1)
    assert (other / files[0]).read_bytes() != (one / files[0]).read_bytes()
    write_coco(one, [3], split="test", limit_per_digit=5)
    assert not {f.name for f in (one / "train2017").iterdir()} & {f.name for f in (one / "val2017").iterdir()}
    with pytest.raises(StorageError, match="already holds a train2017"):
        write_coco(one, [3])
    with pytest.raises(ConfigError, match="11"):
        write_coco(tmp_path / "d", [3, 11])
    assert not (tmp_path / "d").exists()


def test_coco_folder_is_read_by_our_own_source(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", [4, 9], limit_per_digit=8)
    data = load_captioned("coco", annotations=folder / "annotations", images=folder, category="four", count=3, seed=0)
    assert len(data) == 3 and all("four" in caption for i in range(3) for caption in data.example(i).captions)


def test_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "coco", "--out", str(tmp_path / "coco"), "--digits", "4", "--limit-per-digit", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "coco"), "pictures": 3, "subset": "train2017"}
    page = tmp_path / "page.png"
    assert main(["digits", "score", "--base", "digits-seven", "--each", "2", "--sheet", str(page)]) == 0
    out = capsys.readouterr().out
    assert "mean" in out and "14 pictures" in out and page.stat().st_size > 1000
    assert main(["digits", "score", "--dataset", "mnist"]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["digits", "train", "--base", "digitz", "--out", str(tmp_path / "x")]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err
