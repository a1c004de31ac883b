"""A card is a function of the record: golden bytes, the Hub's rules, nothing from outside read as markup, the owner's text kept."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from hf_diffusion_kit.cards import front_matter, merge_card, model_card
from hf_diffusion_kit.cards.limits import EMBEDDED
from hf_diffusion_kit.cards.markdown import code, fenced, inline, literal
from hf_diffusion_kit.cards.model_card import LOSS, PROGRESS
from hf_diffusion_kit.cards.snippet import FOLLOWS
from hf_diffusion_kit.digits import BASES
from hf_diffusion_kit.errors import HubError
from hf_diffusion_kit.evaluation import schedule
from hf_diffusion_kit.hub.rules import card_faults
from hf_diffusion_kit.hub.web import rendered
from hf_diffusion_kit.records import DataRecord, Pinned, RunRecord, Shown, Verified, Weights

GOLDEN = Path(__file__).parents[1] / "model_cards"
NAMES = sorted(path.stem for path in (GOLDEN / "records").glob("*.json"))


def record(name: str) -> RunRecord:
    return RunRecord.load(GOLDEN / "records" / f"{name}.json")


def card(name: str) -> str:
    return model_card(record(name), f"you/{name}", (LOSS, PROGRESS))


def bare(**more: Any) -> RunRecord:
    """As little as a record can hold."""
    told = {
        "name": "x",
        "family": "sd1",
        "method": "lora",
        "base_model": Pinned("b"),
        "data": DataRecord("folder", 500, "f" * 64),
    }
    told |= {"settings": {}, "steps": 1, "samples": 500, "losses": [], "versions": {}, "hardware": {}, "seconds": 1.0}
    return RunRecord(**{**told, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_golden_cards(name: str) -> None:
    assert card(name) == (GOLDEN / f"{name}.md").read_text(encoding="utf-8"), "make cards, and look at the difference"


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_takes_the_metadata(name: str) -> None:
    told = front_matter.read(card(name))
    assert not card_faults(told)
    assert told["library_name"] == "diffusers" and {"text-to-image", "diffusers", "hf-diffusion-kit"} <= set(told["tags"])
    assert [item["text"] for item in told["widget"]] == [shown.caption for shown in record(name).gallery]  # to the letter


def test_what_decides_the_hubs_snippet_and_model_tree() -> None:
    coco, digits = front_matter.read(card("coco-cats-lora")), front_matter.read(card("digit-four-lora"))
    assert (coco["base_model"], coco["base_model_relation"]) == ("stable-diffusion-v1-5/stable-diffusion-v1-5", "adapter")
    assert coco["datasets"] == ["me/coco-cats"] and coco["license"] == "creativeml-openrail-m"
    assert "base_model" not in digits and "base_model_relation" not in digits  # it is not on the Hub
    assert digits["instance_prompt"] == "a handwritten four"
    other = front_matter.read(model_card(bare(base_model=Pinned("o/Base", license="other", on_hub=True)), "you/x"))
    assert (other["license_name"], other["license_link"]) == ("base-license", "https://huggingface.co/o/Base")
    assert "license" not in front_matter.read(model_card(bare(), "you/x"))


def test_what_cards_know_by_name_is_what_there_is() -> None:
    assert set(EMBEDDED) == set(BASES) and schedule.FOLLOWS.__name__ == FOLLOWS


def test_captions_are_counted_from_the_ledger() -> None:
    digits, coco = card("digit-four-lora"), card("coco-cats-lora")
    assert "given 10 captions of 10 pictures, 3,200 times in all. Cut by the tokenizer: 0. Not used: 60." in digits
    assert "100 class pictures with 100 captions, used 3,200 times" in digits
    assert (
        "given 99 captions of 100 pictures, 990 times in all. Cut by the tokenizer: 1 (9 tokens never seen). Not used: 402."
        in coco
    )
    assert "Left empty on purpose, for guidance: 50 times." in coco


def test_limits_are_those_of_the_run() -> None:
    digits, coco = card("digit-four-lora"), card("coco-cats-lora")
    assert "10 pictures, each shown 320 times on average. It may repeat them" in digits
    assert "show people" in coco and "show people" not in digits
    assert "Of 53 of the 100 pictures the licence forbids commercial use" in coco
    assert "Of 17 of the 100 pictures the licence forbids changed copies" in coco
    assert "No score was measured" in coco and "No score was measured" not in digits


def test_a_section_without_facts_is_left_out() -> None:
    text = model_card(bare(), "you/x")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Training", "Data", "Licence and limits"], text
    assert not re.search(r"None|Undefined|More Information|\{\{|\{%|\n\n\n", text)
    for name in NAMES:
        assert "\n\n\n" not in card(name) and "More Information" not in card(name)
    assert "picture = pipe" not in model_card(bare(weights=[Weights("a.safetensors", "diffusers-lora", "0" * 64, 1)]), "you/x")


class TestNasty:
    """The record `nasty` holds Jinja, HTML, Markdown, YAML and Unicode tricks in every field that comes from outside."""

    html = rendered(front_matter.split(card("nasty"))[1], "<GALLERY>")

    def test_jinja_is_shown_and_not_run(self) -> None:
        assert not re.search(r"\b49\b", self.html)
        assert self.html.count("{{7*7}}") >= 6 and "{% for x in y %}" in self.html

    def test_html_is_shown_and_not_read(self) -> None:
        assert not re.search(r"<(?!/?(?:h1|h2|p|table|thead|tbody|tr|th|td|img|code|pre|ul|li|GALLERY)\b)", self.html)
        assert self.html.count("<GALLERY>") == 1  # ours; the one of a caption is text
        assert set(re.findall(r'src="([^"]*)"', self.html)) == {
            "images/a%20b%7C%28c%29.png",
            "images/%3Cb%3E.png",
            LOSS,
            PROGRESS,
        }

    def test_markdown_is_shown_and_not_read(self) -> None:
        assert "<a " not in self.html and "<strong>" not in self.html
        assert self.html.count("<h1>") == 1 and re.findall(r"<h2>(.*?)</h2>", self.html)[-2:] == [
            "Notes of the run",
            "All settings",
        ]
        assert self.html.count("<ul>") == 2

    def test_tables_keep_their_columns(self) -> None:
        for table in re.findall(r"<table>.*?</table>", self.html, re.DOTALL):
            rows = [row.count("<td>") + row.count("<th>") for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
            assert len(set(rows)) == 1
        assert MarkdownIt("commonmark").enable("table").render(front_matter.split(card("nasty"))[1]).count("<table>") == 9

    def test_nothing_unseen_is_left_in_the_text(self) -> None:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e]", front_matter.split(card("nasty"))[1])

    def test_the_marks_stand_once_each(self) -> None:
        body = front_matter.split(card("nasty"))[1]
        assert (
            len(re.findall(r"^<!-- hfdk:begin", body, re.MULTILINE))
            == len(re.findall(r"^<!-- hfdk:end", body, re.MULTILINE))
            == 1
        )
        assert merge_card(card("nasty"), card("nasty")) == card("nasty")


@pytest.mark.parametrize(
    "text",
    [
        "# a",
        "- a",
        "+ a",
        "1. a",
        "2) a",
        "---",
        "===",
        "> a",
        "a_b_c",
        "_a_",
        "*a*",
        "~~a~~",
        "`a`",
        "[a](b)",
        "![a](b)",
        "<b>",
        "&amp;",
        "\\",
        "|a|",
    ],
)
def test_inline_shows_the_text_itself(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"- {inline(text)}\n")
    assert re.sub(r"&(amp|lt|gt);", lambda m: {"amp": "&", "lt": "<", "gt": ">"}[m[1]], html) == f"<ul>\n<li>{text}</li>\n</ul>\n"


def test_pieces_of_markdown() -> None:
    assert inline("snake_case 0.5 and 1,000") == "snake_case 0.5 and 1,000"
    assert len(inline("x" * 10_000)) == 300
    assert (code("a b"), code("a`b"), code("")) == ("`a b`", "a\\`b", "")
    assert fenced("```\nx\n````") == "`````\n```\nx\n````\n`````"
    assert (literal("a cat"), literal("\u202e")) == ('"a cat"', "'\\u202e'")


OWN = """---
license: mit
tags:
- mine
- lora
language: en
---

My own words.

{block}

More of them, with <!-- hfdk:end --> in a line.
"""


def test_the_owners_text_and_keys_stay() -> None:
    first, second = card("digit-four-lora"), model_card(replace(record("digit-four-lora"), steps=500), "you/digit-four-lora")
    block = front_matter.split(first)[1].strip()
    merged = merge_card(OWN.replace("{block}", block), second)
    assert merged.startswith("---\nlibrary_name: diffusers\n")
    body = front_matter.split(merged)[1]
    assert body.startswith("\nMy own words.\n\n<!-- hfdk:begin")
    assert body.endswith("<!-- hfdk:end -->\n\nMore of them, with <!-- hfdk:end --> in a line.\n")
    assert "in 500 steps" in body and "in 400 steps" not in body
    told = front_matter.read(merged)
    assert told["language"] == "en" and told["license"] == "apache-2.0"
    assert told["tags"] == [*front_matter.read(first)["tags"], "mine"]
    assert merge_card(merged, second) == merged
    assert merge_card(first, second) == second


def test_a_card_of_another_hand_goes_below() -> None:
    new = card("digit-four-lora")
    for old in ("# Mine\n\ntext\n", "---\nlanguage: en\n---\n# Mine\n\ntext\n", "<!-- hfdk:begin -->\n# Mine\n\ntext\n"):
        merged = merge_card(old, new)
        assert merged.count("# digit-four-lora") == 1 and merged.endswith("\n# Mine\n\ntext\n")
        assert merged.index("hfdk:end") < merged.index("# Mine")
    assert merge_card("", new) == new
    with pytest.raises(HubError, match=r"README\.md: of the card that is there, the metadata is not YAML \(line 2\)"):
        merge_card("---\na: [\n---\n", new)


@pytest.mark.parametrize("text", ["", "# a", "---\n---\n# a", "a: b\n---\nc: d\n---\n"])
def test_front_matter_that_is_not_there(text: str) -> None:
    assert front_matter.read(text) == {}
    assert front_matter.split(text) == (None, text)


def test_front_matter_comes_back_as_it_went() -> None:
    told = {"a": "x ---", "b": "---\n---\n", "c": ["{{7*7}}", "\x00", "猫", "\u202e", "yes", "1"], "d": {"e": None, "f": True}}
    assert front_matter.read(front_matter.written(told) + "\nbody\n---\n") == told
    for end in ("\r\n", "\n"):
        assert front_matter.split(f"---{end}a: 1{end}---{end}body") == ("a: 1", "body")
    with pytest.raises(ValueError, match="not a list of"):
        front_matter.read("---\n- a\n---\n")


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    told = bare(gallery=[Shown("a.png", "a", 0, 1, 1.0)], verified=[Verified("f", "r", "a", 0, 0.0)], scores={"b": 1.0, "a": 2.0})
    told.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == told
    assert list(RunRecord.load(tmp_path / "run.json").scores) == ["b", "a"]  # the order is the author's
    raw = json.loads((tmp_path / "run.json").read_text())
    for broken in ({**raw, "schema": 99}, {**raw, "colour": 1}, {**raw, "gallery": [{"colour": 1}]}, []):
        (tmp_path / "run.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError):
            RunRecord.load(tmp_path / "run.json")
