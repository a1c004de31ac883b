"""A training method: what is trained and what a batch costs. It knows no model by name.

Shape suffixes in this room: B batch, C latent channels, H W latent height and width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, nn

from ..families import Conditioning, Family
from ..objectives import Objective


@dataclass(frozen=True)
class Batch:
    latents_BCHW: Tensor
    cond: Conditioning
    prior: "Batch | None" = None
    """DreamBooth's class pictures; None for every other method."""


@dataclass(frozen=True)
class Trained:
    """A part of the pipeline and its parameters that the optimizer gets."""

    part: str
    """The pipeline's name for it: `unet`, `text_encoder`."""
    parameters: dict[str, nn.Parameter]
    """Name within the part -> parameter, float32."""


class Method(ABC):
    name: ClassVar[str]

    @property
    @abstractmethod
    def trains_text(self) -> bool:
        """Whether the text side learns too; then captions are encoded in every step and not cached."""

    @property
    def wants_prior(self) -> bool:
        """Whether each batch comes with class pictures."""
        return False

    @abstractmethod
    def check(self, family: Family) -> None:
        """Raises ConfigError for what cannot be done to this family, before anything is drawn or trained."""

    @abstractmethod
    def adapt(self, family: Family, seed: int) -> list[Trained]:
        """Makes parts of the family trainable in place; fresh weights are drawn from `seed`."""

    @abstractmethod
    def loss(self, family: Family, objective: Objective, batch: Batch, generator: Generator) -> Tensor:
        """The scalar whose gradient is followed."""


def denoising_loss(family: Family, objective: Objective, batch: Batch, generator: Generator) -> Tensor:
    """Weighted mean squared error between the family's answer and the objective's target, in float32 (Ho et al. 2020)."""
    noised = objective.noise(batch.latents_BCHW, generator)
    answer_BCHW = family.predict(noised.noisy_BCHW.to(family.dtype), noised.time_B, batch.cond)
    error_B = (answer_BCHW.float() - noised.target_BCHW.float()).square().flatten(1).mean(1)
    return (error_B * noised.weight_B).mean()
