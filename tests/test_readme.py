"""What the README's tables promise is what the registries hold."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import hf_diffusion_kit
import tiny
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import METHODS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_registries(tables: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.written(text) == text, "run: python docs/tables.py"


def test_every_method_and_family_is_in_words_and_has_a_toy(tables: ModuleType) -> None:
    assert tables.METHOD.keys() == METHODS.keys()
    assert tables.FAMILY.keys() == FAMILIES.keys() == tiny.TOYS.keys()


def test_public_names_are_sorted_and_there() -> None:
    assert hf_diffusion_kit.__all__ == sorted(hf_diffusion_kit.__all__)
    for name in hf_diffusion_kit.__all__:
        assert getattr(hf_diffusion_kit, name).__doc__
