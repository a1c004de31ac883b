from dataclasses import dataclass
from typing import ClassVar

from ..families import Family
from .base import Trained
from .full import Full, teacher
from .lora import Lora
from .prior import Prior


@dataclass(frozen=True)
class DreamBooth(Prior, Lora):
    """A few pictures of one or several subjects, learnt by an adapter and held in check by a prior (Ruiz et al. 2023)."""

    name: ClassVar[str] = "dreambooth"

    def __post_init__(self) -> None:
        Lora.__post_init__(self)
        Prior.__post_init__(self)


@dataclass(frozen=True)
class DreamBoothFull(Prior, Full):
    """The same, learnt by all weights of the denoiser, as DreamBooth was first done.

    `prior = "base"` keeps a frozen copy of all that is trained, in the base's precision, beside it in memory: of Stable Diffusion 1.x's
    denoiser 1.7 GB in bfloat16, of SDXL's 5.1 GB, twice that in float32.
    """

    name: ClassVar[str] = "dreambooth-full"

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        if self.prior_by_base:
            family.teacher = teacher(family, self.parts(family))  # before anything is trained
        return super().adapt(family, seed)
