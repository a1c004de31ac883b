"""What a process costs, looked at from inside it: CPU seconds at each step of an optimizer, and the most private memory between two marks."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

EVERY_S = 0.01
"""Between two looks at the memory; a look takes some 30 µs."""


def status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def own_pages() -> float:
    """MB of memory that no other process shares and no file backs."""
    return status_mb("RssAnon")


@dataclass
class Mark:
    name: str
    cpu_s: float
    """Of the process, since it began."""
    wall_s: float
    """Since the meter began."""
    peak_mb: float
    """Since the mark before."""
    now_mb: float


@dataclass
class Meter:
    """Started first thing in a process; `mark` ends a phase. Every step of any optimizer is a mark of its own."""

    marks: list[Mark] = field(default_factory=list)
    peak_mb: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def watch(self) -> "Meter":
        def look() -> None:
            while True:
                self.peak_mb = max(self.peak_mb, own_pages())
                time.sleep(EVERY_S)

        threading.Thread(target=look, daemon=True).start()
        return self

    def mark(self, name: str) -> None:
        now = own_pages()
        peak, self.peak_mb = max(self.peak_mb, now), now
        self.marks.append(Mark(name, time.process_time(), time.perf_counter() - self.began, peak, now))

    def mark_steps(self, wait: Callable[[], None] | None = None) -> None:
        """From now on, whoever's loop it is. `wait` is called first, for a device that works on by itself."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def ended(*_: Any) -> None:
            if wait is not None:
                wait()
            self.mark("step")

        register_optimizer_step_post_hook(ended)

    def told(self) -> dict[str, Any]:
        """Of a process that has taken steps: a step is the median of those from the third on (the first two fill the memory)."""
        at = [number for number, mark in enumerate(self.marks) if mark.name == "step"]
        steps, last = [self.marks[number] for number in at], self.marks[-1]
        costs = [after.cpu_s - before.cpu_s for before, after in pairwise(steps[1:])]
        step = statistics.median(costs)
        peaks = {
            "before": max(mark.peak_mb for mark in self.marks[: at[0]]) if at[0] else 0.0,
            "steps": max(mark.peak_mb for mark in steps),
            "after": max((mark.peak_mb for mark in self.marks[at[-1] + 1 :]), default=0.0),
        }
        return {
            "step_cpu_s": round(step, 3),
            "start_cpu_s": round(steps[0].cpu_s - step, 2),
            "end_cpu_s": round(last.cpu_s - steps[-1].cpu_s, 2),
            "step_wall_s": round(statistics.median(after.wall_s - before.wall_s for before, after in pairwise(steps[1:])), 4),
            "resident_mb": round(status_mb("VmHWM")),  # mapped files too
            "private_mb": round(max(peaks.values())),
            **{f"private_{name}_mb": round(peak) for name, peak in peaks.items()},
            "wall_over_cpu": round(last.wall_s / last.cpu_s, 3),
        }
