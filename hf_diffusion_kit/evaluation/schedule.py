from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler

FOLLOWS = DDIMScheduler
"""Draws where training changed the noise schedule: PNDM, SD1.5's own, and some others would ignore the change without a word."""


def follow(pipe: Any, hints: Mapping[str, object]) -> None:
    """Sets what a reader must set at the scheduler, where training changed the noise schedule; nothing otherwise."""
    if hints:
        pipe.scheduler = FOLLOWS.from_config(pipe.scheduler.config, **hints)
