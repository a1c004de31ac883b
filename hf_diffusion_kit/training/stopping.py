"""Which step was the best by validation, and whether going on is worth it: functions of the history of (step, loss) alone."""

from collections.abc import Sequence
from math import isfinite


def best_step(history: Sequence[tuple[int, float]]) -> int | None:
    """The step of the lowest finite loss, the earliest of equals; None when there is none."""
    finite = [(loss, step) for step, loss in history if isfinite(loss)]
    return min(finite)[1] if finite else None


def should_stop(history: Sequence[tuple[int, float]], patience: int | None) -> bool:
    """Whether the last `patience` measurements brought nothing better, by however little (Prechelt 1998). None never stops."""
    if patience is None:
        return False
    best = best_step(history)
    return sum(best is None or step > best for step, _ in history) >= patience
