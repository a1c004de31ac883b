"""The whole pipeline, as `from_pretrained(FOLDER)` opens it, on today's stack and on older ones alike."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from ..errors import ModelError
from ..families import Family
from ..families.exchanged import exchanged
from ..families.quiet import quiet_loading
from .base import Format, Written, check, folded, rooted, save, save_json


class Pipeline(Format):
    """What full fine-tuning gives: every part, in the base's own precision (weights trained in float32 are cast by then)."""

    name: ClassVar[str] = "pipeline"
    whole: ClassVar[bool] = True

    def write(self, family: Family, folder: Path) -> Written:
        if family.quantize != "no":
            fix = "open the base with quantize = no, and add what was trained to it"
            raise ModelError(f"the base was opened in fewer bits ({family.quantize})", where=folder, fix=fix, case=4)
        family.recall()
        names = (family.denoiser, *family.text_encoders)
        numbers = {f"{part}.{name}": value for part in names for name, value in family.part(part).named_parameters()}
        check(numbers, folder, adapter=False)
        try:
            parts = {part: folded(family.part(part)) for part in names}
        except ValueError as error:  # float16 ends at 65504
            raise ModelError(f"cannot be folded in: {error}", where=folder, case=2) from error
        half = folder / f".{self.name}.part"
        shutil.rmtree(half, ignore_errors=True)
        try:
            pipe = exchanged(family.pipe, parts)
            with quiet_loading():
                pipe.save_pretrained(half, safe_serialization=True)
            forget_paths(half)
            for part in family.text_encoders:
                name_as_before(half / part, part)
            for tokenizer in family.tokenizers:
                words_apart(half / tokenizer, getattr(pipe, tokenizer))
            return Written(tuple(moved(half, folder)), ".from_pretrained(FOLDER)")
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def add(self, pipe: Any, folder: Path) -> None:
        raise ModelError("is a pipeline by itself, and goes onto no other", where=folder, case=4)

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        return family.pipeline(folder, dtype=dtype)


class Merged(Pipeline):
    """The base with an adapter of any kind folded in: large, but a reader needs nothing else."""

    name: ClassVar[str] = "merged"


def forget_paths(folder: Path) -> None:
    """diffusers and transformers write where a part was loaded from; that is a path of this machine."""
    for path in (folder / "model_index.json", *folder.glob("*/config.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        told.pop("_name_or_path", None)
        save_json(told, path)


def name_as_before(folder: Path, part: str) -> None:
    """Layers by the names that CLIP had before transformers 5.6: both know them, older ones would read random weights else."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if any(rooted(part, key) != key for key in tensors):
            save({rooted(part, key): value for key, value in tensors.items()}, path)
    for path in folder.glob("*.safetensors.index.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        save_json({**told, "weight_map": {rooted(part, key): name for key, name in told["weight_map"].items()}}, path)


def words_apart(folder: Path, tokenizer: Any) -> None:
    """`vocab.json` and `merges.txt`, which transformers 5 no longer writes and older ones ask for."""
    told = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if told["type"] == "BPE":
        (folder / "vocab.json").write_text(json.dumps(told["vocab"], ensure_ascii=False), encoding="utf-8")
        lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in told["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")


def moved(half: Path, folder: Path) -> list[Path]:
    """Moves what was written to where it belongs, a part at a time; model_index.json, without which nothing opens, last."""
    files = sorted(path.relative_to(half) for path in half.rglob("*") if path.is_file())
    for name in files:
        (half / name).chmod(0o644)
    for entry in sorted(half.iterdir(), key=lambda path: path.name == "model_index.json"):
        target = folder / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
    return [folder / name for name in files]
