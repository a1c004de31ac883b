"""The difference of two pipelines as a LoRA: weights are read from their files a tensor at a time, no model is built."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .bases import at_home
from .errors import ModelError
from .families import Family, detect
from .loras import Adapter
from .loras.arithmetic import Cut, Rule, extracted
from .loras.reading import rooted

TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Ends of the names of a text encoder's layers that stock readers take an adapter for."""


@dataclass(frozen=True)
class Difference:
    cuts: dict[str, Cut]
    same: int
    """Layers that are equal in both."""
    left: dict[str, float] = field(default_factory=dict)
    """What differs and is no LoRA's to hold (norms, biases, embeddings) -> the length of the difference."""

    @property
    def adapter(self) -> Adapter:
        return {name: cut.layer for name, cut in self.cuts.items()}


class Weights:
    """The tensors of one part of a pipeline's folder, by our names, read when they are asked for."""

    def __init__(self, folder: Path, part: str):
        self.part, self.files = part, dict[str, tuple[Path, str]]()
        for path in weight_files(folder / part):
            with opened(path) as file:
                names = [key for key in file.keys() if not key.endswith("position_ids")]  # noqa: SIM118 (older CLIPs counted aloud)
            self.files |= {rooted(part, key): (path, key) for key in names}

    def __getitem__(self, name: str) -> Tensor:
        path, key = self.files[name]
        with opened(path) as file:
            return file.get_tensor(key)


def opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot be read: {error}", where=path, case=4) from error


def weight_files(folder: Path) -> list[Path]:
    """The shards that the index names, else the one file that is meant. Raises ModelError."""
    if index := sorted(folder.glob("*.safetensors.index.json")):
        return [folder / name for name in sorted(set(json.loads(index[0].read_text(encoding="utf-8"))["weight_map"].values()))]
    files = sorted(folder.glob("*.safetensors"), key=lambda path: (path.name.count("."), path.name))  # fp16 copies last
    if not files:
        raise ModelError("holds no .safetensors weights", where=folder, fix="name a pipeline in the diffusers layout", case=4)
    return files[:1]


def extract(
    base: str, tuned: str, rule: Rule, *, device: torch.device | str = "cpu", tick: Callable[[int], object] = lambda total: None
) -> Difference:
    """`tuned` - `base` as layers of a LoRA. `tick` is told the number of tensors, once for each. Raises ModelError."""
    kind = detect(place(base))
    if (other := detect(place(tuned))) is not kind:
        raise ModelError(f"is a {other.name}, and {base} a {kind.name}", where=tuned, case=4)
    folders = folder_of(base, kind), folder_of(tuned, kind)
    parts = [part for part in (kind.denoiser, *kind.text_encoders) if any((folder / part).is_dir() for folder in folders)]
    sides = [tuple(Weights(folder, part) for folder in folders) for part in parts]
    for old, new in sides:
        if strange := old.files.keys() ^ new.files.keys():
            what = f"{len(strange)} tensors of {old.part} are in one of the two only ({sorted(strange)[0]})"
            raise ModelError(what, where=f"{base} and {tuned}", fix="name two pipelines of one model", case=4)
    total = sum(len(old.files) for old, _ in sides)
    cuts: dict[str, Cut] = {}
    left: dict[str, float] = {}
    same = 0
    for name, before, after in pairs(sides):
        tick(total)
        if before.shape != after.shape:
            what = f"{name} is {tuple(after.shape)}, and {tuple(before.shape)} in {base}"
            raise ModelError(what, where=tuned, fix="name two pipelines of one model", case=4)
        if after.dtype.itemsize < before.dtype.itemsize:
            before = before.to(after.dtype)  # what mere rounding changed was not trained
        delta = after.to(device, torch.float32) - before.to(device, torch.float32)
        if not delta.any():
            same += 1
        elif takes_adapter(kind, name, delta):
            cut = extracted(delta, rule)
            cuts[name.removesuffix(".weight")] = Cut(cut.layer.mapped(Tensor.cpu), cut.kept, cut.length)
        else:
            left[name] = float(delta.norm())
    if not cuts:
        raise ModelError("do not differ in any layer that a LoRA is for", where=f"{base} and {tuned}", case=4)
    return Difference(cuts, same, left)


def pairs(sides: list[tuple[Weights, ...]]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for old, new in sides:
        for name in old.files:
            yield f"{old.part}.{name}", old[name], new[name]


def takes_adapter(kind: type[Family], name: str, delta: Tensor) -> bool:
    """Whether stock readers take an adapter for that layer."""
    part, _, layer = name.removesuffix(".weight").partition(".")
    if not name.endswith(".weight") or delta.ndim not in (2, 4):
        return False
    if part == kind.denoiser:
        return True
    return layer.endswith(TEXT_LAYERS) and (kind.trains_text_encoders is None or part in kind.trains_text_encoders)


def place(told: str) -> str | Path:
    path = at_home(told, where="lora: extract")
    return path if path.is_dir() else told


def folder_of(told: str, kind: type[Family]) -> Path:
    """A folder as it is; a Hub id from the Hub's own cache."""
    found = place(told)
    if isinstance(found, Path):
        return found
    return Path(kind.pipeline_class.download(told, use_safetensors=True, **kind.left_out))
