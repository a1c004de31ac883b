"""Which layers a LoRA adapts, by name: ends of layer names for U-Nets and CLIP text encoders of diffusers and transformers."""

import fnmatch
from collections.abc import Sequence

from torch import nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_FEED_FORWARD = ("fc1", "fc2")
FROM_MODEL: tuple[str, ...] = ()

UNET = {
    "attention": ATTENTION,
    "attention+ff": (*ATTENTION, *FEED_FORWARD),
    "transformer": (*ATTENTION, *FEED_FORWARD, "proj_in", "proj_out"),
    "conv": (*ATTENTION, *FEED_FORWARD, "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "conv"),
    "all-linear": FROM_MODEL,
}
"""`attention` is what diffusers' scripts take, `transformer` what sd-scripts takes; `conv` adds the convolutions, as LoCon does."""

ADDED = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The text's own side of joint attention."""
JOINT = {
    "attention": (*ATTENTION, *ADDED),
    "attention+ff": (*ATTENTION, *ADDED, *FEED_FORWARD, "ff_context.net.0.proj", "ff_context.net.2"),
    "all-linear": FROM_MODEL,
}
"""Transformers that read text and picture together (SD3, FLUX.1, Qwen-Image ...)."""

TEXT = {
    "attention": TEXT_ATTENTION,
    "attention+ff": (*TEXT_ATTENTION, *TEXT_FEED_FORWARD),
    "transformer": (*TEXT_ATTENTION, *TEXT_FEED_FORWARD),
    "conv": (*TEXT_ATTENTION, *TEXT_FEED_FORWARD),
    "all-linear": (*TEXT_ATTENTION, *TEXT_FEED_FORWARD),
}
"""CLIP has no other linear layers but the projection of its pooled answer, whose adapter diffusers does not read."""


def linear_ends(model: nn.Module) -> tuple[str, ...]:
    """Ends of names that fit every linear layer of a model and no other layer."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    others = {end(name) for name, module in model.named_modules() if not isinstance(module, nn.Linear)}
    return tuple(sorted({name if end(name) in others else end(name) for name in layers}))


def named(model: nn.Module, ends: Sequence[str]) -> tuple[str, ...]:
    """The same ends, but for those with a `*`: they are patterns of whole names, for an end that fits other modules too."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return tuple(name for one in ends for name in (fnmatch.filter(layers, one) if "*" in one else [one]))


def end(name: str) -> str:
    """The last word of a layer's name, with the word before it where it is a mere number."""
    words = name.split(".")
    return ".".join(words[-2:]) if words[-1].isdigit() else words[-1]
