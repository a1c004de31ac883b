"""Tables of the README that are made from the registries, so that they cannot promise what is not there.

python docs/tables.py     writes them into README.md between their marks
"""

import json
from pathlib import Path

from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.methods import METHODS

README = Path(__file__).parent.parent / "README.md"
FAMILY = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3, 3.5",
    "flux": "FLUX.1 [dev]",
    "flux-schnell": "FLUX.1 [schnell]",
    "flux2-klein": "FLUX.2 [klein]",
    "z-image": "Z-Image",
    "qwen-image": "Qwen-Image",
    "sana": "Sana",
    "lumina2": "Lumina-Image 2",
    "auraflow": "AuraFlow",
    "chroma": "Chroma",
}
METHOD = {
    "lora": "adapters on captioned pictures: LoRA, rsLoRA, DoRA, LoHa, LoKr, OFT",
    "dreambooth": "the same for a few pictures of a subject, held in check by its class",
    "full": "all weights of the denoiser",
    "dreambooth-full": "all weights, for a subject",
    "textual-inversion": "new words; the model stays as it is",
    "pivotal": "new words and adapters together",
}


SOME = ("kohya", "single-file")
"""Formats that not every family has."""
WEIGHTS = Path(__file__).parent.parent / "benchmarks" / "results" / "memory.json"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods() -> str:
    return table(["method", "what learns"], [[f"`{name}`", METHOD[name]] for name in METHODS])


def families() -> str:
    """A row a family; each method is a case of tests/test_methods.py, each format one of test_formats.py, test_kohya.py, test_single_file.py."""

    def tick(there: bool) -> str:
        return "✓" if there else "–"

    rows = [
        [
            f"{FAMILY.get(name, name)} (`{name}`)",
            *(tick(method.fits(kind)) for method in METHODS.values()),
            *(tick(FORMATS[form].takes(kind)) for form in SOME),
        ]
        for name, kind in FAMILIES.items()
    ]
    return table(["family", *(f"`{name}`" for name in (*METHODS, *SOME))], rows)


def memory() -> str:
    """What a LoRA of each base takes, from benchmarks/memory.py."""
    told = json.loads(WEIGHTS.read_text(encoding="utf-8"))["rows"]
    head = [
        "base",
        "pixels",
        "denoiser",
        "weights, bf16",
        "activations",
        "with checkpointing",
        "a step",
        "with checkpointing",
        "and nf4",
    ]
    rows = [
        [
            row["base"],
            str(row["resolution"]),
            f"{row['denoiser_billions']:.1f} B",
            *(f"{row[name]:.1f} GB" for name in ("weights_gb", "activations_gb", "activations_checkpointed_gb")),
            *(f"{row[name]:.1f} GB" for name in ("step_gb", "step_checkpointed_gb", "step_checkpointed_4bit_gb")),
        ]
        for row in told
    ]
    return table(head, rows)


TABLES = {"methods": methods, "families": families, "memory": memory}


def written(text: str) -> str:
    """The README with its tables made anew."""
    for name, make in TABLES.items():
        before, rest = text.split(f"<!-- table: {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}<!-- table: {name} -->\n{make()}\n<!-- end -->{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
