"""Which room may import which, and which outside package lives where. The table is the drawing of the house."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hf_diffusion_kit"
FILES = sorted(PACKAGE.rglob("*.py"))

TOP = {
    "bases",
    "class_pictures",
    "export",
    "hardware",
    "job",
    "launch",
    "lora_extract",
    "lora_files",
    "outcome",
    "presets",
    "publish",
    "recipe",
    "run",
    "trainers",
    "watch",
}
"""One file each, where rooms meet; they may import every room and each other."""
ROOMS = {  # room -> rooms below it that it may import
    "errors": set(),
    "records": set(),
    "sheet": set(),
    "objectives": {"errors"},
    "config": {"errors"},
    "web": {"errors"},
    "data": {"errors", "records", "sheet", "web", "cards", "hub"},
    "families": {"errors", "objectives"},
    "loras": {"errors"},
    "methods": {"errors", "objectives", "families", "loras"},
    "formats": {"errors", "families", "loras"},
    "evaluation": {"errors", "records", "families", "sheet"},
    "cards": {"errors", "records"},
    "hub": {"errors", "records", "cards"},
    "training": {"errors", "records", "config", "data", "objectives", "families", "methods"},
    "digits": {"errors", "objectives", "data", "sheet"},
    "studio": {"errors", "data", "hub"},
    "testing": {"hub"},
}
ABOVE = {"cli", "demo", "__init__", "__main__", *TOP}
TENANTS = {  # outside package -> the only rooms that may import it
    "accelerate": {"training"},
    "datasets": {"data"},
    "diffusers": {"families", "methods", "formats", "evaluation", "explain", "pipelines", "digits"},
    "huggingface_hub": {"hub", "cards"},
    "peft": {"methods", "formats"},
    "starlette": {"hub", "studio"},
    "transformers": {"families", "digits"},
    "uvicorn": {"hub"},
}
NO_TORCH = {"errors", "records", "sheet", "config", "web", "data", "cards", "hub", "cli", "__init__", "__main__"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[list[str], bool]]:
    """(dotted module below the package, or outside package; whether it is ours) for each import of the file."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = list(here[: len(here) - node.level + 1])
            names = [*base, *(node.module.split(".") if node.module else [])]
            yield from [(names, True)] if names else [([alias.name], True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            yield (parts[1:], True) if parts[0] == PACKAGE.name else (parts, False)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = room(path)
    assert own in ROOMS or own in ABOVE, f"{own} is not in the drawing"
    for parts, ours in imports(path):
        if ours and own in ROOMS and parts:
            assert parts[0] == own or parts[0] in ROOMS[own], f"{own} may not import {parts[0]}"
        if ours and own in TOP and parts:
            assert parts[0] not in ("cli", "demo"), f"{own} may not import {parts[0]}"
        if not ours and parts[0] in TENANTS:
            assert own in TENANTS[parts[0]], f"{parts[0]} may be imported only in {sorted(TENANTS[parts[0]])}"
        if not ours and own in NO_TORCH:
            assert parts[0] != "torch", f"{own} needs no torch"


@pytest.mark.parametrize("folder", ["families", "formats", "methods"])
def test_siblings_do_not_know_each_other(folder: str) -> None:
    for path in (PACKAGE / folder).glob("*.py"):
        siblings = {p.stem for p in path.parent.glob("*.py")} - {
            "__init__",
            "base",
            "opening",
            "quantized",
            "quiet",
            "shift",
            "targets",
            path.stem,
        }
        siblings -= {"adapters", "new_rows", "prior", "start", "tokens", "layers"}  # what methods and formats are made of
        siblings -= {"dreambooth": {"full", "lora"}, "pivotal": {"lora"}}.get(path.stem, set())  # a method and something more
        known = [parts for parts, ours in imports(path) if ours and parts[0] == folder and parts[-1] in siblings]
        assert path.stem == "__init__" or not known, path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_outgrows_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_rooms_make_no_circle() -> None:
    left = {name: set(below) for name, below in ROOMS.items()}
    while left:
        free = [name for name, below in left.items() if not below & left.keys()]
        assert free, f"circle among {set(left)}"
        for name in free:
            del left[name]


def test_importing_the_package_and_the_command_loads_nothing_heavy() -> None:
    heavy = ["torch", "diffusers", "transformers", "peft", "datasets", "huggingface_hub", "numpy", "PIL", "starlette", "jinja2"]
    code = f"import sys, hf_diffusion_kit, hf_diffusion_kit.cli as c; c.main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_public_names_are_sorted_and_there() -> None:
    import hf_diffusion_kit

    assert hf_diffusion_kit.__all__ == sorted(hf_diffusion_kit.__all__)
    for name in hf_diffusion_kit.__all__:
        assert getattr(hf_diffusion_kit, name) is not None
