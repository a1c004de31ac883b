"""Weights, gradients and moments in one order in memory, for kernels that do not look at strides."""

from typing import Any

import torch
from torch.optim import Optimizer


def keep_layouts(optimizer: Optimizer) -> None:
    """Fused AdamW and bitsandbytes walk raw memory: where a weight lies channels-last and its gradient or moments do not, they would
    pair the wrong values, without an error. A model is turned channels-last and back while it trains.

    bitsandbytes turns weights to the plain layout for good, after it has laid out their moments. Here they are plain within the step only:
    a resumed run, which has not had that step, would else compute its next one in another layout, with other last bits.
    """
    raw = type(optimizer).__name__ == "AdamW8bit"
    wide = [p for group in optimizer.param_groups for p in group["params"] if p.dim() >= (2 if raw else 4)]
    turned: list[tuple[torch.Tensor, torch.Tensor]] = []

    def align(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        turned.clear()
        for parameter in wide:
            if raw and not parameter.is_contiguous():
                turned.append((parameter, parameter.data))
                parameter.data = parameter.data.contiguous()
            if parameter.grad is not None:
                parameter.grad = laid_out_as(parameter, parameter.grad)
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    state[key] = laid_out_as(parameter, value)

    def turn_back(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, memory in turned:
            parameter.data = memory.copy_(parameter.data)
        turned.clear()

    if wide:
        optimizer.register_step_pre_hook(align)
    if raw:
        optimizer.register_step_post_hook(turn_back)


def laid_out_as(like: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The same values in the order in memory that `like` has."""
    return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)
