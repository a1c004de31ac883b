"""How good a base is: pictures of each of its digits, drawn from fixed seeds and put before the judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Generator

from ..errors import positive
from ..sheet import Cell, sheet
from . import handwriting
from .captions import prompt
from .handwriting import WORDS
from .judge import Judge, nn_ratio

SHOWN = 12
"""Pictures of a digit on the sheet."""


@dataclass(frozen=True)
class Viewing:
    each: int = 60
    """Pictures of each digit."""
    guidance: float = 2.0
    """Guidance scale (Ho & Salimans 2022). 1 is none: more varied, less sure."""
    steps: int = 10
    """Steps of the base's own solver."""
    seed: int = 1000
    """Digit d is drawn from `seed + d`."""

    def __post_init__(self) -> None:
        positive("digits", each=self.each, steps=self.steps)


@dataclass(frozen=True)
class Scores:
    accuracy: float
    """Share of the pictures in which the judge sees the digit that was asked for, mean over digits, 0..1."""
    by_digit: dict[int, float]
    nn_ratio: dict[int, float]
    """A digit's median distance to the nearest training picture, generated over real held-out: about 1 is new, well under 1 is copied."""
    judge_on_real: float
    """The judge's own share on real held-out pictures."""
    pictures: int
    """How many were judged."""


def look(
    pipe: Any, digits: Sequence[int], viewing: Viewing | None = None, *, idx: Path | None = None
) -> tuple[Scores, dict[int, list[Image.Image]]]:
    """The scores, and the pictures they were taken from. `pipe`: a `StableDiffusionPipeline` that knows these digits."""
    viewing = viewing or Viewing()
    judge = Judge.fit(idx)
    seen, held_out = (handwriting.load(split, idx=idx) for split in ("train", "test"))
    drawn = {
        d: draw(pipe, prompt(d), viewing.each, viewing.seed + d, guidance=viewing.guidance, steps=viewing.steps) for d in digits
    }
    right = {d: judge.accuracy(pictures, d) for d, pictures in drawn.items()}
    real = {d: [list(handwriting.as_images(half.only([d]))) for half in (seen, held_out)] for d in digits}
    return Scores(
        accuracy=round(sum(right.values()) / len(right), 4),
        by_digit={d: round(share, 4) for d, share in right.items()},
        nn_ratio={d: round(nn_ratio(drawn[d], *real[d]), 3) for d in digits},
        judge_on_real=round(judge.real_accuracy, 4),
        pictures=sum(map(len, drawn.values())),
    ), drawn


def draw(pipe: Any, caption: str, count: int, seed: int, *, guidance: float = 2.0, steps: int = 10) -> list[Image.Image]:
    """`count` pictures of a caption, in one batch, from a generator on the CPU."""
    pipe.set_progress_bar_config(disable=True)
    answer = pipe(
        caption,
        num_images_per_prompt=count,
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=Generator().manual_seed(seed),
    )
    return answer.images


def page(drawn: dict[int, list[Image.Image]], title: str) -> Image.Image:
    """The first pictures of each digit, a row each."""
    rows = [[Cell(picture) for picture in pictures[:SHOWN]] for pictures in drawn.values()]
    return sheet(rows, row_labels=[WORDS[d] for d in drawn], title=title, cell=64)
