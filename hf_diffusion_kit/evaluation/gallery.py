"""Pictures at fixed captions and seeds, from any stock pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..families import FAMILIES, Family

TOGETHER = 8
"""Pictures drawn at once. Each has its own generator, so its neighbours change nothing but rounding."""


@dataclass(frozen=True)
class Shot:
    """All that decides a picture, given a pipeline."""

    caption: str
    seed: int
    steps: int
    """Solver steps."""
    guidance: float
    """Classifier-free guidance (Ho & Salimans 2022); 1 is none."""
    size: tuple[int, int]
    """Height and width in pixels."""


def call_of(pipe: Any, guidance: float) -> dict[str, Any]:
    """Arguments of a pipeline's call that hang on its family: guidance by its name, and what draws a picture as training saw it."""
    alike = (kind for kind in FAMILIES.values() if type(pipe) is kind.pipeline_class)
    kind = next((kind for kind in alike if kind.accepts(lambda part: getattr(pipe, part).config)), Family)
    return {kind.guidance_argument: guidance, **kind.call_options}


def draw(pipe: Any, shots: Sequence[Shot], *, title: str | None = None) -> list[Image.Image]:
    """One RGB picture a shot, in order. `title` shows a progress bar with that name."""
    pictures: list[Image.Image] = []
    with tqdm(total=len(shots), desc=title, unit="picture", disable=title is None, leave=False) as bar:
        for _, alike in groupby(shots, key=lambda shot: (shot.steps, shot.guidance, shot.size)):
            run = list(alike)
            for first in range(0, len(run), TOGETHER):
                group = run[first : first + TOGETHER]
                pictures += [Image.fromarray(np.rint(pixels_RG3 * 255).astype(np.uint8)) for pixels_RG3 in _pixels(pipe, group)]
                bar.update(len(group))
    return pictures


def pixels(pipe: Any, shot: Shot) -> np.ndarray:
    """pixels_RG3 in [0, 1], float32, drawn alone: the same bits again from the same weights on the same machine."""
    return _pixels(pipe, [shot])[0]


def difference(one: Any, other: Any, shot: Shot) -> float:
    """Largest difference of any pixel of the same shot from two pipelines, pixels in [0, 1]."""
    return float(np.abs(pixels(one, shot) - pixels(other, shot)).max())


def _pixels(pipe: Any, group: Sequence[Shot]) -> np.ndarray:
    """pixels_BRG3 in [0, 1]; all shots of a group agree in steps, guidance and size."""
    shot, bar = group[0], dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(disable=True)
    try:
        answer = pipe(
            prompt=[one.caption for one in group],
            height=shot.size[0],
            width=shot.size[1],
            num_inference_steps=shot.steps,
            generator=[torch.Generator().manual_seed(one.seed) for one in group],
            output_type="np",
            **{
                name: [value] * len(group) if isinstance(value, str) else value
                for name, value in call_of(pipe, shot.guidance).items()
            },
        )
    finally:
        pipe.set_progress_bar_config(**bar)
    return answer.images
