"""How to use what a run made, as Python that runs as it stands."""

from ..records import RunRecord
from .ledger import most_used
from .limits import is_embedded
from .made import is_whole
from .markdown import literal
from .reader import call, loading, plain

FOLLOWS = "DDIMScheduler"
"""The stock scheduler that draws by a noise schedule which training changed (a test holds it against evaluation/schedule.py)."""


def snippet(record: RunRecord, repo_id: str) -> str | None:
    """It draws the first picture of the gallery again. None where the record does not tell how the files are opened."""
    lines = loading(record.verified, repo_id)
    if lines is None:
        return None
    imports, opened = opening(record, repo_id)
    if any(line.startswith("PeftModel.") for line in lines):
        imports.insert(1, "from peft import PeftModel")
        lines.insert(0, "# peft changes the parts in place")
    told = scheduler(record)
    if told:
        imports[0] = f"from diffusers import {FOLLOWS}, DiffusionPipeline"
    body = [f"pipe = {call('DiffusionPipeline.from_pretrained', opened)}", *lines, *told]
    if not is_embedded(record.base_model):
        body.append(f"# pipe.to({on_a_gpu(record)}) where there is a GPU")
    drawn = drawing(record)
    return "\n".join([*(["import torch"] if record.gallery else []), *imports, "", *body, *drawn])


def opening(record: RunRecord, repo_id: str) -> tuple[list[str], list[str]]:
    """(imports and constants, arguments of `from_pretrained`)."""
    imports, base = ["from diffusers import DiffusionPipeline"], record.base_model
    if is_whole(record):
        return imports, [literal(repo_id)]
    if base.on_hub:
        return imports, [literal(base.id), *([f"revision={literal(base.revision)}"] if base.revision else [])]
    if is_embedded(base):
        imports.append("from hf_diffusion_kit.digits import path  # pip install hf-diffusion-kit")
        return imports, [f"path({literal(base.id)})"]
    return [*imports, "", f"BASE = {literal(base.id)}  # your copy of the base: its folder"], ["BASE"]


def scheduler(record: RunRecord) -> list[str]:
    """Where training changed the noise schedule: the settings that a reader has to make."""
    told = [f"{name}={plain(value)}" for name, value in record.scheduler.items() if name.isidentifier()]
    return [f"pipe.scheduler = {call(f'{FOLLOWS}.from_config', ['pipe.scheduler.config', *told])}"] if told else []


def on_a_gpu(record: RunRecord) -> str:
    """In the precision of the run: half of it needs half the memory."""
    told = record.settings.get("training", {}).get("mixed_precision")
    half = {"bf16": ", torch.bfloat16", "fp16": ", torch.float16"}.get(str(told), "")
    return f'"cuda"{half if record.gallery else ""}'


def drawing(record: RunRecord) -> list[str]:
    used = most_used(record)
    if record.gallery:
        shown, size = record.gallery[0], resolution(record)
        return [
            "picture = pipe(",
            f"    prompt={literal(shown.caption)},",
            *([f"    height={size[0]},", f"    width={size[1]},"] if size else []),
            f"    num_inference_steps={shown.steps},",
            f"    {record.guidance_argument}={shown.guidance},",
            *(f"    {name}={plain(value)}," for name, value in record.call_options.items() if name.isidentifier()),
            f"    generator=torch.Generator().manual_seed({shown.seed}),",
            ").images[0]",
            'picture.save("picture.png")',
        ]
    return [f"picture = pipe(prompt={literal(used[0].text)}).images[0]", 'picture.save("picture.png")'] if used else []


def resolution(record: RunRecord) -> tuple[int, int] | None:
    """Height and width that the run was set to; None where it took the base's own."""
    told = record.settings.get("training", {}).get("resolution")
    return (*told, *told)[:2] if told else None
