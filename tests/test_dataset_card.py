"""A dataset's card is a function of its record and rows: golden bytes, the Hub's rules, the truth about licences, and a snippet that
runs."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_diffusion_kit.cards import RowFacts, dataset_card, front_matter, merge_card
from hf_diffusion_kit.cards.dataset_card import CHOICE, OVERLAPS
from hf_diffusion_kit.data import beside, terms
from hf_diffusion_kit.data.features import FEATURES
from hf_diffusion_kit.data.licenses import COCO
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.hub.rules import LICENSES, card_faults
from hf_diffusion_kit.hub.web import rendered
from hf_diffusion_kit.records import SubsetRecord, build
from pictured import encoded, picture

GOLDEN = Path(__file__).parents[1] / "model_cards" / "datasets"
NAMES = sorted(path.stem for path in (GOLDEN / "records").glob("*.json"))


def told(name: str) -> tuple[SubsetRecord, RowFacts, str | None]:
    raw = json.loads((GOLDEN / "records" / f"{name}.json").read_text(encoding="utf-8"))
    return build(SubsetRecord, raw["record"]), build(RowFacts, raw["rows"]), raw["repo_id"]


def card(name: str, **more: Any) -> str:
    record, rows, repo_id = told(name)
    return dataset_card(replace(record, **more), rows, repo_id)


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", NAMES)
def test_golden_cards(name: str) -> None:
    assert card(name) == (GOLDEN / f"{name}.md").read_text(encoding="utf-8"), "make cards, and look at the difference"


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_takes_the_metadata(name: str) -> None:
    metadata = front_matter.read(card(name))
    assert not card_faults(metadata)
    assert metadata["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]
    assert [column["name"] for column in metadata["dataset_info"]["features"]] == list(FEATURES)
    assert metadata["dataset_info"]["splits"][0]["num_examples"] == told(name)[0].rows
    assert metadata["license"] != "cc-by-4.0" and metadata["size_categories"] == ["n<1K"]
    assert {"text-to-image", "image-to-text"} == set(metadata["task_categories"])
    assert not re.search(r"None|Undefined|More Information|\{%|\n\n\n", re.sub(r"\{% for x in y %\}", "", card(name)))


def test_only_coco_is_said_to_be_english_and_drawn_from_coco() -> None:
    coco, own = front_matter.read(card("coco-people")), front_matter.read(card("own-pictures"))
    assert (coco["language"], coco["source_datasets"]) == (["en"], ["extended|other-coco"])
    assert "language" not in own and own["source_datasets"] == ["original"]
    translated = front_matter.read(card("coco-people", source="dataset"))  # COCO's pictures, in somebody else's table
    assert not {"language", "source_datasets", "annotations_creators"} & translated.keys()


@pytest.mark.parametrize(
    ("rows", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (82_783, "10K<n<100K"), (10**7, "10M<n<100M"), (10**8, "100M<n<1B"), (10**12, "n>1T")],
)
def test_size(rows: int, size: str) -> None:
    assert front_matter.read(card("own-pictures", rows=rows))["size_categories"] == [size]


def test_every_setting_of_a_subset_has_its_words() -> None:
    assert CHOICE.keys() == {field.name for field in fields(Subset)}


def test_overlaps_add_up() -> None:
    counts = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
    assert counts.keys() == OVERLAPS.keys()
    assert counts["train2014"] + counts["val2014"] == counts["train2017"] + counts["val2017"] == 123_287
    assert counts["train2014"] + 35_504 == counts["train2017"] and 35_504 + counts["val2017"] == counts["val2014"]


def test_the_overlapping_splits_of_this_very_subset_are_named() -> None:
    text = section(card("coco-people"), "Overlap with other splits")
    record, rows, _ = told("coco-people")
    assert sum(rows.coco.values()) == record.rows
    assert "trained on train2017, train2014 or val2014" in text and "trained on val2017 or val2014" in text
    assert "Overlap" not in card("own-pictures") and "123,287" not in card("own-pictures")


def test_people() -> None:
    assert "A person is marked in 20 of 20 pictures" in card("coco-people")
    assert "No person is marked in any of the pictures" in card("coco-people", categories={"dog": 3})
    assert "Nobody counted the people" in card("coco-people", categories={}) and "Nobody counted" in card("own-pictures")


def test_rare_categories_are_counted() -> None:
    counts = {f"thing {n}": 40 - n for n in range(17)}
    text = section(card("coco-people", categories=counts), "What is to be seen")
    assert "| thing 14 | 26 |" in text and "thing 15" not in text
    assert "And 2 more categories, each in at most 25 pictures." in text


def test_without_pixels() -> None:
    text = card("coco-addresses")
    assert "There are no pixels in here" in text and "sheet.png" not in text and "EXIF" not in text
    assert 'load_dataset(str(Path.cwd()), split="train")  # in this folder' in text


class TestNasty:
    """The record `nasty` holds Jinja, HTML, Markdown, YAML and Unicode tricks in every field that comes from outside."""

    html = rendered(front_matter.split(card("nasty"))[1], "<GALLERY>")

    def test_jinja_is_shown_and_not_run(self) -> None:
        assert not re.search(r"\b49\b", self.html) and self.html.count("{{7*7}}") > 12

    def test_html_and_markdown_are_shown_and_not_read(self) -> None:
        assert not re.search(r"<(?!/?(?:h1|h2|p|table|thead|tbody|tr|th|td|img|code|pre|ul|li|a|strong)\b)", self.html)
        assert set(re.findall(r'src="([^"]*)"', self.html)) == {"images/sheet.png"}
        links = set(re.findall(r'href="([^"]*)"', self.html))
        assert links == {
            "attribution.csv",
            "https://creativecommons.org/licenses/by/4.0/",
            "https://www.flickr.com/help/terms",
            "http://a.b/%28x%29%7C%3Cy%3E%29",
            "https://a.b/%5D%28javascript:x%29%20%60",
        }
        assert self.html.count("<h1>") == 1 and "\u202e" not in self.html

    def test_tables_keep_their_columns(self) -> None:
        for table in re.findall(r"<table>.*?</table>", self.html, re.DOTALL):
            rows = [row.count("<td>") + row.count("<th>") for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
            assert len(set(rows)) == 1

    def test_the_marks_stand_once_each(self) -> None:
        assert merge_card(card("nasty"), card("nasty")) == card("nasty")
        assert merge_card("# Mine\n", card("nasty")).endswith("\n# Mine\n")


def test_the_owners_own_configs_stay() -> None:
    new = card("coco-people")
    mine = front_matter.read(new)
    mine["configs"] += [{"config_name": "pairs", "data_files": "pairs/*.parquet"}]
    mine["configs"][0]["data_files"] = "old/*.parquet"
    merged = front_matter.read(merge_card(front_matter.written(mine) + "\nmy words\n", new))
    assert [entry["config_name"] for entry in merged["configs"]] == ["default", "pairs"]
    assert merged["configs"][0] == front_matter.read(new)["configs"][0]


BY, SA = COCO["4"], COCO["5"]
CC = "https://creativecommons.org/licenses"


@pytest.mark.parametrize(
    ("counts", "stated", "expected"),
    [
        ({BY: 3}, None, "cc-by-2.0"),
        ({COCO["2"]: 3}, None, "cc-by-nc-2.0"),
        ({SA: 3}, None, "other"),  # the Hub knows no 2.0 of it
        ({BY: 3, SA: 1}, None, "other"),
        ({BY: 3, ("", ""): 1}, None, "other"),
        ({("", ""): 3}, None, "unknown"),
        ({("", ""): 3}, "cc-by-4.0", "cc-by-4.0"),
        ({BY: 3, ("", ""): 1}, "cc-by-2.0", "cc-by-2.0"),
        ({BY: 3, ("", ""): 1}, "cc-by-4.0", "other"),
        ({BY: 3}, "cc-by-4.0", "cc-by-2.0"),  # what a picture says of itself counts
        ({("CC0", "https://creativecommons.org/publicdomain/zero/1.0/"): 2}, None, "cc0-1.0"),
        ({("MIT", ""): 2}, None, "mit"),
        ({("x", f"{CC}/by/4.0/deed.en"): 1, ("y", f"{CC}/by/4.0/"): 1}, None, "cc-by-4.0"),
        ({("all rights reserved", "https://x.y"): 2}, None, "other"),
    ],
)
def test_the_license_that_the_hub_is_told(counts: dict[tuple[str, str], int], stated: str | None, expected: str) -> None:
    assert terms.hub_id(terms.licenses_of(counts, stated)) == expected and expected in LICENSES


@pytest.mark.parametrize(
    ("name", "url", "commercial", "changed", "asks"),
    [
        (*COCO["1"], False, True, "name the author, share alike"),
        (*COCO["3"], False, False, "name the author"),
        (*COCO["4"], True, True, "name the author"),
        (*COCO["6"], True, False, "name the author"),
        (*COCO["7"], True, True, ""),
        (COCO["5"][0], "", True, True, "name the author, share alike"),
        ("cc-by-nc-4.0", "", False, True, "name the author"),
        ("cc0-1.0", "", True, True, ""),
        ("mine", "", None, None, ""),
        ("mine", "https://creativecommons.org/licenses/what<b>/2.0/", None, None, ""),
    ],
)
def test_what_a_licence_allows(name: str, url: str, commercial: bool | None, changed: bool | None, asks: str) -> None:
    found = terms.license_of(name, url, 1)
    assert (found.commercial, found.changed, found.asks) == (commercial, changed, asks)


def row(number: int, license: tuple[str, str] = BY, pixels: bool = True, **more: Any) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/val2014/COCO_val2014_{number:012d}.jpg"
    content = encoded(picture(number))
    known = {
        "image": {"bytes": content, "path": f"{number}.jpg"} if pixels else {"bytes": None, "path": url},
        "text": f"picture {number}",
        "captions": [f"picture {number}\n", "another"],
        "image_id": str(number),
        "file_name": f"{number}.jpg",
        "width": 48,
        "height": 32,
        "categories": ["dog"],
        "license": license[0],
        "license_url": license[1],
        "flickr_url": "",
        "coco_url": url,
        "sha256": "0" * 64 if pixels else None,
    }
    return {**known, **more}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def record(rows: int, **more: Any) -> SubsetRecord:
    return SubsetRecord("coco", rows, 2 * rows, "f" * 64, "hfdk subset coco --out subset", splits=["val2014"], **more)


def put(folder: Path, told: SubsetRecord, rows: pa.Table) -> Path:
    (folder / "data").mkdir(parents=True)
    pq.write_table(rows, folder / "data/train-00000-of-00001.parquet")
    for name, content in beside.texts(told, rows).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


RUN = """
import json, sys
from datasets import load_dataset_builder
info = load_dataset_builder(sys.argv[1]).info.splits["train"]
exec(compile(sys.stdin.read(), "card", "exec"))
assert not [name for name in sys.modules if name.startswith("hf_diffusion_kit")]
print(json.dumps([len(rows), rows["captions"][0], str(rows.features), info.num_examples, info.num_bytes]))
"""


@pytest.mark.parametrize("pixels", [True, False])
def test_the_snippet_runs_in_the_folder(pixels: bool, tmp_path: Path) -> None:
    rows = table([row(n, pixels=pixels) for n in range(3)])
    folder = put(tmp_path / "set", record(3, pixels="embedded" if pixels else "none"), rows)
    text = (folder / "README.md").read_text(encoding="utf-8")
    ((_, code),) = re.findall(r"^(`{3,})python\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], input=code, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    size = front_matter.read(text)["dataset_info"]["splits"][0]["num_bytes"]
    assert 0.5 * rows.nbytes < size <= rows.nbytes
    shown, found = done.stdout.splitlines()
    assert shown == ("(48, 32) picture 0" if pixels else "picture 0 ['picture 0\\n', 'another']")
    assert json.loads(found) == [3, ["picture 0\n", "another"], str(FEATURES), 3, size]
    assert (folder / "images/sheet.png").exists() == pixels


def test_equal_rows_and_records_give_equal_bytes() -> None:
    rows = [row(n) for n in range(30)]
    one = beside.texts(record(30), table(rows))
    other = beside.texts(record(30), pa.concat_tables([table(rows[:7]), table(rows[7:])]))  # in chunks, as shards are
    assert one.keys() == {"facts.json", "README.md", "attribution.csv", "images/sheet.png"}
    assert one == other
    assert "24 of 30 pictures." in one["README.md"].decode() and "| 7 | `7.jpg`" in one["README.md"].decode()
    assert build(SubsetRecord, json.loads(one["facts.json"])) == record(30)


def test_attribution_has_a_line_for_every_picture() -> None:
    odd = row(2, ("", ""), file_name='a,"b"\nc.jpg', flickr_url="http://f/1_2_z.jpg")
    lines = list(csv.DictReader(io.StringIO(beside.attribution(table([row(1), odd])))))
    assert [line["image_id"] for line in lines] == ["1", "2"] and lines[1]["file_name"] == 'a,"b"\nc.jpg'
    assert list(lines[0]) == ["image_id", "file_name", "license", "license_url", "flickr_url", "coco_url", "sha256"]
    assert lines[0]["license_url"] == BY[1] and lines[1]["license_url"] == "" and lines[1]["flickr_url"] == "http://f/1_2_z.jpg"


def test_pictures_whose_licence_forbids_changed_copies_are_not_on_the_page() -> None:
    found = beside.sheet(table([row(1, COCO["6"]), row(2), row(3, ("", ""))]))
    assert found and found[0] == 2
    assert Image.open(io.BytesIO(found[1])).format == "PNG"
    assert beside.sheet(table([row(1, COCO["3"])])) is None
    text = beside.texts(record(2), table([row(1, COCO["6"]), row(2)]))["README.md"].decode()
    assert "1 of 2 pictures. Those whose licence forbids changed copies (1) are not shown here." in text


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, {"val2014": 1}),
        ({"coco_url": "https://s3.amazonaws.com/images.cocodataset.org/train2017/1.jpg"}, {"train2017": 1}),
        ({"coco_url": "", "file_name": "val2014/COCO_val2014_000000000001.jpg"}, {"val2014": 1}),
        ({"coco_url": "", "file_name": "000000000001.jpg"}, {"val2014": 1}),  # the record knows the split
        ({"coco_url": "", "file_name": "000000000001.png"}, {}),  # ours, in COCO's format
        ({"coco_url": "http://images.cocodataset.org/test2015/1.jpg"}, {}),
        ({"coco_url": None, "file_name": "a.jpg"}, {}),
    ],
)
def test_which_pictures_are_cocos(more: dict[str, Any], found: dict[str, int]) -> None:
    text = beside.texts(record(1), table([row(1, **more)]))["README.md"].decode()
    assert [split for split in OVERLAPS if f"of `{split}`:" in text] == list(found)
    assert ("COCO Consortium" in text) == bool(found)


def test_what_the_publisher_states() -> None:
    rows = table([row(1, ("", ""), coco_url="", file_name="a.jpg")])
    told = replace(record(1), source="folder", splits=[])
    stated = beside.texts(told, rows, repo_id="you/x", license="cc-by-4.0")["README.md"].decode()
    assert "Who published this states the licence of the pictures: `cc-by-4.0`" in stated
    assert f"| [cc-by-4.0]({CC}/by/4.0/) | 1 | yes | yes | name the author |" in stated
    assert front_matter.read(stated)["license"] == "cc-by-4.0"
    plain = beside.texts(told, rows)["README.md"].decode()
    assert "No licence is stated" in plain and front_matter.read(plain)["license"] == "unknown"
