from dataclasses import dataclass

from ..errors import ConfigError, positive, share


@dataclass(frozen=True)
class WatchSettings:
    """What is kept and shown while a run runs; none of it changes the weights, so it may differ when a run goes on."""

    checkpointing_steps: int = 500
    """Steps between checkpoints; 0 saves only when stopped and at the end."""
    checkpoints_total_limit: int = 2
    """Checkpoints kept; the newest valid one is never removed."""
    validation_share: float = 0.0
    """Share of the pictures that is held out and never trained on; its loss is measured at fixed noise."""
    validation_path: str | None = None
    """A folder of held-out pictures instead."""
    validation_steps: int = 100
    """Steps between two measurements, where anything is held out."""
    sample_steps: int | None = None
    """Steps between rows of images/progress.png; None: at each checkpoint, 0: never."""
    sample_pictures: int = 4
    """Pictures a row."""
    report_to: tuple[str, ...] = ("auto",)
    """tensorboard, wandb, trackio, mlflow, none; auto is TensorBoard, in the run's folder, where it is installed."""
    early_stop: int | None = None
    """End the run after so many measurements without a better one."""

    def __post_init__(self) -> None:
        where = "training"
        positive(where, checkpoints_total_limit=self.checkpoints_total_limit, validation_steps=self.validation_steps)
        positive(where, sample_pictures=self.sample_pictures, early_stop=self.early_stop)
        share(where, validation_share=self.validation_share)
        for name in ("checkpointing_steps", "sample_steps"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ConfigError(f"must be 0 or more, got {value}", where=f"{where}: {name}", case=1)
        if self.validation_share and self.validation_path:
            raise ConfigError("does not go with validation_path", where=f"{where}: validation_share", fix="leave out one", case=1)
        if self.early_stop and not (self.validation_share or self.validation_path):
            fix = "set validation_share, e.g. 0.1, or validation_path"
            raise ConfigError("needs pictures that are held out", where=f"{where}: early_stop", fix=fix, case=1)
