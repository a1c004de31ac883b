"""A moving average of the trained weights, which is smoother than any of them (Polyak & Juditsky 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .sharding import local, put


class Ema:
    """`update()` after each optimizer step. Averages lie beside the weights, on their device, in float32."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float):
        if coarse := [name for name, weight in weights.items() if weight.dtype != torch.float32]:
            raise ConfigError(
                f"{coarse[0]} is {weights[coarse[0]].dtype}; an average needs float32", where="training: ema_decay", case=1
            )
        self.weights, self.decay = weights, decay
        self.averages = {name: weight.detach().clone() for name, weight in weights.items()}
        self.updates = 0
        self.given_out = False

    @torch.no_grad()
    def update(self) -> None:
        """One more step. Early averages forget quickly, as diffusers' EMAModel has it: the first update copies."""
        present = [local(weight.detach()) for weight in self.weights.values()]
        averages = [local(average) for average in self.averages.values()]
        torch._foreach_lerp_(averages, present, 1 - decay_at(self.updates, self.decay))
        self.updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the weights are the averages (validation, samples, files); afterwards both are as before, bit for bit."""
        if self.given_out:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def give_out(self) -> None:
        """Leaves the averages in the weights' place, for good; `swapped` then changes nothing."""
        if not self.given_out:
            self._exchange()
            self.given_out = True

    def restart(self) -> None:
        """Averages begin anew from the present weights: a stage that goes on from elsewhere shares nothing with the one before."""
        self.updates = 0
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.averages[name].copy_(weight)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(name -> average, the rest as JSON)."""
        return dict(self.averages), {"updates": self.updates}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Puts back what `state` gave. Raises CheckpointError for averages of other weights."""
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in self.averages.items()}:
            raise CheckpointError("holds averages of other weights", where="ema", case=4)
        for name, tensor in tensors.items():
            put(self.averages[name], tensor)
        self.updates = plain["updates"]

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, weight in self.weights.items():  # in place: whoever holds a pointer to a weight keeps it
            before = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(before)


def decay_at(updates: int, decay: float) -> float:
    """How much of the average an update keeps, after so many of them: min((1 + n) / (10 + n), decay), and 0 at first."""
    return min((1 + updates) / (10 + updates), decay) if updates else 0.0
