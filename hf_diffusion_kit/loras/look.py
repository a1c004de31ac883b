"""What can be said of a LoRA by its file alone."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from . import kohya
from .layers import Layer, part_of
from .reading import LoraFile


def info(file: LoraFile) -> dict[str, Any]:
    """Layout, family, and of each part the layers, their ranks, alphas and how long what they add is (Frobenius norm)."""
    layers = file.layers
    lengths = {name: float(added_length(layer)) for name, layer in layers.items()}
    parts = {}
    for part in dict.fromkeys(part_of(name) for name in layers):
        mine = {name: layer for name, layer in layers.items() if part_of(name) == part}
        parts[part] = {
            "layers": len(mine),
            "kinds": counted("dora" if layer.magnitude_O is not None else layer.kind for layer in mine.values()),
            "ranks": counted(layer.rank for layer in mine.values()),
            "alphas": counted(f"{layer.alpha:g}" for layer in mine.values()),
            "scales": counted(f"{layer.scale:.4g}" for layer in mine.values()),
            "numbers": sum(layer.count for layer in mine.values()),
            "length": sum(lengths[name] ** 2 for name in mine) ** 0.5,
        }
    strongest = sorted(lengths, key=lambda name: -lengths[name])[:5]
    return {
        "layout": file.layout,
        "family": kohya.family_of(layers),
        "parts": parts,
        "dtypes": counted(str(t.dtype).removeprefix("torch.") for layer in layers.values() for t in layer.tensors.values()),
        "bytes": sum(path.stat().st_size for path in file.files),
        "sha256": file.sha256,
        "strongest": {name: lengths[name] for name in strongest},
        "metadata": file.told,
    }


def added_length(layer: Layer) -> Tensor:
    """Frobenius norm of what is added; of thin matrices without ever multiplying them out."""
    if layer.kind != "lora":
        return layer.delta().norm()
    down, up = layer.down.double().flatten(1), layer.up.double().flatten(1)
    return ((up.mT @ up) * (down @ down.mT)).sum().clamp(min=0).sqrt() * abs(layer.scale)


def counted(values: Iterable[Any]) -> dict[str, int]:
    """Value -> how many, the most common first."""
    return {str(value): count for value, count in Counter(values).most_common()}
