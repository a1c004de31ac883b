from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from ..errors import ConfigError
from ..families import Family
from ..families.exchanged import exchanged
from ..objectives import Objective
from .base import Batch, Method, Trained, denoising_loss, text_parts


@dataclass(frozen=True)
class Full(Method):
    """Every weight of the denoiser learns, and of the text encoders if asked for; the weights are held in float32 meanwhile."""

    name: ClassVar[str] = "full"

    text_encoder: bool = False
    """Train the text encoders too; captions are then encoded in every step."""

    @property
    def formats(self) -> tuple[str, ...]:
        return ("pipeline",)

    @property
    def trains_text(self) -> bool:
        return self.text_encoder

    def parts(self, family: Family) -> list[str]:
        return [family.denoiser, *text_parts(family, self.text_encoder)]

    def check(self, family: Family) -> None:
        if family.quantize != "no":
            fix = 'quantize = "no", or method = "lora"'
            raise ConfigError("whole weights cannot be trained in fewer bits", where="training: quantize", fix=fix, case=1)

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        self.check(family)
        trained = []
        for part in self.parts(family):
            parameters = dict(family.part(part).named_parameters())
            for parameter in parameters.values():
                parameter.data = parameter.data.float()  # half precision cannot hold small updates; autocast bridges the two
                parameter.requires_grad_(True)
            trained.append(Trained(part, parameters, "denoiser" if part == family.denoiser else "text"))
        return trained

    def loss(self, family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
        return denoising_loss(family, objective, batch, generators)

    @contextmanager
    def untouched(self, family: Family) -> Iterator[Family]:
        if family.teacher is None:
            raise ConfigError(f"{self.name} keeps no copy of the base", where="method: name", case=1)
        yield family.teacher

    def settle(self, family: Family) -> None:
        """In the base's precision again, which is also that of the files."""
        family.teacher = None
        for part in self.parts(family):
            for parameter in family.part(part).parameters():
                parameter.data = parameter.data.to(family.dtype)
                parameter.requires_grad_(False)


def teacher(family: Family, parts: Sequence[str]) -> Family:
    """The family again with frozen copies of those parts, in the base's precision; what is not trained is shared."""
    return type(family)(exchanged(family.pipe, {part: deepcopy(family.part(part)) for part in parts}))
