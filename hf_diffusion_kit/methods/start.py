"""A LoRA to begin from: fitted to the model, refused where it is another's, put on to go on learning or to be built upon."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from ..errors import ConfigError, ModelError
from ..families import Family
from ..loras import Layer, LoraFile, arithmetic, part_of, read, sgm
from .adapters import ends

BELOW = "begun"
"""peft's name of an adapter that stays as it is while another is trained upon it."""


@dataclass(frozen=True)
class StartSettings:
    init_from: str | None = None
    """A LoRA to begin from: a file, a folder, or a Hub id (`user/name`, perhaps with `/file.safetensors` and `@revision` behind), in the
    layout of diffusers, kohya or peft. It goes on learning; which layers there are, their ranks and alphas, is as the file has it."""
    init_stack: bool = False
    """Keep that LoRA as it is and train a new one upon it; what is written holds both in one, their ranks added up."""

    def __post_init__(self) -> None:
        if self.init_stack and not self.init_from:
            raise ConfigError("is set without init_from", where="method: init_stack", fix="name the LoRA in init_from", case=1)


Layers = dict[str, Layer]
"""Name of a layer within its part, as the model has it -> layer."""


def fitted(place: str, family: Family) -> dict[str, Layers]:
    """Part -> its layers. Raises ModelError, with how many fit, for a LoRA that is not wholly this model's."""
    file = opened(place, family)
    told: dict[str, Layers] = {}
    wrong = []
    parts = {part: layers_in(family.part(part)) for part in (family.denoiser, *family.text_encoders)}
    for name, layer in file.layers.items():
        part, _, module = name.partition(".")
        inside = parts.get(part, {})
        if module not in inside:
            module = module.removeprefix("text_model.")
        if fault := misfit(layer, inside.get(module)):
            wrong.append(f"{name} {fault}")
        else:
            told.setdefault(part, {})[module] = layer
    if wrong:
        count = len(file.layers)
        what = f"is not for this model: {count - len(wrong)} of its {count} layers fit, {wrong[0]}"
        raise ModelError(what, where=f"method: init_from = {place}", fix=f"name a LoRA of this {family.name}", case=4)
    return told


def opened(place: str, family: Family) -> LoraFile:
    """How a U-Net counts its blocks is its own matter: kohya's names of SDXL go by that."""
    blocks = None
    config: Any = family.model.config
    if family.denoiser == "unet" and isinstance(config.layers_per_block, int):
        blocks = sgm.Blocks(config.layers_per_block)
    return read(Path(place).expanduser(), blocks=blocks)


DECIDED = ("rank", "alpha", "rslora", "dora", "preset", "targets")
"""Settings that the file decides where it goes on learning."""


def check_start(method: Any, family: Family, begun: Mapping[str, Layers]) -> None:
    """Raises ConfigError for a setting that says something else than the file. What stands at its default follows the file."""
    lengths = any(layer.magnitude_O is not None for layers in begun.values() for layer in layers.values())
    if method.init_stack:
        if lengths:
            fix = "init_stack = false, which goes on training it"
            raise ConfigError("is a DoRA, on which nothing is stacked", where="method: init_from", fix=fix, case=4)
        return
    wanted = dict(method._wanted(family))
    if extra := [part for part in begun if part not in wanted]:
        what = f"adapts the {extra[0]} too, which is not to be trained"
        raise ConfigError(what, where="method: init_from", fix="text_encoder = true, or init_stack = true", case=4)
    layers = [layer for told in begun.values() for layer in told.values()]
    defaults = {entry.name: entry.default for entry in fields(method)}
    there = {
        "rank": {layer.rank for layer in layers} == {method.rank},
        "alpha": {layer.alpha for layer in layers} == {method.alpha},
        "rslora": False,
        "dora": lengths,
        **dict.fromkeys(("preset", "targets"), all(same_layers(family.part(p), begun[p], wanted[p]) for p in begun)),
    }
    if wrong := [name for name in DECIDED if getattr(method, name) != defaults[name] and not there[name]]:
        said = words({f"{part}.{name}": layer for part, told in begun.items() for name, layer in told.items()})
        fix = f"leave out {wrong[0]}, or init_stack = true for a new adapter upon it"
        raise ConfigError(f"init_from has {said}", where=f"method: {wrong[0]} = {getattr(method, wrong[0])}", fix=fix, case=4)


def same_layers(model: nn.Module, layers: Layers, targets: Sequence[str]) -> bool:
    return layers.keys() == {name for name in layers_in(model) if any(ends(name, target) for target in targets)}


def layers_in(model: nn.Module) -> dict[str, Any]:
    """Name -> layer, those within peft's own by the names that they had before."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    }


def misfit(layer: Layer, module: Any) -> str | None:
    """Why a layer cannot be put on; None when it can."""
    if module is None:
        return "is no layer of it"
    if layer.kind != "lora":
        return f"is a {layer.kind}, and only LoRA goes on learning"
    if isinstance(module, nn.Conv2d):
        wanted = (module.out_channels, module.in_channels, *module.kernel_size)
    else:
        wanted = (module.out_features, module.in_features)
    here = (layer.up.shape[0], *layer.down.shape[1:])
    return None if here == wanted else f"is {shape(here)} in the file and {shape(wanted)} in the model"


def shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def config_for(layers: Layers, names: list[str], dropout: float) -> LoraConfig:
    """peft's configuration of exactly these layers, of all that the part has (`names`)."""
    ranks, alphas = Counter(len(x.down) for x in layers.values()), Counter(x.alpha for x in layers.values())
    rank, alpha = ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]
    targets: list[str] | str = sorted(layers)
    if any(name not in layers and name.endswith(f".{target}") for target in layers for name in names):
        targets = "|".join(re.escape(name) for name in sorted(layers))  # peft takes a list for ends of names
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_dora=any(layer.magnitude_O is not None for layer in layers.values()),
        target_modules=targets,
        rank_pattern={anchored(name): len(x.down) for name, x in layers.items() if len(x.down) != rank},
        alpha_pattern={anchored(name): x.alpha for name, x in layers.items() if x.alpha != alpha},
    )


def anchored(name: str) -> str:
    """peft takes a pattern for the end of a name; one without a dot would be the end of many."""
    return name if "." in name else f"^{name}"


def put_on(model: Any, layers: Layers, *, name: str = "default", dropout: float = 0.0) -> None:
    """Adds an adapter of that name with these very weights, in float32."""
    add(model, config_for(layers, list(layers_in(model)), dropout), name)
    for key, module in model.named_modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            layer: Layer = layers[key]
            for side, tensor in (("lora_A", layer.down), ("lora_B", layer.up)):
                weight = getattr(module, side)[name].weight
                weight.data = tensor.to(weight.device).float().clone()
            if layer.magnitude_O is not None:
                length = module.lora_magnitude_vector[name].weight
                length.data = layer.magnitude_O.to(length.device).float().reshape(length.shape).clone()
            if name == BELOW:
                module.requires_grad_(False)


def add(model: Any, config: Any, name: str = "default") -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # two are meant, where one is stacked
        model.add_adapter(config, adapter_name=name)


def as_one(model: Any) -> None:
    """The adapter below and the one upon it become one, exactly: ranks side by side."""
    below, upon = (taken(model, name) for name in (BELOW, "default"))
    both = arithmetic.merge([(below, 1.0), (upon, 1.0)])
    remove = model.delete_adapters if hasattr(model, "delete_adapters") else model.delete_adapter  # diffusers, transformers
    remove([BELOW, "default"])
    put_on(model, both)


def taken(model: Any, name: str) -> Layers:
    """The layers of an adapter that is on a model, with their true scale."""
    told = {}
    for key, module in model.named_modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            down, up = (getattr(module, side)[name].weight.detach().clone() for side in ("lora_A", "lora_B"))
            told[key] = Layer({"lora_down.weight": down, "lora_up.weight": up}, module.scaling[name] * len(down))
    return told


def words(layers: Mapping[str, Layer]) -> str:
    """`192 layers of rank 4, alpha 4`, for notes and errors."""
    ranks = sorted({layer.rank for layer in layers.values() if layer.rank})
    alphas = sorted({layer.alpha for layer in layers.values()})
    told = ", ".join(
        f"{name} {values[0]:g}" if len(values) == 1 else f"{name} {values[0]:g} to {values[-1]:g}"
        for name, values in (("rank", ranks), ("alpha", alphas))
        if values
    )
    parts = ", ".join(f"{count} of the {part}" for part, count in Counter(map(part_of, layers)).items())
    return f"{len(layers)} layers ({parts}) of {told}"
