"""All of it, from nothing: text tower, VAE, denoiser; then the figures, a sheet of samples, and a folder in the stock diffusers layout."""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from ..errors import ConfigError, ModelError, StorageError, unknown
from . import BASES, denoiser, handwriting, model, path, text, tokenizer, vae
from .descent import Course
from .handwriting import Handwriting
from .scores import Viewing, look, page

FIGURES = "figures.json"

TEXT = Course(steps=400, batch=70, rate=2e-3)
VAE = Course(steps=1000, batch=8, rate=1e-2)
DENOISER = Course(steps=1150, batch=32, rate=2e-3)
"""Chosen by trial: small batches and more steps win on one thread. About 15, 75 and 180 CPU seconds."""


@dataclass(frozen=True)
class Curriculum:
    seed: int = 0
    """Of the weights, the order and the noise. Same seed, same thread count, same versions: same weights."""
    text: Course = TEXT
    vae: Course = VAE
    denoiser: Course = DENOISER
    viewing: Viewing = field(default_factory=Viewing)
    """How the finished base is judged."""

    @classmethod
    def of(cls, seed: int, **steps: int) -> "Curriculum":
        """The shipped one with another seed and other numbers of steps: `Curriculum.of(0, text=50, vae=100, denoiser=200)`."""
        return replace(cls(seed=seed), **{part: replace(getattr(cls(), part), steps=count) for part, count in steps.items()})


def train(
    base: str,
    out: Path,
    curriculum: Curriculum | None = None,
    *,
    idx: Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains a base and writes `out` whole or not at all; returns the figures.

    An earlier training in `out` is replaced; a folder that holds anything else is a `StorageError`. `idx`: MNIST's folder.
    """
    curriculum = curriculum or Curriculum()
    if base not in BASES:
        raise unknown("embedded base", base, BASES)
    if out.exists() and not (out / FIGURES).is_file() and any(out.iterdir()):
        raise StorageError("is not empty and holds no earlier training", where=out, fix="choose another folder")
    with _one_thread():
        pipe, figures = _learn(base, curriculum, idx, progress, say)
        scores, drawn = look(pipe, BASES[base], curriculum.viewing, idx=idx)
    figures |= {
        "base": base,
        "digits": BASES[base],
        "curriculum": asdict(curriculum),
        "versions": _versions(),
        "scores": asdict(scores),
    }
    write(out, pipe, figures, drawn)
    return figures


def _learn(
    base: str, curriculum: Curriculum, idx: Path | None, progress: bool, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    seen, held_out = (handwriting.load(split, idx=idx).only(BASES[base]) for split in ("train", "test"))
    pixels, unseen_pixels = handwriting.as_pixels(seen), handwriting.as_pixels(held_out)
    labels, unseen_labels = torch.from_numpy(seen.labels_N), torch.from_numpy(held_out.labels_N)
    say(f"{base}: {len(seen)} pictures to learn from, {len(held_out)} held out")
    seed, tokens, clock = curriculum.seed, tokenizer.build(), _Clock()

    text_tower = model.text_tower(tokens, seed)
    clip, text_curve = text.train(text_tower, tokens, pixels, labels, curriculum.text, seed=seed, progress=progress)
    zero_shot = text.zero_shot(clip, tokens, unseen_pixels, unseen_labels, BASES[base])
    seconds = {"text": clock.lap()}
    say(f"text tower: names {zero_shot:.1%} of held-out pictures ({seconds['text']} CPU-s)")

    autoencoder = model.autoencoder(seed)
    latents, vae_curve = vae.train(autoencoder, pixels, curriculum.vae, seed=seed, progress=progress)
    psnr = vae.psnr(autoencoder, unseen_pixels)
    seconds["vae"] = clock.lap()
    say(f"VAE: {psnr:.1f} dB on held-out pictures ({seconds['vae']} CPU-s)")

    unet, denoiser_curve = denoiser.train(
        model.denoiser(seed),
        text_tower,
        tokens,
        latents,
        labels,
        curriculum.denoiser,
        seed=seed,
        progress=progress,
    )
    seconds["denoiser"] = clock.lap()
    say(f"denoiser: loss {denoiser_curve[-1].loss:.4f} ({seconds['denoiser']} CPU-s)")
    curves = {"text": text_curve, "vae": vae_curve, "denoiser": denoiser_curve}
    figures = {
        "data": {"name": "scikit-learn load_digits" if idx is None else "MNIST", "pictures": len(seen), "sha256": _sha(seen)},
        "zero_shot": round(zero_shot, 4),
        "psnr_db": round(psnr, 2),
        "cpu_seconds": seconds,
        "curves": {name: [[point.step, point.loss] for point in curve] for name, curve in curves.items()},
    }
    return model.pipeline(tokens, text_tower, autoencoder, unet), figures


def opened(name: str) -> tuple[Any, tuple[int, ...]]:
    """(pipeline, the digits it was taught) of a shipped base or of a folder that `train` wrote."""
    folder = path(name) if name in BASES else Path(name)
    if not (folder / FIGURES).is_file():
        raise ConfigError(f"is neither a folder with {FIGURES} nor one of {', '.join(BASES)}", where=f"base: {name}", case=1)
    try:
        digits = tuple(json.loads((folder / FIGURES).read_text(encoding="utf-8"))["digits"])
        return StableDiffusionPipeline.from_pretrained(folder), digits
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot be opened: {error}", where=folder, fix="train it again") from error


def write(out: Path, pipe: Any, figures: dict[str, Any], drawn: dict[int, list[Image.Image]]) -> None:
    """Into a neighbour first, then renamed: whatever fails, what `out` held before stays. A `StorageError` if it cannot be written."""
    out = out.resolve()
    fresh, old = out.with_name(f".{out.name}.writing"), out.with_name(f".{out.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _fill(fresh, pipe, figures, drawn)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        fresh.rename(out)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=out, fix="free space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _fill(fresh: Path, pipe: Any, figures: dict[str, Any], drawn: dict[int, list[Image.Image]]) -> None:
    pipe.save_pretrained(fresh)
    tokenizer.save(pipe.tokenizer, fresh / "tokenizer")
    (fresh / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    page(drawn, f"{figures['base']}, as it draws its digits").quantize(64).save(fresh / "samples.png", optimize=True)


class _Clock:
    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        """CPU seconds since the lap before."""
        before, self.last = self.last, time.process_time()
        return round(self.last - before, 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads lose time on tensors this small, and change the last bits of the weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sha(data: Handwriting) -> str:
    return hashlib.sha256(data.pictures_NHW.tobytes() + data.labels_N.tobytes()).hexdigest()


def _versions() -> dict[str, str]:
    packages = ("torch", "diffusers", "transformers", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
