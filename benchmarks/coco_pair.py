"""Writes a synthetic pair of COCO annotation files of train2014's size and shape: the real ones cannot be passed on.

82,783 pictures, 414,113 captions, 604,907 objects with polygons of the length that COCO's have (about 67 and 370 MB); `scale` makes
it smaller or larger. Some categories go together more often than chance, so that "dog and frisbee" is a usual query.
"""

import json
import random
from pathlib import Path

PICTURES, CAPTIONS, OBJECTS = 82_783, 414_113, 604_907
NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "hydrant"),
    *("stop sign", "meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "ball", "kite", "bat", "glove"),
    *("skateboard", "surfboard", "racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana"),
    *("apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "plant"),
    *("bed", "table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "phone", "microwave", "oven", "toaster"),
    *("sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy", "drier", "toothbrush"),
)
WORDS = "a the two man woman dog cat sitting standing on in with next to grass street table red blue large small young".split()  # noqa: SIM905
LICENSES = [
    {"id": n, "name": f"licence {n}", "url": f"http://creativecommons.org/licenses/{kind}/2.0/"}
    for n, kind in enumerate(("by-nc-sa", "by-nc", "by-nc-nd", "by", "by-sa", "by-nd"), 1)
]


def write(folder: Path, scale: float = 1.0, split: str = "train2014") -> tuple[Path, Path]:
    """(captions file, instances file); files that are there already are kept."""
    captions, instances = folder / f"captions_{split}.json", folder / f"instances_{split}.json"
    if captions.is_file() and instances.is_file():
        return captions, instances
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    count = round(PICTURES * scale)
    ids = rng.sample(range(1, 8 * count), count)
    images = [_image(number, rng, split) for number in ids]
    _write(captions, images, _captions(ids, round(CAPTIONS * scale), rng), [])
    categories = [{"supercategory": f"group{n // 8}", "id": n + 1, "name": name} for n, name in enumerate(NAMES)]
    _write(instances, images, _objects(ids, round(OBJECTS * scale), rng), categories)
    return captions, instances


def _image(number: int, rng: random.Random, split: str) -> dict[str, object]:
    name = f"COCO_{split}_{number:012d}.jpg"
    width, height = rng.choice([(640, 480), (480, 640), (640, 427), (500, 375)])
    flickr = f"http://farm{rng.randrange(1, 10)}.staticflickr.com/{rng.randrange(9999)}/{rng.randrange(10**10)}_{rng.randrange(16**10):010x}_z.jpg"
    return {
        "license": rng.randrange(1, 7),
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{split}/{name}",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": flickr,
        "id": number,
    }


def _captions(ids: list[int], count: int, rng: random.Random):
    owners = ids * (count // len(ids)) + rng.sample(ids, count % len(ids))
    rng.shuffle(owners)
    for number, owner in enumerate(owners, 1):
        yield {
            "image_id": owner,
            "id": number,
            "caption": " ".join(rng.choices(WORDS, k=rng.randrange(8, 14))).capitalize() + ".",
        }


def _objects(ids: list[int], count: int, rng: random.Random):
    share = max(1, len(ids) // 57)
    both = [(owner, kind) for owner in ids[:share] for kind in (NAMES.index("dog") + 1, NAMES.index("frisbee") + 1)]
    polygons = [[round(rng.uniform(0, 640), 2) for _ in range(rng.randrange(18, 96))] for _ in range(400)]
    for number in range(count):
        owner, kind = both[number] if number < len(both) else (rng.choice(ids), min(80, int(rng.expovariate(0.08)) + 1))
        area = round(rng.expovariate(1 / 9000), 4)
        crowd = rng.random() < 0.01
        polygon = rng.choice(polygons)
        yield {
            "segmentation": {"counts": [int(x) for x in polygon], "size": [480, 640]} if crowd else [polygon],
            "area": area,
            "iscrowd": int(crowd),
            "image_id": owner,
            "bbox": [round(rng.uniform(0, 300), 2) for _ in range(4)],
            "category_id": kind,
            "id": number + 1,
        }


def _write(path: Path, images: list[dict[str, object]], annotations, categories: list[dict[str, object]]) -> None:
    half = path.with_suffix(".part")
    with half.open("w", encoding="utf-8") as out:
        out.write('{"info": {"year": 2014}, "images": ' + json.dumps(images) + ', "licenses": ' + json.dumps(LICENSES))
        out.write(', "annotations": [')
        for number, note in enumerate(annotations):
            out.write((", " if number else "") + json.dumps(note))
        out.write("]" + (', "categories": ' + json.dumps(categories) if categories else "") + "}")
    half.replace(path)
