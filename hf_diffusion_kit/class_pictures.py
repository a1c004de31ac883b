"""DreamBooth's class pictures: made once by the base, kept as an ordinary folder of captioned pictures."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .data import Captioned, load_captioned
from .evaluation import Shot, draw

CODE = 1
"""Raised when the same shots would give other pictures."""


def class_pictures(pipe: Any, shots: Sequence[Shot], folder: Path, *, base: str, progress: bool = True) -> Captioned:
    """Pictures of `shots`, from `folder` when they are there already. The folder's name holds all that decides them."""
    told = json.dumps([CODE, base, [asdict(shot) for shot in shots]], sort_keys=True)
    target = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    if not target.is_dir():
        half = folder / f".tmp-{target.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        lines = []
        for i, (shot, picture) in enumerate(
            zip(shots, draw(pipe, shots, title="class pictures" if progress else None), strict=True)
        ):
            picture.save(half / f"{i:04d}.png")
            lines.append(json.dumps({"file_name": f"{i:04d}.png", "text": shot.caption, "seed": shot.seed}, ensure_ascii=False))
        (half / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        half.replace(target)
    return load_captioned(target)
