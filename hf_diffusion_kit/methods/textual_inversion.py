from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from ..families import Family
from ..objectives import Objective
from .base import Batch, Trained, denoising_loss
from .tokens import Tokens


@dataclass(frozen=True)
class TextualInversion(Tokens):
    """New words for what the pictures show; the model itself stays as it is (Gal et al. 2023).

    CLIPs whose configuration names no end of text (eos_token_id 2, as SDXL's second) sum a caption up at its largest id: with a new word,
    there. Training and stock readers do so alike.
    """

    name: ClassVar[str] = "textual-inversion"

    @property
    def formats(self) -> tuple[str, ...]:
        return ("textual-inversion",)

    @property
    def trains_text(self) -> bool:
        return True

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        return self.adapt_tokens(family, seed)

    def loss(self, family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
        return denoising_loss(family, objective, batch, generators)
