"""A LoRA's file or folder, of whatever layout -> its layers. Nothing in it is passed over: what is no part of an adapter is an error."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError
from . import kohya, sgm
from .layers import DOWN, UP, Adapter, Layer, part_of

DIFFUSERS_FILE, PEFT_FILE, PEFT_CONFIG = "pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json"
KOHYA_KEYS = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
PARTS = re.compile(r"(unet|transformer(_\d)?|text_encoder(_\d)?)")
ENDS = {
    DOWN: (
        ".lora_A.weight",
        ".lora_A.default.weight",
        ".lora.down.weight",
        ".lora_linear_layer.down.weight",
        "_lora.down.weight",
        f".{DOWN}",
    ),
    UP: (
        ".lora_B.weight",
        ".lora_B.default.weight",
        ".lora.up.weight",
        ".lora_linear_layer.up.weight",
        "_lora.up.weight",
        f".{UP}",
    ),
    "magnitude": (
        ".lora_magnitude_vector",
        ".lora_magnitude_vector.weight",
        ".lora_magnitude_vector.default.weight",
        ".dora_scale",
    ),
    "alpha": (".alpha",),
    **{name: (f".{name}",) for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{name: (f".{name}",) for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
}
"""What a tensor is -> how the names of such end, in all the layouts by which diffusers and peft ever wrote."""
OLD = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}


@dataclass(frozen=True)
class LoraFile:
    layers: Adapter
    layout: str
    """`diffusers`, `kohya` or `peft`."""
    told: dict[str, str]
    """The metadata in the file's head; peft's configuration as it is."""
    files: tuple[Path, ...]
    """Those that were read."""

    @property
    def sha256(self) -> str:
        """Of what was read; of several files of all of them."""
        mix = sha256()
        for path in self.files:
            mix.update(path.read_bytes())
        return mix.hexdigest()


def read(place: str | Path, *, blocks: sgm.Blocks | None = None) -> LoraFile:
    """A file, or the folder of one. `blocks`: how the model's U-Net counts them, for kohya's names. Raises ModelError."""
    path = Path(place)
    if path.is_dir() and (parts := peft_parts(path)):
        return read_peft(parts)
    file = found(path)
    tensors, told = opened(file)
    try:
        if all(key.startswith(KOHYA_KEYS) for key in tensors):
            layers, left = kohya.read(tensors, blocks)
            layout = "kohya"
        else:
            layers, left = grouped(tensors, read_json(told.get("lora_adapter_metadata", "{}"), file))
            layout = "peft" if any(".lora_A." in key for key in tensors) and "lora_adapter_metadata" not in told else "diffusers"
    except ModelError as error:
        raise ModelError(error.message, where=file, fix=error.fix, case=4) from error
    complain(layers, left, file)
    return LoraFile(layers, layout, told, (file,))


def complain(layers: Adapter, left: Iterable[str], where: Path) -> None:
    rest = list(left)
    if rest and layers:
        raise ModelError(f"holds {len(rest)} tensors that are no part of a LoRA ({rest[0]})", where=where, case=4)
    if not layers:
        what = f"it has {rest[0]}" if rest else "it has no tensors"
        fix = "name a LoRA of diffusers, kohya or peft"
        raise ModelError(f"holds no adapter that can be read: {what}", where=where, fix=fix, case=4)


def found(path: Path) -> Path:
    """The file that is meant. Raises ModelError where there is none, or one cannot tell which."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError("is no .safetensors file, and others are not opened", where=path, fix="convert it first", case=4)
        return path
    if not path.is_dir():
        raise ModelError("there is no such file or folder", where=path, case=4)
    if (path / DIFFUSERS_FILE).is_file():
        return path / DIFFUSERS_FILE
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        what = (
            f"holds {len(files)} files of weights: {', '.join(file.name for file in files[:4])}" if files else "holds no weights"
        )
        raise ModelError(what, where=path, fix="name the file", case=4)
    return files[0]


def opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata)."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot be read: {error}", where=path, fix="fetch it anew", case=4) from error


def read_json(text: str, where: Path) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ModelError(f"its metadata cannot be read: {error}", where=where, case=4) from error
    if not isinstance(told, dict):
        raise ModelError("its metadata is no table of settings", where=where, case=4)
    return told


def grouped(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> tuple[Adapter, list[str]]:
    """Tensors by diffusers' or peft's names -> (layers, keys that are part of none). `told`: `unet.r`, `unet.lora_alpha` ..."""
    groups: dict[str, dict[str, Tensor]] = {}
    left: list[str] = []
    for key, tensor in tensors.items():
        what = next(((kind, end) for kind, ends in ENDS.items() for end in ends if key.endswith(end)), None)
        if what is None:
            left.append(key)
            continue
        old = what[1].startswith("_lora")
        name = module_of(f"{key.removesuffix(what[1])}{'_lora' if old else ''}")
        groups.setdefault(name, {})[what[0]] = tensor
    adapter: Adapter = {}
    for name, group in groups.items():
        alpha, length = group.pop("alpha", None), group.pop("magnitude", None)
        if not (set(group) == {DOWN, UP} or kohya.complete(group)):
            left += [f"{name}.{kind}" for kind in group] or [f"{name}.alpha"]
            continue
        layer = Layer(dict(group), 1.0, None if length is None else length.flatten())
        meant = float(alpha) if alpha is not None else alpha_of(name, layer.rank or 1, told)
        adapter[name] = Layer(layer.tensors, meant, layer.magnitude_O)
    return adapter, left


def module_of(name: str) -> str:
    """A layer's name in a file -> `part.module`, as we call it."""
    name = name.removeprefix("base_model.model.").replace(".processor.", ".")
    if not PARTS.match(name):
        name = f"{'unet' if name.startswith(('down_blocks', 'mid_block', 'up_blocks')) else 'transformer'}.{name}"
    part, _, module = name.partition(".")
    head, _, last = module.rpartition(".")
    if last in OLD:
        text = part.startswith("text_encoder")
        module = f"{head}.{OLD_TEXT[OLD[last]] if text else OLD[last]}"
    return f"{part}.{rooted(part, module)}"


def rooted(part: str, module: str) -> str:
    """CLIP's layers by the name that they had before transformers 5.6, which all files can be brought to."""
    clip = part.startswith("text_encoder") and module.startswith(("encoder.layers.", "embeddings.", "final_layer_norm"))
    return f"text_model.{module}" if clip else module


def alpha_of(name: str, rank: int, told: Mapping[str, Any]) -> float:
    """What the configuration says of a layer: alpha, and with rsLoRA as much as makes the scale alpha / sqrt(rank)."""
    part, _, module = name.partition(".")
    config = {key.partition(".")[2]: value for key, value in told.items() if part_of(key) == part}
    alpha = config.get("lora_alpha", config.get("alpha"))
    for pattern, value in (config.get("alpha_pattern") or {}).items():  # as peft looks them up
        if re.match(rf"(.*\.)?({pattern})$", module) or re.match(rf"(.*\.)?({pattern})$", module.removeprefix("text_model.")):
            alpha = value
            break
    if alpha is None:
        return float(rank)
    return float(alpha) * (rank**0.5 if config.get("use_rslora") else 1.0)


def peft_parts(folder: Path) -> dict[str, Path]:
    """Part -> its folder, where peft wrote one or several; "" for one that lies there by itself."""
    if (folder / PEFT_CONFIG).is_file():
        return {"": folder}
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{PEFT_CONFIG}"))}


def read_peft(parts: Mapping[str, Path]) -> LoraFile:
    layers: Adapter = {}
    told: dict[str, str] = {}
    files = []
    for part, folder in parts.items():
        text = (folder / PEFT_CONFIG).read_text(encoding="utf-8")
        config = read_json(text, folder / PEFT_CONFIG)
        if config.get("peft_type") not in ("LORA", "LOHA", "LOKR"):
            raise ModelError(f"holds a {config.get('peft_type')} adapter, which is not read", where=folder, case=4)
        tensors, _ = opened(folder / PEFT_FILE)
        named = {f"{part}.{key.removeprefix('base_model.model.')}" if part else key: tensor for key, tensor in tensors.items()}
        name = part or part_of(module_of(next(iter(named), "")))
        new, left = grouped(named, {f"{name}.{key}": value for key, value in config.items()})
        complain(new, left, folder / PEFT_FILE)
        layers |= {key: unscaled(layer, config) for key, layer in new.items()}
        told[f"{name} {PEFT_CONFIG}"] = text
        files += [folder / PEFT_FILE, folder / PEFT_CONFIG]
    return LoraFile(layers, "peft", told, tuple(files))


def unscaled(layer: Layer, config: Mapping[str, Any]) -> Layer:
    """peft scales also a LoKr without thin matrices, by the rank that it was asked for."""
    if layer.kind != "lokr" or layer.rank is not None:
        return layer
    first = "lokr_w1" if "lokr_w1" in layer.tensors else "lokr_w1_a"
    scale = float(config.get("alpha", 8)) / float(config.get("r", 8))
    return Layer({**layer.tensors, first: layer.tensors[first] * scale}, 1.0)
