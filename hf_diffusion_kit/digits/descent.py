"""The one loop that all three trainings share: AdamW with a warm-up and a cosine, a fixed number of steps, no clock in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import DivergedError, positive

CURVE_POINTS = 50
"""A loss curve holds at most about so many means; enough to draw it, small enough to ship."""


@dataclass(frozen=True)
class Course:
    steps: int
    """Updates of the weights. The result depends on this number and never on the clock."""
    batch: int
    """Pictures a step."""
    rate: float
    """Highest learning rate; reached after a twentieth of the steps, then a cosine down to nothing."""
    decay: float = 0.01
    """AdamW's weight decay (Loshchilov & Hutter 2019)."""

    def __post_init__(self) -> None:
        positive("digits", steps=self.steps, batch=self.batch, rate=self.rate)


@dataclass(frozen=True)
class Point:
    step: int
    """Steps done."""
    loss: float
    """Mean over the steps since the point before."""


def descend(
    parts: Sequence[nn.Module],
    loss: Callable[[], Tensor],
    course: Course,
    *,
    label: str,
    progress: bool = False,
    after_step: Callable[[], None] | None = None,
) -> tuple[Point, ...]:
    """Follows the gradient of `loss()` and returns its curve. A loss that is not finite is a `DivergedError`."""
    from tqdm import trange

    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=course.rate, weight_decay=course.decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=course.rate, total_steps=course.steps + 1, pct_start=0.05, cycle_momentum=False, final_div_factor=1000
    )
    for part in parts:
        part.train()
    curve: list[Point] = []
    losses: list[float] = []
    every = -(-course.steps // CURVE_POINTS)
    bar = trange(1, course.steps + 1, desc=label, unit="step", disable=not progress, mininterval=0.5)
    for step in bar:
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step()
        losses.append(value.item())
        if step % every == 0 or step == course.steps:
            mean = sum(losses) / len(losses)
            if not torch.isfinite(torch.tensor(mean)):
                raise DivergedError(f"the loss is {mean} by step {step}", where=f"digits: {label}", fix="take a lower rate")
            curve.append(Point(step, round(mean, 6)))
            bar.set_postfix(loss=f"{mean:.4f}")
            losses.clear()
    for part in parts:
        part.eval()
    return tuple(curve)
