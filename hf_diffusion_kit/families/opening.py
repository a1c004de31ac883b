"""A base in the diffusers layout: what its configuration files say, where its files lie, and one part of it at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline
from safetensors import SafetensorError

from ..errors import ModelError
from .quiet import quiet_loading

REFUSED = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What diffusers and transformers raise for files that are missing, cut short, of another model, or that want another library."""


class PartConfig(ConfigMixin):
    """config.json of any one part, whatever its class."""

    config_name = "config.json"


@dataclass(frozen=True)
class Origin:
    """Where a pipeline was opened, so that a part of it can be opened again."""

    folder: Path
    """In the diffusers layout; for a Hub id the snapshot of its commit in the Hub's own cache."""
    dtype: torch.dtype

    def part(self, name: str, kind: type[Any]) -> Any:
        """That part alone, as `pipeline` had opened it. Raises ModelError."""
        try:
            with quiet_loading():
                return kind.from_pretrained(self.folder, subfolder=name, dtype=self.dtype, use_safetensors=True)
        except REFUSED as error:
            raise opening_failed(self.folder / name, error) from error


def config_of(base: str | Path, part: str | None = None, *, revision: str | None = None) -> dict[str, Any]:
    """What model_index.json says, or a model's own config.json; nothing else is fetched. Raises ModelError."""
    try:
        with quiet_loading():
            if part is None:
                told = DiffusionPipeline.load_config(base, revision=revision)
            else:
                told = PartConfig.load_config(base, subfolder=part, revision=revision)
    except (OSError, ValueError) as error:
        raise opening_failed(base, error) from error
    if not isinstance(told, dict):
        raise ModelError("is no table of settings", where=f"{base}: {part or 'model_index.json'}", case=1)
    return told


def class_name_of(base: str | Path, *, revision: str | None = None) -> str:
    name = config_of(base, revision=revision).get("_class_name")
    if not isinstance(name, str):
        raise ModelError("names no stock pipeline class", where=f"{base}: model_index.json", case=1)
    return name


def opening_failed(base: str | Path, error: BaseException) -> ModelError:
    folder = Path(base)
    said = " ".join(str(error).split())[:240]
    if folder.is_dir():
        return ModelError(f"cannot be opened: {said}", where=base, fix="name a folder in the diffusers layout", case=2)
    if "gated repo" in told_by(error):
        what = "is gated: its owners give the files to nobody who has not accepted their terms, or not to this token"
        return ModelError(what, where=base, fix=f"accept the terms at https://huggingface.co/{base}, then hf auth login", case=5)
    fix = f"check the id and the network; to have it at hand offline: hf download {base}"
    return ModelError(f"cannot be opened: {said}", where=base, fix=fix, case=5)


def told_by(error: BaseException | None) -> str:
    """All that an error and those behind it say, in small letters: libraries put words of their own over the Hub's."""
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(told).lower()
