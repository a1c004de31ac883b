import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ModelError
from ..families import Family

STARTS_AT_ZERO = ("lora_B", ".up.", "lora_up.", "lora_linear_layer.up", "hada_w2_b", "lokr_w1.", "lokr_w1_a", "oft_R")
"""What tells a tensor that an adapter starts at zero, in peft's names and in diffusers'."""


@dataclass(frozen=True)
class Written:
    files: tuple[Path, ...]
    reader: str
    """The stock calls that open it, for the card; `BASE` and `FOLDER` stand for the two places."""


class Format(ABC):
    name: ClassVar[str]
    whole: ClassVar[bool] = False
    """Whether the files are a pipeline by themselves; else they go onto their base."""

    @classmethod
    def takes(cls, family: type[Family]) -> bool:
        """Whether what was trained on such a base can be written so."""
        return True

    @abstractmethod
    def write(self, family: Family, folder: Path) -> Written:
        """Writes what is on the family's parts, once its method has settled; nothing else in the folder is touched. Raises ModelError."""

    @abstractmethod
    def add(self, pipe: Any, folder: Path) -> None:
        """Puts what was written onto a stock pipeline of its base, by stock calls. Raises ModelError."""

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        """A stock pipeline, opened anew from what was written: what anybody else will get."""
        pipe = family.pipeline(base, revision=revision, dtype=dtype)
        self.add(pipe, folder)
        return pipe

    def as_read(self, family: Family) -> None:  # noqa: B027 (most readers keep the precision of the files)
        """Brings the family's parts to the precision in which a reader of the written files has them; for comparing."""


def adapter_of(model: Any) -> tuple[str, Any] | None:
    """(name, peft's configuration) of the adapter on a part; None when it has none. Raises ModelError when it has several."""
    found = dict(getattr(model, "peft_config", {}))
    if len(found) > 1:
        raise ModelError(f"{type(model).__name__} has several adapters: {', '.join(found)}", fix="leave one on it", case=2)
    return next(iter(found.items()), None)


def adapter_state(model: Any, name: str) -> dict[str, Tensor]:
    """An adapter's tensors by peft's names; never the embedding, which has rows of its own when there are new words."""
    return get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


def folded(model: Any) -> Any:
    """A copy of a part whose adapter is added to its weights; the part itself when it has none."""
    if adapter_of(model) is None:
        return model
    whole = deepcopy(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            whole.set_submodule(name, module.get_base_layer())
    del whole.peft_config
    whole._hf_peft_config_loaded = False
    return whole


def rooted(part: str, key: str) -> str:
    """transformers 5.6 dropped `text_model.` from CLIP's names; with it, both older and newer readers find the layers."""
    if part.startswith("text_encoder") and key.startswith(("encoder.layers.", "embeddings.", "final_layer_norm.")):
        return f"text_model.{key}"
    return key


def check(tensors: Mapping[str, Tensor], where: Path, *, adapter: bool = True) -> None:
    """Raises ModelError for what stock readers would load without a word: nothing, no numbers, or an adapter that was never trained."""
    if not tensors:
        raise ModelError("there is nothing trained to write", where=where, case=2)
    if bad := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise ModelError(f"{len(bad)} tensors are not finite ({bad[0]}); nothing was written", where=where, case=2)
    if adapter and not any(value.any() for key, value in tensors.items() if any(sign in f"{key}." for sign in STARTS_AT_ZERO)):
        raise ModelError("the adapter was never trained: it is still zero; nothing was written", where=where, case=2)


def save(tensors: Mapping[str, Tensor], path: Path, **told: str) -> None:
    """safetensors, whole or not at all, its metadata in a fixed order: equal weights are equal files."""
    half = path.with_name(f"{path.name}.part")
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, half, metadata={"format": "pt", **told})
    with half.open("r+b") as file:  # a checkpoint may be larger than the memory
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))
    half.chmod(0o644)
    half.replace(path)


def save_json(told: Any, path: Path) -> None:
    half = path.with_name(f"{path.name}.part")
    half.write_text(json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)
