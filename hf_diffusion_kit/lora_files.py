"""LoRA files: where they lie, their sum, and how they are written in another layout."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .bases import at_home
from .errors import ConfigError, ModelError, StorageError
from .formats import base, diffusers_lora, peft
from .loras import Adapter, Layer, LoraFile, arithmetic, kohya, part_of, read, sgm
from .loras.layers import DOWN, UP
from .loras.reading import PEFT_CONFIG
from .methods import Method
from .methods.start import anchored, words

LAYOUTS = ("diffusers", "kohya", "peft")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w./ -]+\.safetensors)?(@[\w./-]+)?")


def located(told: str) -> tuple[Path, str]:
    """A file, a folder or a Hub id -> (where it lies, its name: of a Hub id with the commit). Raises ModelError, HubError."""
    path = at_home(told, where="lora")
    if path.exists():
        return path, path.name
    if not HUB_ID.fullmatch(told) or told.startswith((".", "/", "~")):
        fix = "or a Hub id: user/name, user/name/file.safetensors, either with @revision"
        raise ModelError("there is no such file or folder", where=told, fix=fix, case=4)
    from .hub.loras import fetch

    found = fetch(told)
    return found.place, found.id


@dataclass(frozen=True)
class Begun:
    """What a run begins from, where it begins from a LoRA."""

    told: Method
    """As it is written down: a Hub id with its commit."""
    here: Method
    """As it is trained: where the file lies on this machine."""
    identity: dict[str, str] = field(default_factory=dict)
    """What a checkpoint must belong to: the file by its content, wherever it lies."""
    notes: tuple[str, ...] = ()


def begun(method: Method) -> Begun:
    """Raises ModelError, HubError where the LoRA to begin from is not to be had."""
    asked = getattr(method, "init_from", None)
    if asked is None:
        return Begun(method, method)
    told: Any = method
    path, name = located(asked)
    file = read(path)
    how = "stayed as it was below a new one" if told.init_stack else "went on learning"
    note = f"began from the LoRA {name} (sha256 {file.sha256[:12]}), {words(file.layers)}: it {how}"
    pinned = asked if at_home(asked, where="method: init_from").exists() else name
    return Begun(replace(told, init_from=pinned), replace(told, init_from=str(path)), {"init_from": file.sha256}, (note,))


def opened(told: str) -> LoraFile:
    return read(located(told)[0])


def weighted(words: Sequence[str]) -> list[tuple[str, float]]:
    """`a.safetensors:0.5` -> ("a.safetensors", 0.5); without a number 1."""
    told = []
    for word in words:
        name, colon, number = word.rpartition(":")
        try:
            told.append((name, float(number)) if colon else (word, 1.0))
        except ValueError:
            told.append((word, 1.0))
    return told


def merged(files: Sequence[tuple[LoraFile, float]], rule: arithmetic.Rule | None, tick: Callable[[], object] = bool) -> Any:
    """(the sum, what was kept of it: None where nothing was cut)."""
    adapter = arithmetic.merge([(file.layers, weight) for file, weight in files])
    if rule is None:
        return adapter, None
    cuts = arithmetic.resize(adapter, rule, tick=tick)
    return {name: cut.layer for name, cut in cuts.items()}, arithmetic.summary(cuts)


def write(
    adapter: Adapter,
    out: Path,
    layout: str,
    *,
    family: str | None = None,
    dtype: torch.dtype | None = None,
    blocks: sgm.Blocks = sgm.SDXL,
) -> list[Path]:
    """Writes layers as a file, of peft as a folder. `dtype` None keeps each tensor's own; `blocks`: how SDXL's U-Net counts its own.

    Raises ConfigError, StorageError for what is there already, ModelError for what the layout has no names for.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"{layout!r} is not one of: {', '.join(LAYOUTS)}", where="lora: --to", case=1)
    if dtype is not None:
        adapter = {name: layer.mapped(lambda tensor: tensor.to(dtype)) for name, layer in adapter.items()}
    if layout == "peft":
        return write_peft(adapter, empty(out))
    if out.suffix != ".safetensors":
        out = empty(out) / (diffusers_lora.FILE if layout == "diffusers" else "lora_kohya.safetensors")
    if out.exists():
        raise StorageError("is there already", where=out, fix="name another file", case=3)
    out.parent.mkdir(parents=True, exist_ok=True)
    if layout == "kohya":
        name = family or kohya.family_of(adapter)
        if name is None:
            raise ConfigError(
                "cannot tell which model this LoRA is for", where="lora", fix=f"--family {', '.join(kohya.KOHYA)}", case=1
            )
        names = kohya.names_of(name)
        tensors, told = kohya.tensors(adapter, names, blocks), kohya.metadata(adapter, names)
    else:
        tensors, told = by_diffusers(adapter), {}
    base.check(tensors, out)
    base.save(tensors, out, **told)
    return [out]


def empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError("is there already", where=folder, fix="name another folder", case=3)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def only_lora(adapter: Adapter, layout: str) -> None:
    if strange := [layer.kind for layer in adapter.values() if layer.kind != "lora"]:
        raise ModelError(f"{layout} layout takes no {strange[0]} here", where="lora", fix="--to kohya", case=4)


def by_diffusers(adapter: Adapter) -> dict[str, Tensor]:
    """Tensors of one file. The scale is in the matrices, alpha the rank: readers that look for no alpha (ComfyUI) are right too."""
    only_lora(adapter, "diffusers")
    told = {}
    for name, layer in adapter.items():
        part, _, module = name.partition(".")
        for key, tensor in by_peft(layer.scaled(1.0), adapter[name]).items():
            told[f"{part}.{diffusers_lora.in_diffusers(part, f'{module}.{key}')}"] = tensor
    return told


def by_peft(layer: Layer, before: Layer) -> dict[str, Tensor]:
    told = {"lora_A.weight": layer.tensors[DOWN], "lora_B.weight": layer.tensors[UP]}
    if before.magnitude_O is not None:
        length_O = before.magnitude_O
        told["lora_magnitude_vector"] = length_O if layer.down.ndim == 2 else length_O.reshape(1, -1, 1, 1)
    return told


def write_peft(adapter: Adapter, folder: Path) -> list[Path]:
    """A folder a part. The first text encoder's names are those of transformers from 5.6 on, where its pipeline's class has changed."""
    only_lora(adapter, "peft")
    files = []
    for part in dict.fromkeys(part_of(name) for name in adapter):
        mine = {name.partition(".")[2]: layer for name, layer in adapter.items() if part_of(name) == part}
        if part == "text_encoder":
            mine = {name.removeprefix("text_model."): layer for name, layer in mine.items()}
        (folder / part).mkdir()
        tensors = {f"base_model.model.{name}.{key}": t for name, x in mine.items() for key, t in by_peft(x, x).items()}
        base.check(tensors, folder)
        base.save(tensors, folder / part / peft.WEIGHTS)
        base.save_json(peft_config(mine), folder / part / PEFT_CONFIG)
        files += [folder / part / peft.WEIGHTS, folder / part / PEFT_CONFIG]
    return files


def peft_config(layers: Mapping[str, Layer]) -> dict[str, Any]:
    rank = Counter(len(layer.down) for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    return {
        **{"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none"},
        **{"use_rslora": False, "use_dora": any(layer.magnitude_O is not None for layer in layers.values())},
        **{"init_lora_weights": True, "inference_mode": True, "base_model_name_or_path": None},
        "target_modules": sorted(layers),
        "rank_pattern": {anchored(name): len(layer.down) for name, layer in layers.items() if len(layer.down) != rank},
        "alpha_pattern": {anchored(name): layer.alpha for name, layer in layers.items() if layer.alpha != alpha},
    }
