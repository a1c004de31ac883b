from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from ..errors import ConfigError, positive
from ..families import Family
from ..objectives import Noised, Objective
from .base import Batch, Method, answer, denoising_loss, mean_error


@dataclass(frozen=True)
class Prior(Method):
    """What keeps the class of a subject as it was while the subject is learnt (Ruiz et al. 2023)."""

    prior_weight: float = 1.0
    """Factor of the prior's loss. 0 trains without it: the subject is learnt, its class forgotten."""
    prior: Literal["pictures", "base"] = "pictures"
    """pictures: pictures of the class are learnt beside the subject's, those that the base made itself or those of a folder.
    base: no class pictures; under a class prompt the model is held to what the base answers to the very same noise."""
    class_prompts: tuple[str, ...] = ()
    """What the class is, in words; several take turns. `class_prompt` of other trainers is one of these."""
    class_count: int = 100
    """Class pictures that are made when there is no folder of them."""

    def __post_init__(self) -> None:
        positive("method", class_count=self.class_count)
        if not 0 <= self.prior_weight < float("inf"):
            raise ConfigError(f"must be 0 or more, got {self.prior_weight}", where="method: prior_weight", case=1)

    @property
    def wants_prior(self) -> bool:
        return self.prior_weight > 0 and self.prior == "pictures"

    @property
    def prior_by_base(self) -> bool:
        return self.prior_weight > 0 and self.prior == "base"

    def loss(self, family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
        if not self.prior_weight:
            return super().loss(family, objective, batch, generators)  # type: ignore[safe-super]
        if batch.prior is None:
            fix = "set class_prompts (they are then made), give class_data, or set prior_weight = 0"
            if self.prior == "base":
                fix = "set class_prompts, or set prior_weight = 0"
            raise ConfigError("prior preservation needs to know the class", where="method: class_prompts", fix=fix, case=1)
        if self.prior == "pictures":
            subject = super().loss(family, objective, batch, generators)  # type: ignore[safe-super]
            return subject + self.prior_weight * denoising_loss(family, objective, batch.prior, generators)
        noised = objective.noise(batch.latents_BCHW, generators)
        held = self._by_base(family, objective, noised, batch.prior)
        subject = mean_error(objective, noised, answer(family, noised, batch.cond), batch.mask_B1HW)
        return subject + self.prior_weight * held

    def _by_base(self, family: Family, objective: Objective, noised: Noised, prior: Batch) -> Tensor:
        """How far the answer under class prompts is from the base's own, measured as any error is."""
        told = prior.cond if prior.base_cond is None else prior.base_cond
        with torch.no_grad(), self.untouched(family) as base:
            before_BCHW = answer(base, noised, {name: value.detach() for name, value in told.items()})
        target = replace(noised, target_BCHW=before_BCHW.float())
        return mean_error(objective, target, answer(family, noised, prior.cond))
