"""From a trained pipeline to layers on paper, and from paper into a pipeline's own weights."""

from collections.abc import Iterator
from typing import Any

from peft.tuners.loha import LoHaLayer
from peft.tuners.lokr import LoKrLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..errors import ModelError
from ..families import Family
from ..loras.layers import LOHA, LOKR, Adapter, Layer, lora
from .base import adapter_of, rooted


def layers_of(family: Family) -> Adapter:
    """What is on the family's parts, its true scale in each layer's alpha. Raises ModelError for what is no sum of matrices."""
    found: Adapter = {}
    for part in (family.denoiser, *family.text_encoders):
        if (adapter := adapter_of(model := family.part(part))) is None:
            continue
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                if not isinstance(module, LoraLayer | LoHaLayer | LoKrLayer):
                    what = f"kohya's layout has nothing like {adapter[1].peft_type.value.lower()}"
                    raise ModelError(what, fix="write it as peft, or merged", case=4)
                found[f"{part}.{rooted(part, name)}"] = layer_of(module, adapter[0])
    return found


def layer_of(module: Any, name: str) -> Layer:
    """One of peft's layers, as it scales it: alpha by the rank, or by its root with rsLoRA."""
    scale = float(module.scaling[name])
    if isinstance(module, LoraLayer):
        down, up = (getattr(module, side)[name].weight.detach() for side in ("lora_A", "lora_B"))
        length = module.lora_magnitude_vector[name].weight.detach() if name in module.lora_magnitude_vector else None
        return lora(down, up, scale * len(down), length)
    kinds = LOHA if isinstance(module, LoHaLayer) else LOKR
    tensors = {kind: getattr(module, kind)[name].detach() for kind in kinds if name in getattr(module, kind)}
    layer = Layer(tensors, 1.0)
    if layer.rank is None:  # readers pass over alpha where both factors are whole
        first = "lokr_w1"
        return Layer({**tensors, first: tensors[first] * scale}, 1.0)
    return Layer(tensors, scale * layer.rank)


def fold(pipe: Any, adapter: Adapter) -> None:
    """Adds an adapter to a pipeline's own weights. Raises ModelError, before any is changed, for layers that it has not."""
    told = {name: weight_of(pipe, name) for name in adapter}
    if strange := [name for name, weight in told.items() if weight is None]:
        what = f"is not for this model: {len(strange)} of its {len(adapter)} layers are not there ({strange[0]})"
        raise ModelError(what, case=4)
    for name, weight in told.items():
        if weight is not None:
            weight.copy_(adapter[name].onto(weight))


def weight_of(pipe: Any, name: str) -> Tensor | None:
    """The weight of a layer by our name for it."""
    part, _, module = name.partition(".")
    found = dict(modules(getattr(pipe, part, None), part)).get(f"{part}.{module}")
    return None if found is None else found.weight.data


def modules(model: Any, part: str) -> Iterator[tuple[str, Any]]:
    """(our name, layer) for every layer of a part that an adapter may be added to."""
    if model is not None:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                yield f"{part}.{rooted(part, name)}", module
