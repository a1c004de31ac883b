from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from torch import Generator, Tensor, nn

from ..errors import ConfigError, nearest, positive, share
from ..families import Family
from ..objectives import Objective
from .base import Batch, Method, Trained, denoising_loss


@dataclass(frozen=True)
class Lora(Method):
    """Low-rank adapters (Hu et al. 2022) on the denoiser's attention, and on the text encoder's if asked for; all else stays frozen."""

    name: ClassVar[str] = "lora"

    rank: int = 16
    """Columns of the two small matrices. File size grows with it, in proportion."""
    alpha: float | None = None
    """The adapter's answer is scaled by alpha / rank. None takes the rank: a scale of 1."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is zeroed while training."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023), so that large ranks keep learning."""
    dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024): a length for each output row beside the low-rank direction."""
    targets: tuple[str, ...] | None = None
    """Ends of the names of the denoiser's layers to adapt; None takes the family's own choice (its attention)."""
    text_encoder: bool = False
    """Adapt the text encoder's attention too; its captions are then encoded in every step."""

    def __post_init__(self) -> None:
        positive("method", rank=self.rank, alpha=self.alpha)
        share("method", dropout=self.dropout)

    @property
    def trains_text(self) -> bool:
        return self.text_encoder

    def check(self, family: Family) -> None:
        for part, targets in self._wanted(family):
            check_targets(family.part(part), part, targets)

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        self.check(family)
        with torch.random.fork_rng(devices=[]):  # peft draws from torch's global stream
            torch.manual_seed(seed)
            return [self._adapt_part(family, part, targets) for part, targets in self._wanted(family)]

    def loss(self, family: Family, objective: Objective, batch: Batch, generator: Generator) -> Tensor:
        return denoising_loss(family, objective, batch, generator)

    def _wanted(self, family: Family) -> list[tuple[str, tuple[str, ...]]]:
        text = [(part, family.text_lora_targets) for part in family.text_encoders if self.text_encoder]
        return [(family.denoiser, self.targets or family.lora_targets), *text]

    def _adapt_part(self, family: Family, part: str, targets: tuple[str, ...]) -> Trained:
        model: Any = family.part(part)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
            target_modules=list(targets),
        )
        model.add_adapter(config)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for parameter in parameters.values():
            parameter.data = parameter.data.float()  # half precision cannot hold small updates; autocast bridges the two
        return Trained(part, parameters)


def check_targets(model: nn.Module, part: str, targets: tuple[str, ...]) -> None:
    """Raises ConfigError for a target that no layer of the part has, before anything is trained."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            ends = {
                name.rsplit(".", 1)[-1] if not name.rsplit(".", 1)[-1].isdigit() else ".".join(name.split(".")[-2:])
                for name in layers
            }
            raise ConfigError(f"{target!r} is no layer of the {part}; {nearest(target, ends)}", where="method: targets", case=4)
