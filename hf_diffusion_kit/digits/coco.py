"""Real handwriting as a folder in COCO's own format (Lin et al. 2014; Chen et al. 2015): what `hfdk subset coco` reads, made offline."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, StorageError, unknown
from . import handwriting
from .captions import captions
from .handwriting import WORDS, Handwriting, Split

SUBSETS: dict[Split, str] = {"train": "train2017", "test": "val2017"}
"""COCO's names of the two halves of the data."""
FIRST = {"train2017": 0, "val2017": 100_000}
"""Picture n of a half has the number n + 1 plus this: no number is in both. Neither half of MNIST is longer."""
CAPTIONS_EACH = 5
INK = 128
"""A pixel darker than this grey level belongs to the digit's mask."""


def write_coco(
    folder: Path,
    digits: Sequence[int],
    *,
    split: Split = "train",
    seed: int = 0,
    limit_per_digit: int | None = None,
    size: int = 32,
    idx: Path | None = None,
) -> Path:
    """Writes annotations/{captions,instances}_train2017.json and train2017/*.png (val2017 for the test split) and returns `folder`.

    Each picture has five captions drawn by `seed` and its number, and one object: the ink, with exact mask, box and area in pixels.
    """
    if split not in SUBSETS:
        raise unknown("split", split, SUBSETS)
    wrong = sorted(set(digits) - set(range(10)))
    if wrong or not digits:
        raise ConfigError(f"must be some of 0 to 9, got {wrong or 'none'}", where="digits")
    if limit_per_digit is not None and limit_per_digit < 1:
        raise ConfigError(f"must be at least 1, got {limit_per_digit}", where="limit_per_digit")
    subset = SUBSETS[split]
    pictures_folder, annotations = folder / subset, folder / "annotations"
    files = {kind: annotations / f"{kind}_{subset}.json" for kind in ("captions", "instances")}
    if pictures_folder.exists() or any(file.exists() for file in files.values()):
        raise StorageError(f"already holds a {subset}", where=folder, fix="choose another folder or delete this one")
    source = handwriting.load(split, size, idx)
    numbers = list(_chosen(source.labels_N, digits, limit_per_digit, seed))
    try:
        pictures_folder.mkdir(parents=True)
        annotations.mkdir(exist_ok=True)
        _fill(pictures_folder, files, source, numbers, seed, mnist=idx is not None)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=folder, fix="free space or choose another"
        ) from error
    return folder


def _fill(folder: Path, files: dict[str, Path], source: Handwriting, numbers: list[int], seed: int, *, mnist: bool) -> None:
    """Annotations come last, so that what they name is there."""
    images: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for n in numbers:
        digit, picture_HW = int(source.labels_N[n]), source.pictures_NHW[n]
        number = n + 1 + FIRST[folder.name]
        name = f"{number:012d}.png"
        Image.fromarray(picture_HW).convert("RGB").save(folder / name)
        images.append(_image(number, name, len(picture_HW), mnist=mnist))
        drawn = random.Random(f"{seed} {number}").sample(captions(digit), CAPTIONS_EACH)
        sentences += [{"image_id": number, "id": len(sentences) + k, "caption": said} for k, said in enumerate(drawn, 1)]
        objects.append(_object(len(objects) + 1, number, digit, picture_HW < INK))
    head = _head(mnist=mnist)
    categories = [{"supercategory": "digit", "id": digit + 1, "name": word} for digit, word in enumerate(WORDS)]
    _write(files["captions"], {**head, "images": images, "annotations": sentences})
    _write(files["instances"], {**head, "images": images, "annotations": objects, "categories": categories})


def _chosen(labels_N: np.ndarray, digits: Sequence[int], limit: int | None, seed: int) -> Iterator[int]:
    for digit in sorted(set(digits)):
        members = np.flatnonzero(labels_N == digit).tolist()
        yield from sorted(random.Random(f"{seed} {digit}").sample(members, min(limit or len(members), len(members))))


def _image(number: int, name: str, size: int, *, mnist: bool) -> dict[str, Any]:
    return {
        "license": 2 if mnist else 1,
        "file_name": name,
        "coco_url": "",
        "height": size,
        "width": size,
        "date_captured": "1998-01-01 00:00:00",
        "flickr_url": "",
        "id": number,
    }


def _object(number: int, image: int, digit: int, ink_HW: np.ndarray) -> dict[str, Any]:
    ys, xs = np.nonzero(ink_HW)
    left, top = int(xs.min()), int(ys.min())
    return {
        "segmentation": {"counts": _runs(ink_HW), "size": list(ink_HW.shape)},
        "area": int(ink_HW.sum()),
        "iscrowd": 0,
        "image_id": image,
        "bbox": [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1],
        "category_id": digit + 1,
        "id": number,
    }


def _runs(mask_HW: np.ndarray) -> list[int]:
    """COCO's run lengths: column by column, beginning with the unset pixels."""
    flat = np.concatenate([[False], mask_HW.flatten(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask_HW.size]])).tolist()


def _head(*, mnist: bool) -> dict[str, Any]:
    name, url = (
        ("MNIST", "http://yann.lecun.com/exdb/mnist/")
        if mnist
        else ("Optical Recognition of Handwritten Digits (as in scikit-learn)", "https://archive.ics.uci.edu/dataset/80")
    )
    return {
        "info": {
            "description": f"{name}, written in COCO's format by hf_diffusion_kit",
            "url": url,
            "version": "1.0",
            "year": 1998,
            "contributor": "Y. LeCun, C. Cortes, C. J. C. Burges" if mnist else "E. Alpaydin, C. Kaynak",
            "date_created": "1998/07/01",
        },
        "licenses": [
            {"id": 1, "name": "Creative Commons Attribution 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
            {
                "id": 2,
                "name": "Creative Commons Attribution-ShareAlike 3.0",
                "url": "https://creativecommons.org/licenses/by-sa/3.0/",
            },
        ],
    }


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")
