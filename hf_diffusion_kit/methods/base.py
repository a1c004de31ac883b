"""A training method: what is trained and what a batch costs. It knows no model by name.

Shape suffixes in this room: B batch, C latent channels, H W latent height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor, nn

from ..errors import ConfigError
from ..families import Conditioning, Family
from ..objectives import Noised, Objective


@dataclass(frozen=True)
class Batch:
    latents_BCHW: Tensor
    cond: Conditioning
    mask_B1HW: Tensor | None = None
    """Weight of each place, 0..1; None learns the whole picture."""
    prior: "Batch | None" = None
    """DreamBooth: class pictures; or, where the prior is the base's own answers, the same latents under class prompts."""
    base_cond: Conditioning | None = None
    """Of a prior by the base's answers: what the text side said of the captions before it was trained; None where it is not."""


@dataclass(frozen=True)
class Trained:
    """A part of the pipeline and its parameters that the optimizer gets."""

    part: str
    """The pipeline's name for it: `unet`, `text_encoder`."""
    parameters: dict[str, nn.Parameter]
    """Name within the part -> parameter, float32."""
    kind: Literal["denoiser", "text", "tokens"] = "denoiser"
    """Which learning rate and which stage of a run it goes by."""

    @property
    def label(self) -> str:
        """What the optimizer and the record call it: new tokens are a part of their own."""
        return f"{self.part} tokens" if self.kind == "tokens" else self.part


class Method(ABC):
    name: ClassVar[str]

    @classmethod
    def fits(cls, family: type[Family]) -> bool:
        """Whether the method makes sense for a family at all."""
        return True

    @property
    @abstractmethod
    def formats(self) -> tuple[str, ...]:
        """Names of the formats in which a run of it is written; a reader needs them all."""

    @property
    @abstractmethod
    def trains_text(self) -> bool:
        """Whether the text side learns too; then captions are encoded in every step and not cached."""

    @property
    def wants_prior(self) -> bool:
        """Whether each batch comes with class pictures."""
        return False

    @property
    def prior_by_base(self) -> bool:
        """Whether each batch comes with class prompts for its own latents, to be answered as the base does."""
        return False

    @abstractmethod
    def check(self, family: Family) -> None:
        """Raises ConfigError for what cannot be done to this family, before anything is drawn or trained."""

    def prepare(self, family: Family) -> None:  # noqa: B027 (most methods have nothing to do here)
        """Before any caption is counted or encoded: adds new tokens, where the method has any. Raises ConfigError."""

    def missing_tokens(self, captions: Iterable[str]) -> tuple[str, ...]:
        """New tokens that no caption holds: they would never be trained."""
        return ()

    @abstractmethod
    def adapt(self, family: Family, seed: int) -> list[Trained]:
        """Makes parts of the family trainable in place; fresh weights are drawn from `seed`."""

    @abstractmethod
    def loss(self, family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
        """The scalar whose gradient is followed. One generator a sample."""

    def untouched(self, family: Family) -> AbstractContextManager[Family]:
        """The family as it answered before it was trained: as it is, where only something new is."""
        return nullcontext(family)

    def settle(self, family: Family) -> None:  # noqa: B027
        """After the last step, before anything is written: leaves the pipeline as a reader of the files will have it."""


def text_parts(family: Family, wanted: bool) -> tuple[str, ...]:
    """The text encoders that are trained when the text side is to learn too. Raises ConfigError where none can be."""
    if wanted and not family.trains_text_encoders:
        what = f"the text side of a {family.name} is not trained: no stock reader takes it"
        raise ConfigError(what, where="method: text_encoder", fix="leave it out", case=4)
    return (family.trains_text_encoders or ()) if wanted else ()


def denoising_loss(family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
    """Weighted mean error between the family's answer and the objective's target, in float32 (Ho et al. 2020)."""
    noised = objective.noise(batch.latents_BCHW, generators)
    return mean_error(objective, noised, answer(family, noised, batch.cond), batch.mask_B1HW)


def answer(family: Family, noised: Noised, cond: Conditioning) -> Tensor:
    return family.predict(noised.noisy_BCHW.to(family.dtype), noised.time_B, cond)


def mean_error(objective: Objective, noised: Noised, answer_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> Tensor:
    return sample_errors(objective, noised, answer_BCHW, mask_B1HW).mean()


def sample_errors(objective: Objective, noised: Noised, answer_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> Tensor:
    """error_B, weighted: of each sample the mean over all places, or over those the mask weighs."""
    error_BCHW = objective.error(answer_BCHW, noised)
    if mask_B1HW is None:
        error_B = error_BCHW.flatten(1).mean(1)
    else:
        mask_BCHW = mask_B1HW.to(error_BCHW).expand_as(error_BCHW)
        error_B = (error_BCHW * mask_BCHW).flatten(1).sum(1) / mask_BCHW.flatten(1).sum(1).clamp(min=1e-6)
    return error_B * noised.weight_B
