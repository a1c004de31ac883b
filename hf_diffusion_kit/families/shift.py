"""How far flow-matching schedulers move their times towards noise, which larger pictures need (Esser et al. 2024, section 5.3.2)."""

import math
from collections.abc import Mapping
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler


def flows(scheduler: Any) -> bool:
    """Whether it draws along straight lines: FlowMatchEuler, and other solvers that were told to."""
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or bool(scheduler.config.get("use_flow_sigmas"))


def scheduler_shift(config: Mapping[str, Any], tokens: int) -> float:
    """The shift of such a scheduler for a picture of so many tokens: fixed, or a matter of the size.

    Pipelines with `use_dynamic_shifting` take mu from the line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift),
    and t becomes exp(mu) / (exp(mu) + 1 / t - 1), or mu / (mu + 1 / t - 1): in both cases a shift.
    """
    if config.get("use_flow_sigmas"):  # DPM-Solver, UniPC ...
        return float(config["flow_shift"])
    if not config.get("use_dynamic_shifting"):
        return float(config["shift"])
    start, end = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (end - start)
    mu = config["base_shift"] + slope * (tokens - start)
    return float(mu if config.get("time_shift_type") == "linear" else math.exp(mu))
