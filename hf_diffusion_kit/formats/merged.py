import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from ..families import Family
from .base import Written


class Merged:
    """The whole pipeline with the adapter folded in: large, but `from_pretrained(repo)` needs nothing else."""

    name = "merged"

    def write(self, family: Family, folder: Path) -> Written:
        before = set(folder.rglob("*")) if folder.is_dir() else set()
        parts = {}
        for part in (family.denoiser, *family.text_encoders):
            parts[part] = folded(family.part(part))
        pipe = family.pipeline_class(**{**family.pipe.components, **parts, **loose_settings(family.pipe)})
        pipe.save_pretrained(folder, safe_serialization=True)
        index = folder / "model_index.json"
        told = {key: value for key, value in json.loads(index.read_text(encoding="utf-8")).items() if key != "_name_or_path"}
        index.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        forget_paths(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in before)
        for path in files:
            path.chmod(0o644)
        return Written(tuple(files), ".from_pretrained(FOLDER)")

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        return family.pipeline(folder, dtype=dtype)


def folded(model: Any) -> Any:
    """A copy of a part whose adapter is added to its weights; the part itself when it has none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if "default" not in getattr(model, "peft_config", {}):
        return model
    whole = deepcopy(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            whole.set_submodule(name, module.get_base_layer())
    del whole.peft_config
    whole._hf_peft_config_loaded = False
    return whole


def loose_settings(pipe: Any) -> dict[str, Any]:
    """Arguments of the pipeline that are no components, such as `requires_safety_checker`."""
    return {key: value for key, value in pipe.config.items() if key == "requires_safety_checker"}


def forget_paths(folder: Path) -> None:
    """diffusers and transformers write where a part was loaded from; that is a path of this machine."""
    for path in folder.rglob("config.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
