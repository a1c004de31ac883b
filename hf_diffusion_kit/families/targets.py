"""Which layers a LoRA adapts, by name: ends of layer names for U-Nets and CLIP text encoders of diffusers and transformers."""

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
    layers = {name: isinstance(module, nn.Linear) for name, module in model.named_modules() if has_weight(module)}
    others = {end(name) for name, linear in layers.items() if not linear}
    return tuple(sorted({name if end(name) in others else end(name) for name, linear in layers.items() if linear}))


def has_weight(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), nn.Parameter)


def end(name: str) -> str:
    """The last word of a layer's name, with the word before it where it is a mere number."""
    words = name.split(".")
    return ".".join(words[-2:]) if words[-1].isdigit() else words[-1]
