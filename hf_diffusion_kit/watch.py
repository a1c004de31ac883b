"""What is kept and shown while a run runs: log.jsonl, the loss plot, held-out loss, rows of samples, trackers. Rank 0 writes.

Plain functions of the trainer, called after each step; none of them changes a weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .evaluation import Shot, draw
from .evaluation.plot import save_plot
from .evaluation.progress_sheet import add_row, cut_rows
from .recipe import Recipe
from .run import IMAGES
from .training import best
from .training.progress import LOG, Log, Smoothed, memory, read_log
from .training.stopping import best_step, should_stop
from .training.trackers import Trackers, chosen
from .training.trainer import Trainer

PLOT = f"{IMAGES}/loss.png"


@dataclass
class Watch:
    """Begins where the trainer stands: rows, lines and points after that step are cut, for they will come again."""

    trainer: Trainer
    recipe: Recipe
    folder: Path
    shots: Sequence[Shot]
    """Drawn anew for each row of images/progress.png."""
    before: Sequence[Image.Image]
    """The base's own pictures of the shots: the first row."""
    title: str = ""
    say: Callable[[str], None] = print
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        run, settings = self.trainer, self.recipe.training
        self.smoothed = Smoothed(run.losses)
        self.shots = self.shots[: settings.sample_pictures]
        if run.processes.main:
            self.log = Log(self.folder / LOG, settings.steps, say=self.say)
            seen = self.log.begin(run.done)
            told: dict[str, Any] = {"started": run.started, "step": run.done, "seen": seen, "say": self.say}
            self.trackers = Trackers(chosen(settings.report_to), self.folder, self.recipe.public(), **told)
            cut_rows(self.folder, run.done)
            if settings.sample_steps != 0:
                paths = add_row(self.folder, 0, self.shots, list(self.before)[: len(self.shots)], title=self.title)
                self.trackers.pictures(paths, [shot.caption for shot in self.shots], 0)
        run.after_step.append(self.after_step)

    def after_step(self, run: Trainer) -> None:
        settings = self.recipe.training
        self.smoothed.add(run.losses[-1])
        measured = self._measure(run) if run.validation and due(run, settings.validation_steps) else None
        if run.processes.main and (measured is not None or self.log.due(run.done) or run.done == settings.steps):
            self._write(run, measured)
        every = settings.checkpointing_steps if settings.sample_steps is None else settings.sample_steps
        if every and run.done % every == 0 and run.done < settings.steps:
            self._sample(run)
        if settings.checkpointing_steps and run.done % settings.checkpointing_steps == 0 and run.processes.main:
            self.log.sync()  # the checkpoint that follows must not be ahead of it
            self._plot()

    def end(self) -> None:
        """After the last step, also when a run is stopped."""
        if self.trainer.processes.main:
            self.log.sync()
            self._plot()
            self.trackers.close()
            self.notes += self.trackers.notes

    def _measure(self, run: Trainer) -> float:
        loss = run.measure()
        run.validations.append((run.done, loss))
        if best_step(run.validations) == run.done and (run.processes.main or run.hollow is not None):
            best.keep(run)
        run.ended_early = should_stop(run.validations, self.recipe.training.early_stop)
        return loss

    def _write(self, run: Trainer, measured: float | None) -> None:
        rates = run.rates()
        line = self.log.write(
            run.losses, rates, run.elapsed(), memory(run.device), smoothed=self.smoothed.value, validation=measured
        )
        told = {"loss": line.loss, "loss/smoothed": line.smoothed, "loss/validation": measured}
        self.trackers.scalars({**told, **{f"lr/{label}": value for label, value in rates.items()}}, run.done)

    def _sample(self, run: Trainer) -> None:
        if run.processes.main or run.hollow is not None:  # a denoiser that is shared out draws in all of them, or in none
            run.family.recall()
            with run.shown(), run.autocast():  # trained weights are float32, whatever the base is
                pictures = draw(run.family.pipe, self.shots, title="samples" if run.progress else None)
            run.leave_encoders()
        if run.processes.main:
            paths = add_row(self.folder, run.done, self.shots, pictures, title=self.title)
            self.trackers.pictures(paths, [shot.caption for shot in self.shots], run.done)
        run.processes.wait()

    def _plot(self) -> None:
        if self.trainer.processes.main and (lines := read_log(self.folder / LOG)):
            save_plot(lines, self.folder / PLOT, title=self.title)


def due(run: Trainer, every: int) -> bool:
    return run.done % every == 0 or run.done == run.settings.steps
