"""One run on several devices or machines: each process takes its share of every batch; rank 0 alone writes.

Gradients are averaged once an optimizer step. Which samples a process is shown, and their noise, are functions of the sample's place in
the run, so that two processes with a batch of one are one process with a batch of two, to rounding.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from ..errors import ConfigError
from .asked import ASKED

LONGEST_WAIT = timedelta(hours=12)
"""How long a process waits for the others: one of them may be drawing class pictures meanwhile."""


@dataclass(frozen=True)
class Processes:
    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def mean(self, numbers: Sequence[float]) -> list[float]:
        """Of each number over all processes."""
        if self.world == 1:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(told)
        return (told / self.world).tolist()

    def most(self, number: float) -> float:
        """The largest of all processes' numbers."""
        if self.world == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return float(told.item())

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Gradients, in place. A parameter without one has none in any process; of one that is shared out (`sharding`) it is done."""
        grads = [p.grad for p in parameters if p.grad is not None and not hasattr(p, "full_tensor")]
        if self.world == 1 or not grads:
            return
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            torch.distributed.barrier()

    def close(self) -> None:
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """The processes of this run, as torchrun or `accelerate launch` started them. Raises ConfigError when fewer came up than were asked for."""
    asked = int(os.environ.get(ASKED, "0") or 0)
    world = int(os.environ.get("WORLD_SIZE", "1") or 1)
    if asked and asked != world:
        raise ConfigError(f"{asked} processes were asked for and {world} came up", where="hfdk train --processes", case=1)
    if world == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu", timeout=LONGEST_WAIT)
    if state.num_processes != world:
        raise ConfigError(
            f"WORLD_SIZE is {world}, but accelerate runs {state.num_processes} processes",
            where="accelerate",
            fix="start with `hfdk train --processes N`, torchrun, or accelerate launch with --multi_cpu or --multi_gpu",
            case=1,
        )
    return Processes(state.process_index, world)


def shared_device(name: str | None) -> str | None:
    """`cuda` of several processes on one machine: each has its own."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local and name in (None, "cuda") and torch.cuda.device_count() > int(local) else name
