"""run.json -> README.md of a run's repository, by the Hub's rules for what its pages show."""

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import tomlkit

from ..records import Pinned, RunRecord
from .chosen import chosen
from .ledger import caption_facts, most_used
from .limits import is_embedded, limits
from .made import adapter, formats, headline, is_whole, listed, method_settings, new_words, tags, this
from .markdown import Markdown, code, fenced, inline
from .page import counted, page
from .snippet import snippet

MOST_USED = 5
"""Captions that are shown; run.json has all of them."""
LOSS, PROGRESS = "images/loss.png", "images/progress.png"


def model_card(record: RunRecord, repo_id: str, pages: Collection[str] = ()) -> str:
    """The whole README.md. A section without facts is left out; text from the record is never read as Jinja, HTML or Markdown.

    `pages`: which of images/loss.png and images/progress.png lie beside it.
    """
    return page("model.md.jinja", metadata(record), facts(record, repo_id, pages), made_from="run.json")


def metadata(record: RunRecord) -> dict[str, Any]:
    """What the Hub reads: the snippet, the gallery, the model tree and the search are made from these."""
    base, data = record.base_model, record.data
    told: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if base.license:
        told["license"] = base.license
    if base.license == "other" and base.on_hub:
        told["license_name"] = base.license_name or f"{base.id.split('/')[-1].lower()}-license"
        told["license_link"] = base.license_link or f"https://huggingface.co/{base.id}"
    if base.on_hub:
        told |= {"base_model": base.id, "base_model_relation": "finetune" if is_whole(record) else "adapter"}
    if data.hub and data.hub.on_hub:
        told["datasets"] = [data.hub.id]
    told["tags"] = tags(record, family=not is_embedded(base))
    if triggers := new_words(record):
        told["instance_prompt"] = ", ".join(triggers)
    elif record.method.startswith("dreambooth") and (subject := most_used(record)):
        told["instance_prompt"] = subject[0].text
    if record.gallery:
        told["widget"] = [{"text": shown.caption, "output": {"url": shown.file}} for shown in record.gallery]
    return told


def facts(record: RunRecord, repo_id: str, pages: Collection[str]) -> dict[str, Any]:
    """What the template names. `Markdown` values go in as they are, all others are escaped."""
    using = snippet(record, repo_id)
    weights = [file for file in record.weights if file.file.endswith(".safetensors")]
    return {
        "record": record,
        "title": repo_id.split("/")[-1],
        "headline": headline(record, base_link(record.base_model)),
        "with_it": "by this model" if is_whole(record) else f"with {this(record)}",
        "compared": [shown for shown in record.gallery if shown.before],
        "draws": draws(record),
        "words": words(record),
        "needs": Markdown(
            listed([code(name) for name in ("diffusers", "transformers", *(("peft",) if adapter(record) else ()))])
        ),
        "bits": next((told.quantize for told in record.verified if told.quantize != "no"), None),
        "by_peft": "peft" in formats(record),
        "snippet": fenced(using, "python") if using else None,
        "chosen": chosen(record),
        "parameters": {trained(part): count for part, count in record.parameters.items()},
        "loss": LOSS if LOSS in pages else None,
        "progress": PROGRESS if PROGRESS in pages else None,
        "settings": fenced(as_toml(record.settings), "toml"),
        "again": fenced("\n".join(filter(None, (record.data.recipe, record.command)))),
        "captions": {role: told for role in ("instance", "class") if (told := caption_facts(record, role))},
        "shown_captions": most_used(record)[:MOST_USED],
        "weights": weights,
        "other_files": [file for file in record.weights if file not in weights],
        "whole": is_whole(record),
        "license": license_named(record.base_model),
        "gate": gate(record.base_model),
        "limits": limits(record),
    }


def base_link(base: Pinned) -> Markdown:
    if not base.on_hub:
        known = "a small Stable Diffusion that comes with hf-diffusion-kit" if is_embedded(base) else "which is not on the Hub"
        return Markdown(f"{code(base.id)}, {known}")
    at = f"/tree/{base.revision}" if base.revision else ""
    commit = f" at commit {code(base.revision[:12])}" if base.revision else ""
    return Markdown(f"[{inline(base.id)}](https://huggingface.co/{quote(base.id)}{quote(at)}){commit}")


def license_named(base: Pinned) -> Markdown:
    """`apache-2.0`; of one that the Hub has no id for, its name and where its text stands."""
    named = code((base.license_name if base.license == "other" else None) or base.license or "")
    link = base.license_link or ""
    return Markdown(f"[{named}]({quote(link, safe=':/')})" if link.startswith("https://") else named)


def gate(base: Pinned) -> Markdown | None:
    if not (base.gated and base.on_hub):
        return None
    page = f"https://huggingface.co/{quote(base.id)}"
    return Markdown(f"The base is gated: whoever wants to load it accepts its terms at [{inline(base.id)}]({page}) first.")


def draws(record: RunRecord) -> str:
    """`10 steps, guidance 2`, where all pictures of the gallery agree."""
    kinds = {(shown.steps, shown.guidance) for shown in record.gallery}
    return ", ".join(f"{counted(steps, 'step')}, guidance {guidance:g}" for steps, guidance in kinds) if len(kinds) == 1 else ""


def words(record: RunRecord) -> list[tuple[str, int, str]]:
    """(new word, its vectors, the known word that it began as or nothing)."""
    method = method_settings(record)
    begun, vectors = method.get("initializer") or (), int(method.get("vectors", 1))
    return [(word, vectors, begun[place] if place < len(begun) else "") for place, word in enumerate(new_words(record))]


def trained(part: str) -> str:
    """A part's trained numbers, as a row of the table is called."""
    place = part.removesuffix(" tokens")
    return f"trained numbers in {place}" if place == part else f"trained numbers of new words in {place}"


def as_toml(settings: dict[str, Any]) -> str:
    """The settings as run.toml has them; what is not set, and the repository itself, are left out."""
    told = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in settings.items()
        if section != "publish"
    }
    return tomlkit.dumps(told)
