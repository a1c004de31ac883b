"""Tables of the README that are made from the registries, so that they cannot promise what is not there.

python docs/tables.py     writes them into README.md between their marks
"""

from pathlib import Path

from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import METHODS, fits

README = Path(__file__).parent.parent / "README.md"
FAMILY = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3, 3.5",
}
METHOD = {
    "lora": "adapters on captioned pictures: LoRA, rsLoRA, DoRA, LoHa, LoKr, OFT",
    "dreambooth": "the same for a few pictures of a subject, held in check by its class",
    "full": "all weights of the denoiser",
    "dreambooth-full": "all weights, for a subject",
    "textual-inversion": "new words; the model stays as it is",
    "pivotal": "new words and adapters together",
}


def methods_by_families() -> str:
    """A row a family, a column a method; each tick is a case of tests/test_methods.py and tests/test_formats.py."""
    head = ["family", *(f"`{name}`" for name in METHODS)]
    rows = [
        [f"{FAMILY.get(name, name)} (`{name}`)", *("✓" if fits(m, kind) else "–" for m in METHODS.values())]
        for name, kind in FAMILIES.items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"methods": methods_by_families}


def written(text: str) -> str:
    """The README with its tables made anew."""
    for name, make in TABLES.items():
        before, rest = text.split(f"<!-- table: {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}<!-- table: {name} -->\n{make()}\n<!-- end -->{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
