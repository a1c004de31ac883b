"""The data: real digits written by people, as dark ink on light paper.

By default scikit-learn's `load_digits`, 1,797 pictures of 8×8 cells with 17 grey levels (the test half of UCI "Optical Recognition
of Handwritten Digits", 13 writers, CC BY 4.0; Alpaydin & Kaynak 1998). With `idx`, MNIST's files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import unknown
from . import idx as idx_files

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Split = Literal["train", "test"]
HELD_OUT = 5
"""One picture in five of each digit is held out, drawn with `RandomState(0)`, whose stream NumPy has frozen: it never changes."""


@dataclass(frozen=True)
class Handwriting:
    pictures_NHW: np.ndarray
    """uint8, 255 = paper, 0 = full ink."""
    labels_N: np.ndarray
    """int64, the digit 0..9."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def only(self, digits: Iterable[int]) -> "Handwriting":
        """The pictures of these digits, in the same order."""
        keep_N = np.isin(self.labels_N, list(digits))
        return Handwriting(self.pictures_NHW[keep_N], self.labels_N[keep_N])


def load(split: Split = "train", size: int = 32, idx: Path | None = None) -> Handwriting:
    """Pictures of `size`×`size` pixels. `idx`: a folder with MNIST's files; their own split is kept, a broken one is a SourceError."""
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    if idx is not None:
        ink_NHW, labels_N = idx_files.read_folder(Path(idx), split)
        return Handwriting(np.stack([_mnist(ink, size) for ink in ink_NHW]), labels_N.astype(np.int64))
    from sklearn.datasets import load_digits

    bunch = load_digits()
    picked_N = _split(bunch.target)[split]
    return Handwriting(np.stack([_smooth(ink, size) for ink in bunch.images[picked_N]]), bunch.target[picked_N].astype(np.int64))


def as_pixels(handwriting: Handwriting) -> Tensor:
    """pixels_N3HW float32 in [-1, 1]; paper is +1, ink is -1. The three colours are one memory: read only."""
    grey_NHW = torch.from_numpy(handwriting.pictures_NHW).float() / 127.5 - 1
    return grey_NHW[:, None].expand(-1, 3, -1, -1)


def as_images(handwriting: Handwriting) -> Iterator[Image.Image]:
    """The same as RGB pictures."""
    return (Image.fromarray(picture_HW).convert("RGB") for picture_HW in handwriting.pictures_NHW)


def _split(labels_N: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    held_out = np.zeros(len(labels_N), bool)
    for digit in range(10):
        members = random.permutation(np.flatnonzero(labels_N == digit))
        held_out[members[: len(members) // HELD_OUT]] = True
    return {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)}


def _smooth(ink_88: np.ndarray, size: int) -> np.ndarray:
    """8×8 cells of 0..16 -> a picture with a margin of one cell: cubic, then a contrast curve, for a cubic's flanks look blurred."""
    cells = Image.fromarray(np.pad(ink_88, 1).astype(np.float32) / 16)
    ink_HW = np.clip(np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)
    ink_HW = np.clip((ink_HW - 0.1) / 0.8, 0, 1)
    ink_HW = ink_HW**2 * (3 - 2 * ink_HW)
    return np.rint(255 * (1 - ink_HW)).astype(np.uint8)


def _mnist(ink_HW: np.ndarray, size: int) -> np.ndarray:
    return 255 - np.asarray(Image.fromarray(ink_HW).resize((size, size), Image.Resampling.LANCZOS))
