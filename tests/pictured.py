"""Small pictures with captions, made here: the toys of the data tests."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (48, 32)
"""Width and height: oblong, for a square hides every swapped one."""


def picture(seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    coarse_HW3 = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse_HW3).resize(size, Image.Resampling.BILINEAR).convert(mode)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def fill(folder: Path, names: Sequence[str]) -> Path:
    """A folder of JPEGs, each another picture."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed)))
    return folder


def metadata(folder: Path, rows: Sequence[tuple[str, Any]], name: str = "metadata.jsonl") -> Path:
    lines = [json.dumps({"file_name": file, "text": text}, ensure_ascii=False) for file, text in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 34, "name": "frisbee"}]


def coco(folder: Path, count: int = 6, split: str = "val2014", backwards: bool = False) -> Path:
    """`count` pictures in COCO's layout: five captions each (the third picture has six, one spread over two lines), a person in
    all of them, a dog in every second, a frisbee in every third."""
    numbers = list(range(1, count + 1))
    names = {n: f"COCO_{split}_{n:012d}.jpg" for n in numbers}
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    fill(folder / split, names.values())
    images = [
        {
            "id": n,
            "file_name": names[n],
            "width": SIZE[0],
            "height": SIZE[1],
            "license": 4 + n % 2,
            "coco_url": f"http://mscoco.org/images/{n}",
        }
        for n in numbers
    ]
    notes = [{"image_id": n, "id": 10 * n + k, "caption": f" caption {k} of {n}. "} for n in numbers for k in range(5)]
    notes.append({"image_id": 3, "id": 39, "caption": "a sixth,\nover two lines\n"})
    seen = {n: [1, *([18] if n % 2 == 0 else []), *([34] if n % 3 == 0 else [])] for n in numbers}
    objects = [
        {"image_id": n, "id": 100 * n + c, "category_id": c, "segmentation": [[1, 2, 3]]} for n in numbers for c in seen[n]
    ]
    licenses = [
        {"id": 4, "name": "Attribution License", "url": "http://by"},
        {"id": 5, "name": "Attribution-ShareAlike License", "url": ""},
    ]
    turn = -1 if backwards else 1
    files = {
        "captions": {"licenses": licenses, "images": images[::turn], "annotations": notes[::turn]},
        "instances": {"annotations": objects[::turn], "categories": CATEGORIES[::turn]},
    }
    for kind, content in files.items():
        (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
