"""How well pictures are denoised that are never trained on: always the same pictures, noise levels and noise, so that one number is
comparable with the next, which the training loss, drawn anew at each step, is not.

Shape suffixes: B batch, C latent channels, H W latent height and width, L levels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..families import Family
from ..methods import Batch
from ..methods.base import answer, sample_errors
from ..objectives import Objective
from .processes import Processes
from .randomness import number, stream

LEVELS = 8
"""Noise levels at which each picture is measured."""


@dataclass(frozen=True)
class Held:
    """A picture that is held out."""

    image_id: str
    """Decides its noise."""
    batch: Callable[[], Batch]
    """It alone, with its first caption, not mirrored, its latents the posterior's mean; asked anew in each measurement, for the text
    side may have learnt."""


@dataclass(frozen=True)
class Measured:
    loss: float
    """Mean over all pictures and levels, weighted as in training; nan when any of it is."""
    levels: dict[float, float]
    """Time, from little noise to much -> mean over the pictures."""


@dataclass(frozen=True)
class Validation:
    """`measure()` gives the same bits for the same weights: in a resumed run, at any batch size of the training.

    A picture goes through the denoiser without others, at all its levels at once. Nothing is kept for gradients, so that takes less
    memory than a step does.
    """

    family: Family
    objective: Objective
    held: Sequence[Held]
    seed: int
    levels: int = LEVELS
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    """The arithmetic of the training's own steps."""

    def __post_init__(self) -> None:
        if not self.held:
            raise ConfigError("no picture is held out", where="training: validation_path", fix="put pictures there", case=1)

    def measure(
        self,
        *,
        averages: AbstractContextManager[object] | None = None,
        processes: Processes | None = None,
    ) -> Measured:
        """`averages`: within it the weights are their moving averages (`ema.swapped()`). `processes` share the pictures; all must call."""
        processes = processes or Processes()
        times_L = self.objective.times(self.levels)
        losses = [0.0] * (len(self.held) * self.levels)
        with torch.no_grad(), averages or nullcontext(), resting(self.family), self.autocast():
            for first in range(0, len(self.held), processes.world):  # each process as many: they may have to compute together
                place = first + processes.rank
                one = self._one(self.held[min(place, len(self.held) - 1)], times_L)
                if place < len(self.held):
                    losses[place * self.levels : (place + 1) * self.levels] = one
        losses = [loss * processes.world for loss in processes.mean(losses)]  # each place was filled by one of them
        levels = {time: mean(losses[level :: self.levels]) for level, time in enumerate(times_L.tolist())}
        return Measured(mean(losses), levels)

    def _one(self, held: Held, times_L: Tensor) -> list[float]:
        """The loss of one picture at each level."""
        batch = held.batch()
        noise = [stream(self.seed, "validation", held.image_id, level) for level in range(len(times_L))]
        noised = self.objective.noise_at(often(batch.latents_BCHW, len(times_L)), times_L, noise)
        cond = {name: often(value, len(times_L)) for name, value in batch.cond.items()}
        mask = None if batch.mask_B1HW is None else often(batch.mask_B1HW, len(times_L))
        return sample_errors(self.objective, noised, answer(self.family, noised, cond), mask).float().tolist()


def often(one: Tensor, count: int) -> Tensor:
    """A batch of one, as many times."""
    return one.expand(count, *one.shape[1:]).contiguous()


def held_out(image_ids: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(places of the pictures to train on, places of those held out), each in order. Which they are hangs on seed and id alone: not on
    the order, and a picture more changes little. At least one of each; pictures of one id stay together. Share 0 holds out none.
    """
    if not share:
        return list(range(len(image_ids))), []
    ids = sorted(set(image_ids), key=lambda image_id: (number(seed, "held out", image_id), image_id))
    if len(ids) < 2:
        fix = "give more pictures, or validation_path"
        raise ConfigError("one picture cannot be divided", where="training: validation_share", fix=fix, case=1)
    chosen = set(ids[: min(len(ids) - 1, max(1, round(share * len(ids))))])
    split: tuple[list[int], list[int]] = ([], [])
    for place, image_id in enumerate(image_ids):
        split[image_id in chosen].append(place)
    return split


@contextmanager
def resting(family: Family) -> Iterator[None]:
    """No dropout inside; afterwards every layer is in the mode it was in."""
    parts: list[nn.Module] = [family.part(name) for name in (family.denoiser, *family.text_encoders)]
    learning = [module for part in parts for module in part.modules() if module.training]
    for module in learning:
        module.training = False
    try:
        yield
    finally:
        for module in learning:
            module.training = True


def mean(numbers: Sequence[float]) -> float:
    """Of numbers in float32, summed with twice its digits and in order."""
    return float(torch.tensor(sum(numbers) / len(numbers), dtype=torch.float32))
