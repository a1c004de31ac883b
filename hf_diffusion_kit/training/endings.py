"""The errors in which a run ends before its last step, with what to do then."""

from typing import TYPE_CHECKING

from ..errors import DivergedError, Stopped
from .checkpoint import steps_in

if TYPE_CHECKING:
    from .trainer import Trainer


def stopped(run: "Trainer", signal_number: int) -> Stopped:
    """Saves this very step."""
    where = run.save()
    text = f"stopped by signal {signal_number} after step {run.done} of {run.settings.steps}"
    said = f"{text}; saved as {where.name}" if where else text
    return Stopped(said, exit_code=128 + signal_number, fix="`hfdk resume` goes on")


def diverged(run: "Trainer") -> DivergedError:
    what = f"no finite loss in {run.bad_in_a_row} steps in a row, the last one step {run.done + 1}"
    saved = steps_in(run.folder) if run.folder else []
    fix = "lower learning_rate and start anew in another folder"
    if saved:
        fix = f"hfdk resume goes on from step {saved[-1]}: lower learning_rate, with --allow-change training.learning_rate"
    return DivergedError(what, where="training: learning_rate", fix=fix, case=6)
