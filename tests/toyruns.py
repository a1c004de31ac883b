"""Toy runs of every method, and all that a run holds, as bytes: what a resumed run is compared by."""

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import tiny
import toyset
from hf_diffusion_kit.data import Captioned, load_captioned
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import DreamBooth, DreamBoothFull, Full, Lora, Method, Pivotal, TextualInversion
from hf_diffusion_kit.training.saving import snapshot
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

gc.freeze()  # the trainer collects garbage once a run, and would go through all these libraries each time

SETTINGS = TrainSettings(
    steps=6,
    learning_rate=1e-2,
    batch_size=2,
    resolution=(tiny.HEIGHT, tiny.WIDTH),
    caption_dropout=0.2,
    lr_scheduler="cosine",
    lr_warmup_steps=2,
    checkpointing_steps=0,
)
WORD, CLASS = ("<cat>",), ("a dog", "dogs")
CALLED = "{caption} <cat>"


@dataclass(frozen=True)
class Case:
    method: Method
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from SETTINGS."""
    stops: tuple[int, ...] = (3,)
    """Steps after which it is stopped."""
    mixed: bool = False
    """On pictures of several shapes, part of them transparent."""

    @property
    def settings(self) -> TrainSettings:
        return replace(SETTINGS, **self.changes)


def changed(case: Case, **changes: Any) -> Case:
    return replace(case, changes={**case.changes, **changes})


TEXT_FIRST = {"text_encoder_steps": 3, "text_encoder_learning_rate": 5e-3}
EDGE = (2, 3, 4)
"""Before a stage's edge at step 3, at it, and after it."""
CASES = {
    "lora": Case(Lora(rank=2, dropout=0.1), {"gradient_accumulation_steps": 2, "random_flip": True}, (1, 2, 4)),
    "text-stops": Case(Lora(rank=2, dropout=0.1, text_encoder=True), {"text_encoder_stop_step": 3}, EDGE),
    "dreambooth": Case(DreamBooth(rank=2), {}, (1, 4)),
    "by-the-base": Case(DreamBooth(rank=2, text_encoder=True, prior="base", class_prompts=CLASS), {}, (1, 4)),
    "full": Case(Full(), {"ema_decay": 0.9}, (1, 4)),
    "full-text": Case(Full(text_encoder=True), {"ema_decay": 0.9, "first_stage": "joint", **TEXT_FIRST}, EDGE),
    "fast": Case(DreamBoothFull(text_encoder=True), TEXT_FIRST, EDGE),
    "fast-as-it-was": Case(
        DreamBoothFull(text_encoder=True, prior="base", class_prompts=CLASS), {"first_stage": "joint", **TEXT_FIRST}, EDGE
    ),
    "word": Case(TextualInversion(tokens=WORD, initializer=("c",), vectors=2), {"caption_template": CALLED}, (1, 4)),
    "pivotal": Case(
        Pivotal(tokens=WORD, rank=2, text_encoder=True),
        {"caption_template": CALLED, "text_encoder_stop_step": 3, "token_learning_rate": 5e-2},
        EDGE,
    ),
    "buckets": Case(
        Lora(rank=2),
        {
            **{"buckets": True, "bucket_step": 8, "crop": "random", "random_crops": 3, "random_flip": True, "mask": "alpha"},
            **{"caption_shuffle": True, "caption_keep": 1, "unmasked_weight": 0.1, "gradient_accumulation_steps": 2},
        },
        (1, 4),
        mixed=True,
    ),
    "noise": Case(
        Lora(rank=2), {"snr_gamma": 5.0, "noise_offset": 0.1, "input_perturbation": 0.1, "loss_type": "huber", "batch_size": 1}
    ),
    "checkpointing": Case(Lora(rank=2, dropout=0.1, dora=True), {"gradient_checkpointing": True}),
    "bf16": Case(Lora(rank=2), {"mixed_precision": "bf16"}),
    "fp16": Case(Lora(rank=2), {"mixed_precision": "fp16"}),
    "adafactor": Case(Lora(rank=2), {"optimizer": "adafactor"}),
    "prodigy": Case(Lora(rank=2), {"optimizer": "prodigy", "learning_rate": 1.0}),
    "schedulefree": Case(Lora(rank=2), {"optimizer": "schedulefree", "text_encoder_learning_rate": None}),
    "adamw8bit": Case(Full(), {"optimizer": "adamw8bit", "learning_rate": 1e-3}),
}


def mixed(path: Path) -> Path:
    """Six pictures of three shapes with tags, each half transparent."""
    path.mkdir(parents=True)
    lines = []
    for i in range(6):
        size = ((32, 20), (20, 32), (24, 24))[i % 3]
        picture = Image.new("RGBA", size, (40 * i, 255 - 40 * i, 90, 255))
        picture.paste((200, 30 * i, 10, 0), (0, 0, size[0] // 2, size[1]))
        picture.save(path / f"p{i}.png")
        lines += [json.dumps({"file_name": f"p{i}.png", "text": f"{word}, th, b, c {i}"}) for word in "ad"]
    (path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return path


@dataclass(frozen=True)
class Pictures:
    plain: Captioned
    classes: Captioned
    mixed: Captioned

    @classmethod
    def made(cls, folder: Path, count: int = 5) -> "Pictures":
        return cls(
            load_captioned(toyset.folder(folder / "five", count=count)),
            load_captioned(toyset.folder(folder / "three", count=3, captions=1)),
            load_captioned(mixed(folder / "mixed")),
        )


def trainer(
    case: Case, pictures: Pictures, folder: Path | None = None, *, say: Callable[[str], None] = lambda _: None, **more: Any
) -> Trainer:
    torch.manual_seed(time.time_ns() % 2**31)  # what ran before must not matter
    told: dict[str, Any] = {"class_data": pictures.classes, "folder": folder, "say": say, "progress": False, **more}
    data = pictures.mixed if case.mixed else pictures.plain
    return Trainer(FAMILIES["sd1"](tiny.pipeline()), case.method, case.settings, data, **told)


def saved(run: Trainer, folder: Path) -> Path:
    """A checkpoint of the run as it is now, in a folder of its own."""
    run.folder, run.saved_at = folder, None
    run.save()
    run.folder = None
    return folder


def state(run: Trainer) -> dict[str, Any]:
    """Weights, averages, moments, counts, losses, ledger, rates: all but the clock."""
    told = snapshot(run)
    kinds = {"weights": told.weights, "optimizer": told.optimizer, "ema": told.ema}
    tensors = {f"{kind}: {name}": bits(value) for kind, values in kinds.items() for name, value in values.items()}
    plain = {name: json.dumps(value, sort_keys=True) for name, value in told.state.items() if name not in ("seconds", "started")}
    return {**tensors, **plain, "step": told.step, "rates": run.rates(), "ledger lines": run.ledger()}


def bits(value: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return value.dtype, value.shape, value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same, byte for byte."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]
