from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Generator, Tensor

from ..errors import ConfigError, ModelError
from ..families import Family
from ..objectives import Objective
from .adapters import AdapterSettings
from .base import Batch, Method, Trained, denoising_loss, text_parts
from .start import BELOW, Layers, StartSettings, add, as_one, check_start, fitted, put_on


@dataclass(frozen=True)
class Lora(StartSettings, AdapterSettings, Method):
    """Small adapters on the denoiser's layers, and on the text encoders' if asked for; all else stays frozen."""

    name: ClassVar[str] = "lora"

    preset: Literal["attention", "attention+ff", "transformer", "conv", "all-linear"] = "attention"
    """Which layers: attention alone, with the feed-forward layers, with the projections around them, with all convolutions besides;
    or every linear layer. More layers learn more and forget more."""
    targets: tuple[str, ...] | None = None
    """Ends of the names of the denoiser's layers to adapt, instead of the preset's."""
    text_encoder: bool = False
    """Adapt the text encoders too, by the same preset; captions are then encoded in every step."""

    def __post_init__(self) -> None:
        StartSettings.__post_init__(self)
        AdapterSettings.__post_init__(self)
        if self.init_from and self.adapter != "lora":
            raise ConfigError(f"goes with adapter = lora, not {self.adapter}", where="method: init_from", case=1)
        if self.init_stack and self.dora:
            raise ConfigError(
                "a DoRA is not stacked: its lengths are no sum", where="method: init_stack", fix="dora = false", case=1
            )

    @property
    def formats(self) -> tuple[str, ...]:
        return ("diffusers-lora",) if self.adapter == "lora" else ("peft",)

    @property
    def trains_text(self) -> bool:
        return self.text_encoder

    def check(self, family: Family) -> None:
        if family.quantize == "nf4" and self.adapter in ("loha", "lokr"):
            fix = (
                'quantize = "int8", or adapter = "lora"'  # peft shapes what they add like the layer's weight, and nf4 packs that
            )
            raise ConfigError(f"nf4 does not go with {self.adapter}", where="training: quantize", fix=fix, case=1)
        for part, targets in self._wanted(family):
            if getattr(family.part(part), "peft_config", None):
                raise ModelError(f"the {part} has an adapter already", fix="open the base anew", case=4)
            self.check_layers(family.part(part), part, targets)
        self._begun(family)

    def adapt(self, family: Family, seed: int) -> list[Trained]:
        Lora.check(self, family)
        begun = self._begun(family)
        if self.init_stack:
            for part, layers in begun.items():
                put_on(family.part(part), layers, name=BELOW)
        with torch.random.fork_rng(devices=[]):  # peft draws from torch's global stream
            torch.manual_seed(seed)
            return [self._adapt_part(family, part, targets, begun) for part, targets in self._wanted(family)]

    def loss(self, family: Family, objective: Objective, batch: Batch, generators: Sequence[Generator]) -> Tensor:
        return denoising_loss(family, objective, batch, generators)

    @contextmanager
    def untouched(self, family: Family) -> Iterator[Family]:
        """The family as it answered before: its adapters are off."""
        parts = [family.part(part) for part in (family.denoiser, *family.text_encoders)]
        layers = [module for part in parts for module in part.modules() if isinstance(module, BaseTunerLayer)]
        learning = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield family
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for parameter, learns in learning:  # peft has now set all that are its own to learn
                parameter.requires_grad_(learns)

    def settle(self, family: Family) -> None:
        """What was stacked becomes one adapter, as any reader has it."""
        for part in (family.denoiser, *family.text_encoders):
            if {BELOW, "default"} <= getattr(family.part(part), "peft_config", {}).keys():
                as_one(family.part(part))

    def _wanted(self, family: Family) -> list[tuple[str, tuple[str, ...]]]:
        text = [(part, family.targets(self.preset, part)) for part in text_parts(family, self.text_encoder)]
        return [(family.denoiser, self.targets or family.targets(self.preset, family.denoiser)), *text]

    def _begun(self, family: Family) -> dict[str, Layers]:
        """What there is to begin from, a part at a time. Raises ModelError, and ConfigError for settings that the file contradicts."""
        if self.init_from is None:
            return {}
        begun = fitted(self.init_from, family)
        check_start(self, family, begun)
        return begun

    def _adapt_part(self, family: Family, part: str, targets: tuple[str, ...], begun: dict[str, Layers]) -> Trained:
        model: Any = family.part(part)
        if self.init_stack or part not in begun:
            add(model, self.peft_config(targets))
        else:
            put_on(model, begun[part], dropout=self.dropout)
        if self.init_stack and part in begun:
            model.set_adapter([BELOW, "default"])
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.endswith((".default.weight", ".default")))
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for parameter in parameters.values():
            parameter.data = parameter.data.float()  # half precision cannot hold small updates; autocast bridges the two
        return Trained(part, parameters, "denoiser" if part == family.denoiser else "text")
