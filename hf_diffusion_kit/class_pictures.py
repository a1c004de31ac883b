"""DreamBooth's class pictures: made once by the base, kept as an ordinary folder of captioned pictures."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .data import Captioned, load_captioned
from .evaluation import Shot, draw
from .evaluation.gallery import TOGETHER

CODE = 1
"""Raised when the same shots would give other pictures."""


def class_pictures(pipe: Any, shots: Sequence[Shot], folder: Path, *, base: str, progress: bool = True) -> Captioned:
    """Pictures of `shots`, from `folder` when they are there already. The folder's name holds all that decides them.

    They are saved as they are drawn: stopped midway, the next call draws only what is missing.
    """
    told = json.dumps([CODE, base, [asdict(shot) for shot in shots]], sort_keys=True)
    target = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    half = folder / f".tmp-{target.name}"
    if target.is_dir() and not half.exists() and not all((target / f"{i:04d}.png").is_file() for i in range(len(shots))):
        target.replace(half)  # somebody has removed some; the same are drawn again
    if not target.is_dir():
        half.mkdir(parents=True, exist_ok=True)
        names = [half / f"{i:04d}.png" for i in range(len(shots))]
        with tqdm(total=len(shots), desc="class pictures", unit="picture", disable=not progress, leave=False) as bar:
            for first in range(0, len(shots), TOGETHER):
                group = names[first : first + TOGETHER]
                if not all(name.is_file() for name in group):
                    for name, picture in zip(group, draw(pipe, shots[first : first + TOGETHER]), strict=True):
                        picture.save(name.with_suffix(".part"), format="PNG")
                        name.with_suffix(".part").replace(name)
                bar.update(len(group))
        pairs = zip(names, shots, strict=True)
        lines = [json.dumps({"file_name": n.name, "text": s.caption, "seed": s.seed}, ensure_ascii=False) for n, s in pairs]
        (half / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        half.replace(target)
    return load_captioned(target)
