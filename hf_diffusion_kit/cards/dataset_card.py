"""facts.json -> README.md of a captioned subset, by the Hub's rules for what its pages and `load_dataset` read."""

import shlex
from dataclasses import dataclass
from typing import Any

from ..records import SubsetRecord
from .markdown import Markdown, code, fenced, inline, is_web, link, literal
from .page import counted, page

HUB = "https://huggingface.co/datasets/"
MOST_CATEGORIES = 15
"""Categories that are listed; the rest is counted, and the rows have all."""
EACH_ITS_OWN = "each-picture-its-own"
"""Name of the licence of pictures that have several."""
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
"""Rows below which a category of the Hub ends; beyond all of them is `n>1T`."""
OVERLAPS = {
    "train2014": ("all 82,783 pictures of train2014 are in train2017 as well", "train2014 or train2017"),
    "val2014": ("of val2014's 40,504 pictures 35,504 are in train2017 as well, and 5,000 are val2017", "val2014 or train2017"),
    "train2017": ("train2017 is all of train2014, and 35,504 pictures of val2014", "train2017, train2014 or val2014"),
    "val2017": ("all 5,000 pictures of val2017 are in val2014 as well", "val2017 or val2014"),
}
"""Split -> where its pictures are besides, and what a model was trained on that has seen them (Lin et al. 2014; COCO 2017)."""
CHOICE = {
    "category": "in the picture, all of them",
    "any_category": "in the picture, at least one of them",
    "not_category": "not in the picture",
    "supercategory": "something of each in the picture",
    "min_area": "share of the picture that one such object covers, at least",
    "crowd": "objects marked as a crowd count",
    "min_side": "pixels of the shorter side, at least",
    "min_aspect": "width / height, at least",
    "max_aspect": "width / height, at most",
    "license": "licence",
    "min_words": "words of a caption, at least",
    "max_words": "words of a caption, at most",
    "match": "pattern found in a caption",
    "count": "pictures drawn",
    "seed": "seed of the draw",
    "caption": "caption in `text`",
}
"""Setting of a `Subset` -> in words (a test holds it against the class)."""
TEXT = {
    "first": "the first of them",
    "random": "one of them, drawn by the seed",
    "longest": "the longest of them",
    "shortest": "the shortest of them",
    "all": "all of them, one after another",
}


@dataclass(frozen=True)
class License:
    """One licence of the pictures and what it allows, None where that is not known."""

    name: str
    """Empty when none is stated."""
    url: str
    pictures: int
    commercial: bool | None
    changed: bool | None
    """Whether changed copies may be passed on: crops, and arguably what a model makes of them."""
    asks: str = ""
    """What it wants in return: `name the author`."""


@dataclass(frozen=True)
class Credit:
    """Where one picture is from."""

    image_id: str
    file_name: str
    license: str
    license_url: str
    flickr_url: str
    coco_url: str
    sha256: str
    """Of the picture's bytes in the dataset; empty where it holds none."""


@dataclass(frozen=True)
class RowFacts:
    """What the card tells of the rows and the record does not have."""

    head: dict[str, Any]
    """`configs` and `dataset_info` as every subset has them; the splits are added."""
    num_bytes: int
    license: str
    """Of all pictures, as the Hub writes it: an id, `other` when they have several, `unknown`."""
    licenses: tuple[License, ...]
    """The most frequent first."""
    credits: tuple[Credit, ...]
    """The first rows; attribution.csv has all of them."""
    coco: dict[str, int]
    """Pictures that are COCO's own by address or name, by split."""
    stated: bool = False
    """Whether the licence is what the publisher said, and stands in no row."""
    sheet: int | None = None
    """Pictures on images/sheet.png; None when there is no such page."""


def dataset_card(record: SubsetRecord, rows: RowFacts, repo_id: str | None = None) -> str:
    """The whole README.md; without `repo_id` that of a folder. A section without facts is left out, and text from outside is never
    read as Jinja, HTML or Markdown."""
    return page("dataset.md.jinja", metadata(record, rows, repo_id), facts(record, rows, repo_id), made_from="facts.json")


def metadata(record: SubsetRecord, rows: RowFacts, repo_id: str | None) -> dict[str, Any]:
    splits = [{"name": "train", "num_examples": record.rows, "num_bytes": rows.num_bytes}]
    told: dict[str, Any] = {**rows.head, "dataset_info": {**rows.head["dataset_info"], "splits": splits}}
    told["license"] = rows.license
    if rows.license == "other" and not (rows.stated and len(rows.licenses) == 1):  # then who stated it named it
        one = rows.licenses[0] if len(rows.licenses) == 1 and is_web(rows.licenses[0].url) else None
        here = f"https://huggingface.co/datasets/{repo_id}#licences" if repo_id else "attribution.csv"
        told["license_name"] = slug(one.name) if one else EACH_ITS_OWN
        told["license_link"] = one.url if one else here
    told["task_categories"] = ["text-to-image", "image-to-text"]
    if rows.coco and record.source == "coco":
        told |= {"language": ["en"], "annotations_creators": ["crowdsourced"], "source_datasets": ["extended|other-coco"]}
    elif rows.coco and record.chain[0].source == "coco":
        told["source_datasets"] = ["extended|other-coco"]
    elif record.source == "folder":
        told["source_datasets"] = ["original"]
    elif record.hub and record.hub.on_hub:
        told["source_datasets"] = [record.hub.id]
    told["size_categories"] = [next((name for most, name in SIZES if record.rows < most), "n>1T")]
    told["tags"] = ["captions", *(["coco"] if rows.coco else []), "hf-diffusion-kit"]
    told["pretty_name"] = title(record, repo_id)
    return told


def facts(record: SubsetRecord, rows: RowFacts, repo_id: str | None) -> dict[str, Any]:
    """What the template names."""
    categories, commands = list(record.categories.items()), recipes(record)
    return {
        "record": record,
        "rows": rows,
        "title": title(record, repo_id),
        "origin": origin(record, rows),
        "snippet": fenced(snippet(record, repo_id), "python"),
        "said": "its captions of the chosen length" if {"min_words", "max_words"} & record.choice.keys() else "all its captions",
        "text": TEXT.get(told := str(record.choice.get("caption", "first")), f"number {told.removeprefix('nth:')} of them"),
        "choice": conditions(record),
        "recipe": fenced("\n".join(commands)) if commands else None,
        "commands": len(commands),
        "hub": [step for step in record.chain if step.hub],
        "earlier": [(step, conditions(step)) for step in record.chain[-2::-1]],
        "files": [(name, sha) for step in record.chain for name, sha in step.files.items()],
        "categories": categories[:MOST_CATEGORIES],
        "rarer": categories[MOST_CATEGORIES:],
        "people": sum(number for name, number in categories if name.casefold() == "person"),
        "overlaps": [(split, number, *OVERLAPS[split]) for split, number in rows.coco.items() if split in OVERLAPS],
        "credits": [(credit, place(credit)) for credit in rows.credits] if any(map(is_told, rows.credits)) else [],
        "withheld": sum(entry.pictures for entry in rows.licenses if entry.changed is False),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "named": any(entry.name for entry in rows.licenses),
        "unknown": sum(entry.pictures for entry in rows.licenses if entry.commercial is None),
    }


def title(record: SubsetRecord, repo_id: str | None) -> str:
    return repo_id.split("/")[-1] if repo_id else counted(record.rows, "captioned picture")


def origin(record: SubsetRecord, rows: RowFacts) -> Markdown:
    """Where the pictures are from, for a sentence that ends with it."""
    if record.before:
        return Markdown(f"from a saved subset of {counted(record.before.rows, 'picture')} {origin(record.before, rows)}")
    if record.hub:
        name = link(record.hub.id, f"{HUB}{record.hub.id}") if record.hub.on_hub else code(record.hub.id)
        at = f" at commit {code(record.hub.revision[:12])}" if record.hub.revision else ""
        return Markdown(f"from the dataset {name}{at}")
    splits = f" ({', '.join(map(code, record.splits))})" if record.splits else ""
    if rows.coco and record.source == "coco":
        return Markdown(f"from [COCO](https://cocodataset.org){splits}")
    known = {"coco": "from a set in COCO's format", "folder": "from a folder of pictures", "dataset": "from another dataset"}
    return Markdown(known.get(record.source, f"from the source {code(record.source)}") + splits)


def conditions(record: SubsetRecord) -> list[tuple[Markdown, Markdown]]:
    return [(Markdown(CHOICE.get(name, inline(name))), words(value)) for name, value in record.choice.items()]


def recipes(record: SubsetRecord) -> list[str]:
    """The commands that make the same again, one after the other: what it was chosen from comes first, under the name by which the
    next one asks for it. A table in memory has none."""
    steps = [step.recipe for step in record.chain if step.recipe]
    for place, after in enumerate(steps[1:]):
        before, words = shlex.split(steps[place]), shlex.split(after)
        if before[-2:-1] == ["--out"] and words[:3] == ["hfdk", "subset", "folder"]:
            steps[place] = shlex.join([*before[:-1], words[3]])
    return steps


def snippet(record: SubsetRecord, repo_id: str | None) -> str:
    """Runs as it stands: of a folder, in that folder (`load_dataset(".")` knows no name for it); without pixels, fetching none."""
    lines = [*([] if repo_id else ["from pathlib import Path", ""]), "from datasets import load_dataset", ""]
    place = literal(repo_id) if repo_id else "str(Path.cwd())"
    lines.append(f'rows = load_dataset({place}, split="train"){"" if repo_id else "  # in this folder"}')
    if record.pixels == "none":
        return "\n".join([*lines, 'print(rows["text"][0], rows["captions"][0])  # rows[0] fetches its picture as well'])
    return "\n".join([*lines, "row = rows[0]", 'print(row["image"].size, row["text"])'])


def is_told(credit: Credit) -> bool:
    """Whether there is anything to say of where a picture is from."""
    return any((credit.license, credit.license_url, credit.flickr_url, credit.coco_url))


def place(credit: Credit) -> Markdown:
    address = next((url for url in (credit.flickr_url, credit.coco_url) if is_web(url)), "")
    return link("Flickr" if address and address == credit.flickr_url else "address", address) if address else Markdown("")


def words(value: Any) -> Markdown:
    if isinstance(value, bool):
        return Markdown("yes" if value else "no")
    return Markdown(", ".join(map(code, value if isinstance(value, list | tuple) else [value])))


def slug(name: str) -> str:
    """`Attribution-ShareAlike License` -> `attribution-sharealike-license`, as the Hub wants the name of a licence."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.casefold()).split()) or "unnamed"
