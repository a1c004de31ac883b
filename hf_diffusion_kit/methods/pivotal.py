from dataclasses import dataclass
from typing import ClassVar

from ..families import Family
from .base import Trained
from .lora import Lora
from .tokens import Tokens


@dataclass(frozen=True)
class Pivotal(Tokens, Lora):
    """New words and an adapter at once: a word is found near what the model can say, and the model moves towards it.

    (Roich et al. 2022 for GANs; Ryu 2022, "lora", for Stable Diffusion.)
    """

    name: ClassVar[str] = "pivotal"

    def __post_init__(self) -> None:
        Tokens.__post_init__(self)
        Lora.__post_init__(self)

    @property
    def formats(self) -> tuple[str, ...]:
        return (*super().formats, "textual-inversion")

    @property
    def trains_text(self) -> bool:
        return True

    def check(self, family: Family) -> None:
        Tokens.check(self, family)
        Lora.check(self, family)

    def settle(self, family: Family) -> None:
        Tokens.settle(self, family)
        Lora.settle(self, family)

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        self.check(family)
        return [
            *Lora.adapt(self, family, seed),
            *self.adapt_tokens(family, seed),
        ]  # in this order: peft freezes all it does not know
