"""Methods as they are asked of every family: what a family has not is left out of the question, and of nothing else."""

from dataclasses import replace
from typing import Any

from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Lora, Method

WIDER = {"transformer": "attention+ff", "conv": "all-linear"}
"""Preset of U-Nets -> what stands for it where there are no convolutions."""


def cells(methods: dict[str, Method]) -> list[tuple[str, str]]:
    """(family, method) for all that go together, by the names of both."""
    return [(name, how) for how, method in methods.items() for name, kind in FAMILIES.items() if method.fits(kind)]


def fitted(method: Method, name: str) -> Any:
    """The same method with a preset that this family knows, and with the text side where it can be trained."""
    kind, changes = FAMILIES[name], {}
    if isinstance(method, Lora) and method.preset not in kind.target_presets:
        changes["preset"] = WIDER[method.preset]
    if getattr(method, "text_encoder", False) and kind.trains_text_encoders == ():
        changes["text_encoder"] = False
    return replace(method, **changes) if changes else method  # type: ignore[type-var]
