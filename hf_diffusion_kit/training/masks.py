"""Which part of a picture counts in the loss: where it is opaque, or where a file of the same name is white.

Shape suffixes: B batch, H W height and width, in latents where the letter stands behind `mask_1` and in pixels otherwise.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.base import some
from ..data.captioned import Captioned
from ..data.paths import inside
from ..data.pictures import open_grey
from ..data.pixels import Crop
from ..data.where import expanded
from ..errors import SourceError
from ..records import file_sha256


@dataclass(frozen=True)
class Masks:
    """Raises SourceError where a file is missing or of another size than its picture, or where no picture has any transparency."""

    data: Captioned
    kind: Literal["alpha", "files"]
    path: str | Path | None = None
    """Folder of the files: `cats/a.png` (or `a.png`, where only one picture is called so) is the mask of `cats/a.jpg`."""

    def __post_init__(self) -> None:
        self.data.need_pixels()
        if self.kind == "alpha":
            if all(self.data.alpha(index) is None for index in range(len(self.data))):
                what, fix = "none of the pictures has transparency", 'give pictures with an alpha channel, or mask = "files"'
                raise SourceError(what, where="training: mask", fix=fix, case=4)
            return
        sizes = zip(self.data.dataset["width"], self.data.dataset["height"], strict=True)
        wrong = []
        for name, file, (width, height) in zip(self.names, self.files, sizes, strict=True):
            mask = open_grey(file)
            if mask.size != (width, height):
                wrong.append(f"{name} has {width}x{height} pixels, its mask {mask.width}x{mask.height}")
        if wrong:
            fix = "make each mask as large as its picture, upright"
            raise SourceError(f"masks of another size than their picture: {some(wrong)}", where=self.path, fix=fix, case=4)

    @cached_property
    def names(self) -> list[str]:
        return list(self.data.dataset["file_name"])

    @cached_property
    def _marks(self) -> dict[int, str]:
        return {}

    @cached_property
    def _sha256(self) -> list[str]:
        return list(self.data.dataset["sha256"])

    @cached_property
    def files(self) -> list[Path]:
        """The file of each picture's mask; none are asked for where the pictures have their own."""
        folder = expanded(self.path or ".")
        called = Counter(PurePosixPath(name).stem for name in self.names)
        found, missing = [], []
        for name in self.names:
            told, stem = PurePosixPath(name).with_suffix(".png").as_posix(), PurePosixPath(name).stem
            if not (folder / told).is_file() and called[stem] == 1:
                told = f"{stem}.png"
            if (folder / told).is_file():
                found.append(inside(folder, told))
            else:
                missing.append(name)
        if missing:
            fix = "put <name of the picture>.png there for each: white is learnt, black is not"
            raise SourceError(f"pictures without a mask: {some(missing)}", where=folder, fix=fix, case=9)
        return found

    def mark(self, index: int) -> str:
        """What differs where the mask does, for a cache's key: sha256 of its file as it was first read, or of the picture."""
        if self.kind == "alpha":
            return self._sha256[index]
        if index not in self._marks:
            self._marks[index] = file_sha256(self.files[index])
        return self._marks[index]

    def at(self, index: int, crop: Crop, divisor: int) -> Tensor:
        """mask_1HW of a picture, cropped and mirrored as it is; `divisor`: pixels a latent. Ones where a picture hides nothing."""
        mask = open_grey(self.files[index]) if self.kind == "files" else self.data.alpha(index)
        if mask is None:
            return torch.ones(1, crop.size[0] // divisor, crop.size[1] // divisor)
        if (mask.height, mask.width) != crop.picture:
            what = f"its mask has {mask.width}x{mask.height} pixels, not {crop.picture[1]}x{crop.picture[0]}"
            raise SourceError(what, where=self.names[index], case=4)
        return at_latents(mask, crop, divisor)

    def notes(self, masks_1HW: Sequence[Tensor]) -> list[str]:
        """Of the masks as pictures are trained, one a picture: how much counts, and which pictures teach all or nothing."""
        shares = [mask.mean().item() for mask in masks_1HW]
        notes = [f"masks let {sum(shares) / len(shares):.0%} of the pictures' area count, {min(shares):.0%} of one at least"]
        if whole := sum(share == 1 for share in shares):
            why = "have no transparency in what is trained" if self.kind == "alpha" else "have a mask that is white all over"
            notes.append(f"{whole} of {len(shares)} pictures {why}: all of them is learnt")
        if nothing := sum(share == 0 for share in shares):
            notes.append(f"{nothing} of {len(shares)} pictures are masked wholly in what is trained: nothing is learnt from them")
        return notes


def at_latents(mask: Image.Image, crop: Crop, divisor: int) -> Tensor:
    """A grey picture -> mask_1HW, float32 in [0, 1]: the mean of exactly the pixels, and parts of pixels, that a latent stands for."""
    left, top, right, bottom = crop.box
    height, width = crop.size[0] // divisor, crop.size[1] // divisor
    mask_HW = np.asarray(mask, dtype=np.float64) / 255
    mask_HW = _means(_means(mask_HW, np.linspace(top, bottom, height + 1)).T, np.linspace(left, right, width + 1)).T
    mask_HW = mask_HW[:, ::-1] if crop.flip else mask_HW
    return torch.from_numpy(np.ascontiguousarray(mask_HW.clip(0, 1), dtype=np.float32))[None]


def floored(mask_B1HW: Tensor, unmasked_weight: float) -> Tensor:
    """What the mask leaves out counts so much even so."""
    return mask_B1HW.clamp(min=unmasked_weight)


def _means(values_HW: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means of rows between edges; an edge may run through a row."""
    sums_HW = np.concatenate([np.zeros_like(values_HW[:1]), values_HW.cumsum(0)])
    whole = np.minimum(edges.astype(int), len(values_HW) - 1)
    upto_HW = sums_HW[whole] + (edges - whole)[:, None] * values_HW[whole]
    return np.diff(upto_HW, axis=0) / np.diff(edges)[:, None]
