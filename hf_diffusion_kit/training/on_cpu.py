"""A step on a CPU asks torch for the same answers by other ways, where those are faster. On other devices nothing changes.

A mode of torch's own sees each call (some 10 µs each); no layer and no function is exchanged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from .convolutions import convolved, fits


class Ways(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.conv2d and not kwargs and len(args) == 7 and fits(*args):
            return convolved(*args[:3])
        if function is scaled_dot_product_attention and narrow(args[0] if args else (kwargs or {})["query"]):
            return in_float32(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def narrow(query: Tensor) -> bool:
    """Whether attention is better taken in float32 than as it is: in bfloat16, where the machine has no matrix units for that."""
    return query.dtype == torch.bfloat16 and not has_matrix_units()


def in_float32(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *more: Any, **named: Any) -> Tensor:
    """Half the time, forward and back, at 16 to 4096 tokens (SD1.5's 1024: 60 ms against 105), and its sums are more exact."""
    mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    with torch.autocast("cpu", enabled=False):
        told: Any = (*(one.float() for one in (query, key, value)), mask, *more)
        return scaled_dot_product_attention(*told, **named).to(query.dtype)


@cache
def has_matrix_units() -> bool:
    """AMX, on Intel's servers since 2023; a virtual machine may not be shown it."""
    told: Any = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot say
    return bool(told.get("amx_bf16"))


@contextmanager
def faster(device: torch.device) -> Iterator[None]:
    """For what is asked on `device` inside."""
    if device.type != "cpu":
        yield
        return
    with Ways():
        yield


def checkpointed(layer: Callable[..., Any], *args: Any) -> Any:
    """What diffusers' models are told to checkpoint with. On the way back torch leaves the mode, and the layer is computed anew: by the
    same ways as before, or it would not be the same."""
    device = next((one.device for one in args if isinstance(one, Tensor)), torch.device("cpu"))
    return checkpoint(layer, *args, use_reentrant=False, context_fn=lambda: (faster(device), faster(device)))
