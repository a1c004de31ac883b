"""How a run is getting on: the words beside its bar, and log.jsonl in its folder, which plots and people read."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import psutil
import torch

from ..data.durable import sync
from ..errors import StorageError

LOG = "log.jsonl"
MOST_LINES = 2000
"""About so many lines has the log of a whole run, however long it is."""
DECAY = 0.98
"""Share of the smoothed loss that a step keeps: it looks back over about 50 steps."""


@dataclass(frozen=True)
class Line:
    """One line of log.jsonl."""

    step: int
    """Optimizer steps taken."""
    loss: float | None
    """Mean over the steps since the line before; None when none of them was finite."""
    smoothed: float | None
    """Moving average over about the last 50 steps."""
    lr: dict[str, float]
    """What is trained -> its learning rate in this step."""
    seconds: float
    """Wall time of the run so far, over all its sessions."""
    memory_bytes: int
    """CUDA: the most that was allocated so far; else what the process holds."""
    validation: float | None = None
    """Loss of the held-out pictures, where it was measured after this step."""
    resumed: int | None = None
    """In the first line of a session: the step from which it went on."""


class Smoothed:
    """A moving average that is not drawn to 0 at its start (Kingma & Ba 2015, section 3); what is not finite is passed over."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._sum = self._weight = 0.0
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> float:
        if isfinite(loss):
            self._sum = DECAY * self._sum + (1 - DECAY) * loss
            self._weight = DECAY * self._weight + (1 - DECAY)
        return self.value

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else float("nan")


class Log:
    """log.jsonl, a line at a time: each is there whole or not at all, and a resumed run writes none twice.

    A line that cannot be written is said once and kept for the next time: a full disk ends a run at its checkpoint, not here.
    """

    def __init__(self, path: Path, steps: int, *, say: Callable[[str], None] = print):
        self.path, self.say = path, say
        self.every = max(1, -(-steps // MOST_LINES))
        """Steps a line."""
        self._last = 0
        self._resumed: int | None = None
        self._waiting = b""
        self._told = False

    def begin(self, step: int) -> int:
        """Cuts every line after `step`, from which the run goes on (0: a new run). Returns the last step that was in the log before.

        Raises StorageError when the log can be neither read nor written.
        """
        try:
            before = read_log(self.path)
            kept = [line for line in before if line.step <= step] if step else []
            self._last, self._resumed = kept[-1].step if kept else 0, step or None
            half = self.path.with_name(f".tmp-{self.path.name}")
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(b"".join(map(encoded, kept)))
            sync(half)
            half.replace(self.path)
            sync(self.path.parent)
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror}", where=self.path, case=3) from error
        return before[-1].step if before else 0

    def due(self, step: int) -> bool:
        """Whether this step has a line even when nothing was measured after it."""
        return step % self.every == 0

    def write(
        self,
        losses: Sequence[float],
        rates: Mapping[str, float],
        seconds: float,
        memory_bytes: int,
        *,
        smoothed: float,
        validation: float | None = None,
    ) -> Line:
        """The line of the step just taken; `losses` are those of all steps of the run. Which steps have a line hangs on their numbers
        alone, so a resumed run's log has the lines of one that never stopped."""
        step = len(losses)
        finite = [loss for loss in losses[max(0, self._last, step - self.every) :] if isfinite(loss)]
        line = Line(
            step,
            number(sum(finite) / len(finite)) if finite else None,
            number(smoothed),
            {name: float(f"{rate:.6g}") for name, rate in rates.items()},
            round(seconds, 3),
            memory_bytes,
            None if validation is None else number(validation),
            self._resumed,
        )
        self._last, self._resumed = step, None
        self._waiting += encoded(line)
        self._append()
        return line

    def sync(self) -> None:
        """Before a checkpoint: what it follows must outlast a power cut as the checkpoint does."""
        self._append()
        try:
            sync(self.path)
        except OSError as error:
            self._tell(error)

    def _append(self) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:
                length = file.tell()
                try:
                    written = file.write(self._waiting)
                except OSError:
                    file.truncate(length)
                    raise
                if written < len(self._waiting):  # the disk took some of it
                    file.truncate(length)
                    raise OSError("no space left")
        except OSError as error:
            self._tell(error)
        else:
            self._waiting = b""

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self.say(f"{self.path.name} cannot be written now ({error.strerror or error}); its lines wait in memory")
        self._told = True


def read_log(path: Path) -> list[Line]:
    """The lines of a run's log, in order; a last one that is cut short is no line. None at all when there is no log."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            told = json.loads(text) if text.endswith(b"\n") else None
        except ValueError:  # what a power cut left
            told = None
        if isinstance(told, dict) and isinstance(told.get("step"), int):
            lines.append(
                Line(**NOTHING | {name: value for name, value in told.items() if name in NOTHING and sound(name, value)})
            )
    return lines


NOTHING: dict[str, Any] = asdict(Line(0, None, None, {}, 0.0, 0))
"""What a line is taken to say that says nothing; names of another version's fields are passed over."""


def sound(name: str, value: Any) -> bool:
    """Whether a field holds numbers, as we write it."""
    if name == "lr":
        return isinstance(value, dict) and all(sound("", rate) for rate in value.values())
    return isinstance(value, int | float) and isfinite(value)


def encoded(line: Line) -> bytes:
    told = {name: value for name, value in asdict(line).items() if value is not None or name in ("loss", "smoothed")}
    return json.dumps(told).encode() + b"\n"


def number(value: float) -> float | None:
    """As JSON takes it: seven digits, which is what a float32 has; None for what is not finite."""
    return float(f"{value:.7g}") if isfinite(value) else None


def memory(device: torch.device) -> int:
    """Bytes. CUDA: the most that was allocated so far. Else what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


def memory_left() -> int:
    """Bytes of the machine's memory that nobody uses."""
    return psutil.virtual_memory().available


def beside(smoothed: float, rates: Mapping[str, float], memory_bytes: int, validation: float | None = None) -> str:
    """What stands beside the bar: `loss 0.1234, validation 0.1301, lr 1.0e-04, 2.1 GB`; tqdm itself tells pace and time left."""
    told = [f"loss {smoothed:.4f}"]
    if validation is not None:
        told.append(f"validation {validation:.4f}")
    different = dict.fromkeys(rates.values())
    told.append(f"lr {' '.join(f'{rate:.1e}' for rate in different)}")
    return ", ".join([*told, f"{memory_bytes / 1e9:.1f} GB"])
