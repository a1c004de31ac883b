"""FLUX.1's layers by the names of Black Forest Labs' own code, in which several layers of diffusers are one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import ModelError
from .layers import Adapter, Layer, lora

TALL = {"proj_mlp": 4}
"""Layer -> how many times as many outputs it has as its neighbours."""


@dataclass(frozen=True)
class Rename:
    ours: tuple[str, ...]
    """Names in diffusers, `{}` for the block's number; several are one layer there, one below the other."""
    theirs: str


def both(ours: str, theirs: str) -> Rename:
    return Rename((ours,), theirs)


DOUBLE, SINGLE = "transformer.transformer_blocks.{}.", "transformer.single_transformer_blocks.{}."
TIME = "transformer.time_text_embed."
RENAMED = (
    Rename(tuple(f"{DOUBLE}attn.to_{x}" for x in "qkv"), "double_blocks.{}.img_attn.qkv"),
    Rename(tuple(f"{DOUBLE}attn.add_{x}_proj" for x in "qkv"), "double_blocks.{}.txt_attn.qkv"),
    both(f"{DOUBLE}attn.to_out.0", "double_blocks.{}.img_attn.proj"),
    both(f"{DOUBLE}attn.to_add_out", "double_blocks.{}.txt_attn.proj"),
    both(f"{DOUBLE}ff.net.0.proj", "double_blocks.{}.img_mlp.0"),
    both(f"{DOUBLE}ff.net.2", "double_blocks.{}.img_mlp.2"),
    both(f"{DOUBLE}ff_context.net.0.proj", "double_blocks.{}.txt_mlp.0"),
    both(f"{DOUBLE}ff_context.net.2", "double_blocks.{}.txt_mlp.2"),
    both(f"{DOUBLE}norm1.linear", "double_blocks.{}.img_mod.lin"),
    both(f"{DOUBLE}norm1_context.linear", "double_blocks.{}.txt_mod.lin"),
    Rename((*(f"{SINGLE}attn.to_{x}" for x in "qkv"), f"{SINGLE}proj_mlp"), "single_blocks.{}.linear1"),
    both(f"{SINGLE}proj_out", "single_blocks.{}.linear2"),
    both(f"{SINGLE}norm.linear", "single_blocks.{}.modulation.lin"),
    both("transformer.x_embedder", "img_in"),
    both("transformer.context_embedder", "txt_in"),
    both(f"{TIME}timestep_embedder.linear_1", "time_in.in_layer"),
    both(f"{TIME}timestep_embedder.linear_2", "time_in.out_layer"),
    both(f"{TIME}text_embedder.linear_1", "vector_in.in_layer"),
    both(f"{TIME}text_embedder.linear_2", "vector_in.out_layer"),
    both(f"{TIME}guidance_embedder.linear_1", "guidance_in.in_layer"),
    both(f"{TIME}guidance_embedder.linear_2", "guidance_in.out_layer"),
)


def fused(adapter: Adapter, renamed: Sequence[Rename]) -> Adapter:
    """The same by other names, several layers in one where they are one there. Raises ModelError for a layer that has no name."""
    if not renamed:
        return adapter
    told: Adapter = {name: layer for name, layer in adapter.items() if not name.startswith("transformer.")}
    known = {
        name: (one, found[1] if found.groups() else "")
        for name in adapter
        for one in renamed
        for ours in one.ours
        if (found := re.fullmatch(re.escape(ours).replace(r"\{\}", r"(\d+)"), name)) is not None
    }
    if strange := [name for name in adapter if name not in known and name not in told]:
        raise ModelError(f"kohya's layout has no name for {strange[0]}", where="format: kohya", case=4)
    for one, number in known.values():
        name = f"transformer.{one.theirs.format(number)}"
        if name not in told:
            members = [adapter.get(ours.format(number)) for ours in one.ours]
            told[name] = members[0] if len(members) == 1 and members[0] else stacked(members, one, name)
    return told


def stacked(members: Sequence[Layer | None], one: Rename, name: str) -> Layer:
    """Layers one below the other as one: of the sum of their ranks, zeros where there is none. The same answer to the bit."""
    there = [layer for layer in members if layer is not None]
    if any(layer.kind != "lora" for layer in there):
        raise ModelError(f"only LoRA layers can be one layer, {name} is {there[0].kind}", where="format: kohya", case=4)
    if any(layer.magnitude_O is not None for layer in there) and len(there) < len(members):
        gone = next(ours for ours, layer in zip(one.ours, members, strict=True) if layer is None).rpartition(".")[2]
        fix = f"train {gone} too, or write it as diffusers-lora, which ComfyUI reads"
        raise ModelError(f"a DoRA needs all layers of {name}: {gone} is missing", where="format: kohya", fix=fix, case=4)
    first = there[0]
    rank = max(len(layer.down) for layer in there)
    heights = [TALL.get(ours.rpartition(".")[2], 1) for ours in one.ours]
    unit = next(len(layer.up) // height for layer, height in zip(members, heights, strict=True) if layer is not None)
    downs, ups = [], []
    for layer, height in zip(members, heights, strict=True):
        thin, tall = first.down.new_zeros(rank, first.down.shape[1]), first.up.new_zeros(unit * height, rank)
        if layer is not None:
            thin[: len(layer.down)] = layer.down
            tall[:, : layer.up.shape[1]] = layer.up if layer.scale == 1 else layer.up * layer.scale
        downs.append(thin)
        ups.append(tall)
    lengths = [layer.magnitude_O for layer in there if layer.magnitude_O is not None]
    return lora(torch.cat(downs), torch.block_diag(*ups), magnitude=torch.cat(lengths) if lengths else None)


def parted(key: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    """What a kohya file holds under one key -> (name, layer) for each layer that it is in diffusers; any other key as it is."""
    for one in RENAMED:
        pattern = re.escape(f"lora_unet_{one.theirs}".replace(".", "_")).replace(r"\{\}", r"(\d+)")
        if (found := re.fullmatch(pattern, key)) is None:
            continue
        names = [ours.format(found[1] if found.groups() else "") for ours in one.ours]
        if len(names) == 1:
            yield names[0], layer
            return
        if layer.kind != "lora":
            raise ModelError(f"holds a {layer.kind} for several layers at once ({key})", fix="read it with ComfyUI", case=4)
        for name, slice_ in zip(names, slices(names, layer), strict=True):
            if slice_.up.any():  # else it was not adapted
                yield name, slice_
        return
    yield key, layer


def slices(names: Sequence[str], layer: Layer) -> list[Layer]:
    """One layer of outputs one below the other -> a layer each: of its own rank where each has rows of its own, else of the whole's."""
    heights = [TALL.get(name.rpartition(".")[2], 1) for name in names]
    unit = len(layer.up) // sum(heights)
    ups = layer.up.split([unit * height for height in heights])
    lengths = [None] * len(names) if layer.magnitude_O is None else list(layer.magnitude_O.split([len(up) for up in ups]))
    rank, rest = divmod(len(layer.down), len(names))
    own = not rest and all(not up[:, : i * rank].any() and not up[:, (i + 1) * rank :].any() for i, up in enumerate(ups))
    if not own:
        return [lora(layer.down, up, layer.alpha, length) for up, length in zip(ups, lengths, strict=True)]
    downs = layer.down.split(rank)
    cut = [up[:, i * rank : (i + 1) * rank].contiguous() for i, up in enumerate(ups)]
    return [lora(down, up, layer.scale * rank, length) for down, up, length in zip(downs, cut, lengths, strict=True)]
