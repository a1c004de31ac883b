from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from ..errors import ConfigError, positive
from ..families import Family
from ..objectives import Objective
from .base import Batch, denoising_loss
from .lora import Lora


@dataclass(frozen=True)
class DreamBooth(Lora):
    """A few pictures of one subject, held in check by pictures of its class that the base made itself (Ruiz et al. 2023)."""

    name: ClassVar[str] = "dreambooth"

    prior_weight: float = 1.0
    """Factor of the class pictures' loss. 0 trains without them: the subject is learnt, its class forgotten."""
    class_prompts: tuple[str, ...] = ()
    """What the class pictures show, in words; several take turns. `class_prompt` of other trainers is one of these."""
    class_count: int = 100
    """Class pictures that are made when there is no folder of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("method", class_count=self.class_count)
        if not 0 <= self.prior_weight < float("inf"):
            raise ConfigError(f"must be 0 or more, got {self.prior_weight}", where="method: prior_weight", case=1)

    @property
    def wants_prior(self) -> bool:
        return self.prior_weight > 0

    def loss(self, family: Family, objective: Objective, batch: Batch, generator: Generator) -> Tensor:
        subject = denoising_loss(family, objective, batch, generator)
        if not self.wants_prior:
            return subject
        if batch.prior is None:
            raise ConfigError(
                "prior preservation needs class pictures",
                where="method: prior_weight",
                fix="set class_prompts (they are then made), give class_data, or set prior_weight = 0",
                case=1,
            )
        return subject + self.prior_weight * denoising_loss(family, objective, batch.prior, generator)
