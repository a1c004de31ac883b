"""run.json -> README.md of an adapter's repository, by the Hub's rules for what its pages show."""

from collections import Counter
from typing import Any
from urllib.parse import quote

import tomlkit

from ..records import CaptionUse, Pinned, RunRecord
from .limits import EMBEDDED, limits
from .markdown import Markdown, code, fenced, inline, literal
from .page import counted, page

METHODS = {"lora": "LoRA", "dreambooth": "DreamBooth LoRA"}
"""How a method is called in a sentence; another one by its own name."""
MOST_USED = 5
"""Captions that are shown; run.json has all of them."""


def model_card(record: RunRecord, repo_id: str) -> str:
    """The whole README.md. A section without facts is left out; text from the record is never read as Jinja, HTML or Markdown."""
    return page("lora.md.jinja", metadata(record), facts(record, repo_id), made_from="run.json")


def metadata(record: RunRecord) -> dict[str, Any]:
    """What the Hub reads: the snippet, the gallery, the model tree and the search are made from these."""
    base, data = record.base_model, record.data
    told: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if base.license:
        told["license"] = base.license
    if base.license == "other" and base.on_hub:
        told |= {"license_name": f"{base.id.split('/')[-1].lower()}-license", "license_link": f"https://huggingface.co/{base.id}"}
    if base.on_hub:
        told |= {"base_model": base.id, "base_model_relation": "adapter"}
    if data.hub and data.hub.on_hub:
        told["datasets"] = [data.hub.id]
    tags = ["text-to-image", "diffusers", "lora", "template:sd-lora", record.method, "hf-diffusion-kit"]
    told["tags"] = list(dict.fromkeys(tags))
    if record.method == "dreambooth" and (subject := most_used(record)):
        told["instance_prompt"] = subject[0].text
    if record.gallery:
        told["widget"] = [{"text": shown.caption, "output": {"url": shown.file}} for shown in record.gallery]
    return told


def facts(record: RunRecord, repo_id: str) -> dict[str, Any]:
    """What the template names. `Markdown` values go in as they are, all others are escaped."""
    return {
        "record": record,
        "title": repo_id.split("/")[-1],
        "method": METHODS.get(record.method, record.method),
        "base": base_link(record.base_model),
        "embedded": record.base_model.id in EMBEDDED and not record.base_model.on_hub,
        "compared": [shown for shown in record.gallery if shown.before],
        "draws": draws(record),
        "snippet": fenced(snippet(record, repo_id), "python") if record.weights else None,
        "settings": fenced(as_toml(record.settings), "toml"),
        "again": fenced("\n".join(filter(None, (record.data.recipe, record.command)))),
        "captions": {role: told for role in ("instance", "class") if (told := caption_facts(record, role))},
        "shown_captions": most_used(record)[:MOST_USED],
        "limits": limits(record),
    }


def base_link(base: Pinned) -> Markdown:
    if not base.on_hub:
        known = "a small Stable Diffusion that comes with hf-diffusion-kit" if base.id in EMBEDDED else "which is not on the Hub"
        return Markdown(f"{code(base.id)}, {known}")
    at = f"/tree/{base.revision}" if base.revision else ""
    commit = f" at commit {code(base.revision[:12])}" if base.revision else ""
    return Markdown(f"[{inline(base.id)}](https://huggingface.co/{quote(base.id)}{quote(at)}){commit}")


def draws(record: RunRecord) -> str:
    """`10 steps, guidance 2`, where all pictures of the gallery agree."""
    kinds = {(shown.steps, shown.guidance) for shown in record.gallery}
    return ", ".join(f"{counted(steps, 'step')}, guidance {guidance:g}" for steps, guidance in kinds) if len(kinds) == 1 else ""


def snippet(record: RunRecord, repo_id: str) -> str:
    """Runs as it stands; it draws the first picture of the gallery again."""
    base, weights = record.base_model, next((w for w in record.weights if w.format == "diffusers-lora"), record.weights[0])
    imports, opened = ["import torch", "from diffusers import DiffusionPipeline"], literal(base.id)
    if base.on_hub:
        opened += f", revision={literal(base.revision)}" if base.revision else ""
    elif base.id in EMBEDDED:
        imports.append("from hf_diffusion_kit.digits import path  # pip install hf-diffusion-kit")
        opened = f"path({opened})"
    else:
        imports, opened = [*imports, "", f"BASE = {opened}  # your copy of the base: its folder"], "BASE"
    lines = [
        *imports,
        "",
        f"pipe = DiffusionPipeline.from_pretrained({opened})",
        f"pipe.load_lora_weights({literal(repo_id)}, weight_name={literal(weights.file)})",
    ]
    subjects = most_used(record)
    if record.gallery:
        shown = record.gallery[0]
        size = resolution(record)
        lines += [
            "picture = pipe(",
            f"    {literal(shown.caption)},",
            *([f"    height={size[0]},", f"    width={size[1]},"] if size else []),
            f"    num_inference_steps={shown.steps},",
            f"    guidance_scale={shown.guidance},",
            f"    generator=torch.Generator().manual_seed({shown.seed}),",
            ").images[0]",
        ]
    elif subjects:
        lines.remove("import torch")
        lines.append(f"picture = pipe({literal(subjects[0].text)}).images[0]")
    return "\n".join([*lines, *(['picture.save("picture.png")'] if record.gallery or subjects else [])])


def resolution(record: RunRecord) -> tuple[int, int] | None:
    """Height and width that the run was set to; None where it took the base's own."""
    told = record.settings.get("training", {}).get("resolution")
    return (*told, *told)[:2] if told else None


def as_toml(settings: dict[str, Any]) -> str:
    """The settings as run.toml has them; what is not set, and the repository itself, are left out."""
    told = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in settings.items()
        if section != "publish"
    }
    return tomlkit.dumps(told)


def most_used(record: RunRecord) -> list[CaptionUse]:
    """The captions of the subject, the most used first; a text that several pictures share is one line."""
    times: Counter[str] = Counter()
    first: dict[str, CaptionUse] = {}
    for use in record.captions:
        if use.role == "instance" and use.text and use.times:
            times[use.text] += use.times
            first.setdefault(use.text, use)
    ranked = sorted(first.values(), key=lambda use: -times[use.text])
    return [CaptionUse("", "", use.text, times[use.text], use.tokens, use.tokens_cut) for use in ranked]


def caption_facts(record: RunRecord, role: str) -> dict[str, int] | None:
    """Counts over the caption ledger; None when nothing of this role was shown."""
    lines = [use for use in record.captions if use.role == role]
    seen = [use for use in lines if use.text and use.times]
    if not lines:
        return None
    known = record.data.captions if role == "instance" and record.data.captions is not None else sum(bool(u.text) for u in lines)
    return {
        "pictures": len({use.image_id for use in lines if use.times}),
        "seen": len(seen),
        "times": sum(use.times for use in seen),
        "cut": sum(bool(use.tokens_cut) for use in seen),
        "tokens_cut": sum(use.tokens_cut for use in seen),
        "unused": max(0, known - len(seen)),
        "emptied": sum(use.times for use in lines if not use.text),
    }
