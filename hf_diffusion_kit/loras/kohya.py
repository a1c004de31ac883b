"""The names of kohya's sd-scripts, which ComfyUI and the WebUIs read: `lora_unet_down_blocks_0_..._to_q.lora_down.weight`.

One line a family in KOHYA; what has none is read by ComfyUI in diffusers' own layout. Only names were taken from there, no code.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import ModelError
from . import flux, sgm
from .layers import DOWN, UP, Adapter, Layer, lora, part_of

TEXT = "lora_te_"
WORDS = (
    *("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "transformer_blocks"),
    *("conv_in", "conv_out", "conv_shortcut", "conv_norm_out", "time_emb_proj", "time_embedding", "add_embedding"),
    *("linear_1", "linear_2", "proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out"),
    *("time_embed", "label_emb", "in_layers", "out_layers", "emb_layers", "skip_connection"),
)
"""Words with a stroke in the names of U-Nets; all other strokes stand for dots."""
TEXT_WORDS = ("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection", "final_layer_norm")


@dataclass(frozen=True)
class Names:
    """How a family's layers are called in a kohya file."""

    version: str
    """`ss_base_model_version`, as sd-scripts writes it."""
    architecture: str
    """`modelspec.architecture`, as sd-scripts writes it."""
    implementation: str = "diffusers"
    parts: Mapping[str, str] = field(default_factory=lambda: {"unet": "lora_unet_", "text_encoder": TEXT})
    """Part -> what its names begin with."""
    original: bool = False
    """Whether the U-Net's layers go by the names of original checkpoints."""
    renamed: Sequence[flux.Rename] = ()
    """Layers by other names, and those of which several are one."""


XL = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
STABILITY = "https://github.com/Stability-AI/generative-models"
KOHYA = {
    "sd1": Names("sd_v1", "stable-diffusion-v1/lora"),
    "sd2": Names("sd_v2", "stable-diffusion-v2-768-v/lora"),
    "sdxl": Names("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", STABILITY, XL, original=True),
    "flux": Names(
        *("flux1", "flux-1-dev/lora", "https://github.com/black-forest-labs/flux"),
        parts={"transformer": "lora_unet_", "text_encoder": "lora_te1_"},
        renamed=flux.RENAMED,
    ),
}
KOHYA["flux-schnell"] = replace(KOHYA["flux"], architecture="flux-1-schnell/lora")
"""Family -> its names."""


def names_of(family: str) -> Names:
    try:
        return KOHYA[family]
    except KeyError:
        fix = "write it as diffusers-lora, which ComfyUI reads"
        raise ModelError(f"kohya's layout has no names for a {family}", where="format: kohya", fix=fix, case=4) from None


def tensors(adapter: Adapter, names: Names, blocks: sgm.Blocks = sgm.SDXL) -> dict[str, Tensor]:
    """The file's tensors, `.alpha` beside each layer. Raises ModelError for a layer that has no name there."""
    told: dict[str, Tensor] = {}
    for key, layer in keyed(adapter, names, blocks).items():
        told |= {f"{key}.{name}": tensor for name, tensor in layer.tensors.items()}
        told[f"{key}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
        if layer.magnitude_O is not None:
            told[f"{key}.dora_scale"] = layer.magnitude_O.reshape(-1, *[1] * (layer.down.ndim - 1))
    return told


def keyed(adapter: Adapter, names: Names, blocks: sgm.Blocks) -> dict[str, Layer]:
    told = {}
    for name, layer in flux.fused(adapter, names.renamed).items():
        part, module = part_of(name), name.partition(".")[2]
        if part not in names.parts:
            raise ModelError(f"kohya's layout has no names for a {part}", where=name, case=4)
        if part == "unet" and names.original:
            module = sgm.original(module, blocks)
        told[names.parts[part] + module.replace(".", "_")] = plain(layer)
    return level(told)


def plain(layer: Layer) -> Layer:
    """A LoKr held whole has no rank, and readers pass over its alpha: its scale goes into the matrix."""
    if layer.kind == "lokr" and layer.rank is None:
        return replace(layer, alpha=1.0)
    return layer


def level(keyed: dict[str, Layer]) -> dict[str, Layer]:
    """One alpha for all layers of a LoRA, the most common, and what differs in the matrices: diffusers 0.42 reads of several alphas that of
    attention layers wrongly (it looks for them under another name), and the answer is the same."""
    common = {
        start: Counter(layer.alpha for key, layer in keyed.items() if beginning(key) == start).most_common(1)[0][0]
        for start in {beginning(key) for key in keyed}
    }
    return {
        key: layer
        if layer.kind != "lora" or layer.alpha == common[beginning(key)]
        else replace(
            layer, tensors={DOWN: layer.down, UP: layer.up * (layer.alpha / common[beginning(key)])}, alpha=common[beginning(key)]
        )
        for key, layer in keyed.items()
    }


def beginning(key: str) -> str:
    return "_".join(key.split("_")[:2])


def read(told: Mapping[str, Tensor], blocks: sgm.Blocks | None = None) -> tuple[Adapter, list[str]]:
    """A kohya file's tensors -> (layers by diffusers' names, keys that are part of no adapter). `blocks`: how the U-Net counts its own."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in told.items():
        module, _, name = key.partition(".")
        groups.setdefault(module, {})[name] = tensor
    adapter: Adapter = {}
    left: list[str] = []
    for key, group in groups.items():
        alpha, length = group.pop("alpha", None), group.pop("dora_scale", None)
        if not (DOWN in group and UP in group and len(group) == 2) and not complete(group):
            left += [f"{key}.{name}" for name in group] or [f"{key}.alpha"]
            continue
        for name, layer in flux.parted(key, made(group, alpha, length)):
            adapter[in_diffusers(name, blocks)] = layer
    return adapter, left


def complete(group: Mapping[str, Tensor]) -> bool:
    """Whether these are all the matrices of a LoHa or a LoKr, and nothing else."""
    loha = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
    if loha <= group.keys():
        return group.keys() - loha in (set(), {"hada_t1", "hada_t2"})
    sides = [f"lokr_w{i}" in group or {f"lokr_w{i}_a", f"lokr_w{i}_b"} <= group.keys() for i in (1, 2)]
    return all(sides) and all(name.startswith("lokr_") for name in group)


def made(group: Mapping[str, Tensor], alpha: Tensor | None, length: Tensor | None) -> Layer:
    """Without an alpha the rank is meant."""
    if length is not None and length.shape[0] != group[UP].shape[0]:
        raise ModelError("holds lengths of columns (an early DoRA of LyCORIS); only those of rows are read", case=4)
    layer = Layer(dict(group), 1.0, None if length is None else length.flatten())
    return replace(layer, alpha=float(alpha) if alpha is not None else float(layer.rank or 1))


def in_diffusers(key: str, blocks: sgm.Blocks | None) -> str:
    """`lora_unet_down_blocks_0_attentions_0_proj_in` -> `unet.down_blocks.0.attentions.0.proj_in`; others than ours stay as they are."""
    for part, start in (("text_encoder_2", "lora_te2_"), ("text_encoder", "lora_te1_"), ("text_encoder", TEXT)):
        if key.startswith(start):
            return f"{part}.{dotted(key.removeprefix(start), TEXT_WORDS)}"
    if not key.startswith("lora_unet_"):
        return key  # FLUX's have their dots already, by `flux.parted`
    module = dotted(key.removeprefix("lora_unet_"), WORDS)
    found = sgm.in_diffusers(module, blocks or sgm.SDXL)
    return f"unet.{found or module}"


def dotted(name: str, words: Sequence[str]) -> str:
    """Strokes become dots, but within the known words."""
    longest = sorted(words, key=len, reverse=True)
    kept = re.sub("|".join(rf"(?<![a-z]){word}(?![a-z])" for word in longest), lambda found: found[0].replace("_", "\0"), name)
    return kept.replace("_", ".").replace("\0", "_")


def family_of(adapter: Adapter) -> str | None:
    """The family that an adapter is for, by its layers and how wide the text is that they hear; None where they do not tell."""
    parts = {part_of(name) for name in adapter}
    if "transformer" in parts:
        told = any("single_transformer_blocks" in name for name in adapter)
        klein = any("to_qkv_mlp_proj" in name for name in adapter)  # FLUX.2's blocks have one layer for what are four in FLUX.1
        return "flux" if told and not klein else None
    if "text_encoder_2" in parts:
        return "sdxl"
    heard = {layer.down.shape[1] for name, layer in adapter.items() if layer.kind == "lora" and ".attn2.to_k" in name}
    known = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
    return known.get(heard.pop()) if len(heard) == 1 else None


def metadata(adapter: Adapter, names: Names) -> dict[str, str]:
    """What sd-scripts and the WebUIs show of a file; nothing that is not so."""
    layers = list(adapter.values())
    ranks = Counter(layer.rank for layer in layers if layer.rank)
    alphas = Counter(layer.alpha for layer in layers)
    kind = layers[0].kind
    told = {
        "ss_network_module": "networks.lora"
        if kind == "lora" and all(x.magnitude_O is None for x in layers)
        else "lycoris.kohya",
        "ss_base_model_version": names.version,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": names.architecture,
        "modelspec.implementation": names.implementation,
    }
    if ranks:
        told |= {"ss_network_dim": str(ranks.most_common(1)[0][0]), "ss_network_alpha": f"{alphas.most_common(1)[0][0]:g}"}
    if kind != "lora":
        told["ss_network_args"] = f'{{"algo": "{kind}"}}'
    return told


__all__ = ["KOHYA", "Names", "family_of", "lora", "metadata", "names_of", "read", "tensors"]
