"""The only door to the network: plan, secrets, push, verify; and the embedded local Hub.

Names are looked up when they are used, so `import hf_diffusion_kit.hub` loads neither huggingface_hub nor starlette.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Door": "door",
    "Fault": "faults",
    "Finding": "secrets",
    "LocalHub": "local",
    "Plan": "plan",
    "Preflight": "preflight",
    "Pushed": "publish",
    "make_plan": "plan",
    "preflight": "preflight",
    "push": "publish",
    "scan_file": "secrets",
    "serve": "local",
    "stage_folder": "plan",
}
"""Public name -> the module of this room that has it."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
