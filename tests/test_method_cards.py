"""Each method has a card that is true of it: tags, trigger words, the way to use it, what was set; and nothing of another method."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.cards import front_matter, model_card
from hf_diffusion_kit.cards.reader import loading
from hf_diffusion_kit.cards.snippet import FOLLOWS
from hf_diffusion_kit.hub.web import rendered
from hf_diffusion_kit.methods import METHODS
from hf_diffusion_kit.records import CaptionUse, Verified
from test_cards import NAMES, bare, card, record

TAGS = {
    "coco-cats-lora": {"stable-diffusion", "lora", "template:sd-lora"},
    "digit-four-lora": {"lora", "template:sd-lora", "dreambooth"},
    "sks-dog-dreambooth": {"stable-diffusion-xl", "lora", "template:sd-lora", "dreambooth"},
    "night-loha": {"stable-diffusion", "peft", "loha"},
    "coco-cats-full": {"stable-diffusion", "full-finetuning"},
    "sks-dog-dreambooth-full": {"stable-diffusion", "dreambooth", "full-finetuning"},
    "cat-toy-textual-inversion": {"stable-diffusion-xl", "textual_inversion"},
    "fern-pivotal": {"stable-diffusion", "lora", "template:sd-lora", "textual_inversion", "pivotal-tuning"},
}
"""Without those that all have. `lora` has the Hub say `load_lora_weights`: it is for nothing else."""


def test_every_method_has_a_golden_card() -> None:
    assert {record(name).method for name in TAGS} == set(METHODS) and set(NAMES) == {*TAGS, "nasty"}


@pytest.mark.parametrize("name", TAGS)
def test_tags_and_relation_are_those_of_the_method(name: str) -> None:
    told = front_matter.read(card(name))
    assert set(told["tags"]) - {"text-to-image", "diffusers", "hf-diffusion-kit"} == TAGS[name]
    relation = "finetune" if "full-finetuning" in TAGS[name] else "adapter"
    assert told.get("base_model_relation") == (relation if record(name).base_model.on_hub else None)


def test_trigger_words() -> None:
    prompts = {name: front_matter.read(card(name)).get("instance_prompt") for name in TAGS}
    assert prompts == {
        **dict.fromkeys(TAGS),
        "digit-four-lora": "a handwritten four",
        "sks-dog-dreambooth": "photo of sks dog",
        "sks-dog-dreambooth-full": "photo of sks dog",
        "cat-toy-textual-inversion": "<cat-toy>",
        "fern-pivotal": "<fern>, <quilt>",
    }
    assert "| `<cat-toy>` | 2 | `toy` |" in card("cat-toy-textual-inversion")
    assert "| `<quilt>` | 1 | random numbers |" in card("fern-pivotal")
    assert all(("## Trigger words" in card(name)) == ("textual_inversion" in TAGS[name]) for name in TAGS)


@pytest.mark.parametrize("name", TAGS)
def test_nothing_is_said_of_another_method(name: str) -> None:
    text = front_matter.split(card(name))[1].partition("## All settings")[0].lower()
    full, words = "full-finetuning" in TAGS[name], "textual_inversion" in TAGS[name]
    assert ("adapter" in text) == bool(TAGS[name] & {"lora", "peft"})
    assert ("fine-tune" in text) == ("whole pipeline" in text) == ("safety checker" in text) == full
    assert ("new word" in text) == words
    assert ("prior preservation" in text) == ("dreambooth" in TAGS[name])
    assert not re.search(r"\b(?:None|nan)\b|\{\{|Undefined", text)


def snippet(text: str) -> str:
    (found,) = re.findall(r"^(`{3,})python\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    return str(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_snippet_is_python_and_says_what_the_record_says(name: str) -> None:
    """That the calls are the right ones is shown in test_published.py, where stock packages run them."""
    told, shown, calls = record(name), record(name).gallery[0], []

    class Anything:
        def __getattr__(self, attribute: str) -> Any:
            return lambda *args, **how: calls.append((attribute, args, how)) or self

        def __call__(self, prompt: str, **how: Any) -> Any:
            calls.append(("call", (prompt,), how))
            raise StopIteration

    source = re.sub(r"^from (?:diffusers|peft) import .*$", "", snippet(card(name)), flags=re.MULTILINE)
    source = re.sub(rf"^pipe\.scheduler = {FOLLOWS}[^)]*\)$", "", source, flags=re.MULTILINE)
    with pytest.raises(StopIteration):
        exec(compile(source, name, "exec"), {"DiffusionPipeline": Anything(), "PeftModel": Anything()})
    (_, opened, how), *loaded, (_, drawn, drawing) = calls
    whole = told.verified[0].format == "pipeline"
    assert Path(str(opened[0])).name == Path(f"you/{name}" if whole else told.base_model.id).name
    assert how.get("revision") == (None if whole else told.base_model.revision)
    assert drawn == (shown.caption,) and drawing["generator"].initial_seed() == shown.seed
    assert (drawing["num_inference_steps"], drawing["guidance_scale"]) == (shown.steps, shown.guidance)
    size = (told.settings["training"].get("resolution") or [None]) * 2
    assert (drawing.get("height"), drawing.get("width")) == tuple(size[:2])
    assert all(f"you/{name}" in args for _, args, _ in loaded)
    named = {how.get("weight_name") or f"{how['subfolder']}/adapter_model.safetensors" for _, _, how in loaded}
    assert named == (set() if whole else {file.file for file in told.weights if file.file.endswith(".safetensors")})


def verified(reader: str) -> list[Verified]:
    return [Verified("f", reader, "a", 0, 0.0)]


@pytest.mark.parametrize(
    "reader",
    [
        "",
        "`r`|\n# x",
        ".from_pretrained(FOLDER) + __import__('os').remove('x')",
        ".from_pretrained(BASE) + .load_lora_weights(FOLDER, weight_name=open('x').read())",
        ".from_pretrained(BASE) + .load_lora_weights(*FOLDER)",
        ".from_pretrained(BASE) + .load_lora_weights(**FOLDER)",
        ".from_pretrained(BASE) + .load_lora_weights(FOLDER); import os",
        ".from_pretrained(BASE) + PeftModel.from_pretrained(pipe.unet.x, FOLDER)",
        ".from_pretrained(BASE) + .load_lora_weights",
        ".from_pretrained(BASE) + .load_lora_weights(b'x')",
    ],
)
def test_a_reader_that_is_more_than_plain_calls_makes_no_snippet(reader: str) -> None:
    assert loading(verified(reader), "you/x") is None
    assert "```python" not in model_card(bare(verified=verified(reader)), "you/x")


def test_what_was_set_is_told_and_what_was_not_is_not() -> None:
    full, loha = card("coco-cats-full"), card("night-loha")
    for row in (
        "| loss | min-SNR weights (gamma 5) |",
        "| averaged weights | decay 0.9999, the files hold the average |",
        "| captions | the longest of each picture, 10% left empty |",
        "| pictures a step | 8 (4 at once × 2 batches) |",
        "| 512 × 512 | 12 | 5% | 14% | 0 |",
        "lowest 0.1187 at step 400",
    ):
        assert row in full
    for row in (
        "| noise | down to pure noise (zero terminal SNR) |",
        "| loss | Huber (c 0.1) |",
        "| adapter | LoHa, rank 8, alpha 4",
    ):
        assert row in loha
    assert (
        "| stages | the text side for 350 steps (the denoiser learnt along and was set back), then the denoiser alone |"
        in card("sks-dog-dreambooth-full")
    )
    assert "| prior preservation | weight 1, by the base's own answers under: photo of a dog |" in card("sks-dog-dreambooth")
    assert "without prior preservation" in card("sks-dog-dreambooth-full")
    assert "without prior preservation" not in card("sks-dog-dreambooth") + card("digit-four-lora")
    for name, absent in (
        ("coco-cats-lora", ("loss", "noise", "stages", "averaged weights", "crop")),
        ("coco-cats-full", ("adapter",)),
    ):
        assert not any(f"\n| {row} |" in card(name) for row in absent)


def test_shuffled_tags_are_not_counted_as_captions() -> None:
    """Of one caption there are many texts then; how many were left over, the notes of the run say."""
    uses = [CaptionUse("1", "1.png", text, 1, 4, 0) for text in ("a, b", "b, a")]
    data = replace(bare().data, captions=9)
    plain, shuffled = (bare(captions=uses, data=data, settings={"training": {"caption_shuffle": on}}) for on in (False, True))
    assert "Not used: 7." in model_card(plain, "you/x") and "Not used" not in model_card(shuffled, "you/x")


def test_pages_of_pictures_are_shown_where_they_are() -> None:
    assert "(images/loss.png)" in card("coco-cats-lora") and "(images/progress.png)" in card("coco-cats-lora")
    assert "images/loss.png" not in model_card(bare(), "you/x") and "images/progress.png" not in model_card(bare(), "you/x")


def test_strange_words_are_shown_and_not_read() -> None:
    """As tokens and their beginnings, where the nasty record has none."""
    strange = ["<b>", "`|x", "**a**", "<gallery", "/>"]
    settings = {"method": {"tokens": strange, "initializer": strange}}
    text = model_card(bare(method="textual-inversion", settings=settings), "you/x")
    html = rendered(front_matter.split(text)[1].partition("## All settings")[0], "")
    assert not re.search(r"<(?!/?(?:h1|h2|p|table|thead|tbody|tr|th|td|code|ul|li)\b)", html) and "<strong>" not in html
    rows = re.findall(r"<tr>.*?</tr>", html.partition("Trigger words")[2].partition("</table>")[0], re.DOTALL)
    assert [row.count("<td>") for row in rows] == [0, 3, 3, 3, 3, 3]
