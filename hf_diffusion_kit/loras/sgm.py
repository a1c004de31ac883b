"""The names that a U-Net's layers have in original Stable Diffusion checkpoints (Rombach et al. 2022), and back.

Only names: `down_blocks.1.attentions.0.proj_in` is `input_blocks.4.1.proj_in` where every block has two layers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError

TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
ORIGINAL = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Blocks:
    """How a U-Net counts its blocks."""

    layers: int = 2
    """Layers a block on the way down; one more on the way up."""
    plain_up: tuple[int, ...] = ()
    """Blocks on the way up that have no attention: what enlarges stands second there, else third."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Blocks":
        """Raises ModelError for a U-Net that original checkpoints have no names for."""
        layers, ups = config["layers_per_block"], list(config["up_block_types"])
        known = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
        strange = {*config["down_block_types"], *ups} - known
        if not isinstance(layers, int) or strange:
            what = f"blocks of {sorted(strange)[0]}" if strange else "blocks of different sizes"
            raise ModelError(f"original checkpoints know no {what}", where="unet", fix="keep the diffusers layout", case=4)
        return cls(layers, tuple(i for i, kind in enumerate(ups) if kind == "UpBlock2D"))


SD1 = Blocks(plain_up=(0,))
SDXL = Blocks(plain_up=(2,))


def original(name: str, blocks: Blocks) -> str:
    """A layer's name in diffusers -> in an original checkpoint. Raises ModelError for one that has none."""
    if name in TOP:
        return TOP[name]
    if (found := BLOCK.fullmatch(name)) is not None:
        return in_block(found, blocks)
    for ours, theirs in MIDDLE.items():
        if name.startswith(f"mid_block.{ours}."):
            rest = name.removeprefix(f"mid_block.{ours}.")
            return f"{theirs}.{RESNET[rest] if 'resnets' in ours else rest}"
    raise ModelError(f"original checkpoints have no name for {name}", where="unet", case=4)


def in_block(found: re.Match[str], blocks: Blocks) -> str:
    way, kind, rest = found[1], found[3], found[5]
    block, place = int(found[2]), int(found[4])
    rest = RESNET[rest] if kind == "resnets" else rest
    if way == "down":
        at = block * (blocks.layers + 1) + 1 + (blocks.layers if kind == "downsamplers" else place)
        return f"input_blocks.{at}.{1 if kind == 'attentions' else 0}.{'op' if kind == 'downsamplers' else rest}"
    at = block * (blocks.layers + 1) + (blocks.layers if kind == "upsamplers" else place)
    inner = {"resnets": 0, "attentions": 1}.get(kind, 1 if block in blocks.plain_up else 2)
    return f"output_blocks.{at}.{inner}.{rest}"


def in_diffusers(name: str, blocks: Blocks) -> str | None:
    """A layer's name in an original checkpoint -> in diffusers; None for one that is none."""
    back = {theirs: ours for ours, theirs in TOP.items()}
    if name in back:
        return back[name]
    resnet = {theirs: ours for ours, theirs in RESNET.items()}
    for ours, theirs in MIDDLE.items():
        if name.startswith(f"{theirs}."):
            rest = name.removeprefix(f"{theirs}.")
            return f"mid_block.{ours}.{resnet.get(rest, rest)}"
    if (found := ORIGINAL.fullmatch(name)) is None:
        return None
    at, inner, rest = int(found[2]), int(found[3]), found[4]
    if found[1] == "input":
        block, place = divmod(at - 1, blocks.layers + 1)
        if rest == "op":
            return f"down_blocks.{block}.downsamplers.0.conv"
        return f"down_blocks.{block}.{'resnets' if inner == 0 else 'attentions'}.{place}.{resnet.get(rest, rest)}"
    block, place = divmod(at, blocks.layers + 1)
    if rest == "conv":
        return f"up_blocks.{block}.upsamplers.0.conv"
    return f"up_blocks.{block}.{'resnets' if inner == 0 else 'attentions'}.{place}.{resnet.get(rest, rest)}"
