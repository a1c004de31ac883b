"""The run's curves and samples in TensorBoard, Weights & Biases, Trackio or MLflow, through accelerate's trackers.

`auto` keeps local files only; whatever may send something is started only when it is asked for by name. What a tracker is told are the
settings without paths, the figures of log.jsonl and the sample pictures. None of them can stop a run.
"""

import hashlib
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import ConfigError, unknown

LOGS = "logs"
"""Folder within the run's own."""
PROJECT = "hf-diffusion-kit"
"""Under this name runs stand together where a tracker has projects; WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME say another."""
FAULTS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError),
)
"""What other people's code raises when something is wrong with it, its version, or what it talks to."""
OWN_FAULTS = {"wandb": ("wandb.errors", "Error"), "mlflow": ("mlflow.exceptions", "MlflowException")}
"""Errors of a tracker's own that are none of Python's: module, class."""


def chosen(report_to: Sequence[str]) -> tuple[str, ...]:
    """Names of the trackers to start. Raises ConfigError for an unknown one, and for one that is asked for and not installed."""
    where = "training: report_to"
    for name in report_to:
        if name not in (*STARTS, "auto", "none"):
            raise unknown("tracker", name, [*STARTS, "auto", "none"], where=where)
    if "none" in report_to and len(report_to) > 1:
        raise ConfigError("none does not go with others", where=where, fix="leave out one of the two", case=1)
    asked = [name for name in report_to if name in STARTS]
    for name in asked:
        if find_spec(name) is None:
            fix = f"pip install 'hf-diffusion-kit[{name}]', or leave it out"
            raise ConfigError(f"{name} is asked for and not installed", where=where, fix=fix, case=2)
    if "auto" in report_to and find_spec("tensorboard") is not None:
        asked.append("tensorboard")
    return tuple(dict.fromkeys(asked))


class Trackers:
    """Those that could be started. One that fails is told nothing more: `say` hears why, once, and `notes` is for the run's record."""

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        settings: Mapping[str, Any],
        *,
        started: str,
        step: int = 0,
        seen: int = 0,
        say: Callable[[str], None] = print,
    ):
        """`names`: of `chosen`; () in all processes but the first. `folder`: the run's. `settings`: sections without paths, as
        `Recipe.public()` gives them. `started`: when the run first began; the same in every session, so that it stays one run.
        `step`: where this session begins. `seen`: the last step that an earlier session has told (`Log.begin` returns it)."""
        self.say, self.notes = say, list[str]()
        self._running: dict[str, Any] = {}
        # TensorBoard forgets what came after the checkpoint; the others keep it, and it is not told them again.
        self._told = {name: -1 if not step else step if name == "tensorboard" else max(step, seen) for name in names}
        self._hook, threading.excepthook = threading.excepthook, self._thread_died
        values = flat(settings)
        run_name = folder.resolve().name
        run_id = hashlib.sha256(f"{run_name}/{started}".encode()).hexdigest()[:12]
        for name in names:
            with self._unharmed(name):
                ready()
                tracker = STARTS[name](folder / LOGS, run_name, run_id, step)
                tracker.start()
                self._running[name] = tracker
                if not step or name in ("wandb", "trackio"):  # the others have it, and would refuse it or keep it twice
                    tracker.store_init_configuration(values)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """E.g. `{"loss": 0.1, "lr/unet": 1e-4}`. Of a step that an earlier session has told nothing is told again: it is the same."""
        finite = {name: float(value) for name, value in values.items() if value is not None and isfinite(value)}
        for name, tracker in list(self._running.items()):
            if step > self._told[name] and finite:
                with self._unharmed(name):
                    tracker.log(finite, step=step)

    def pictures(self, paths: Sequence[Path], captions: Sequence[str], step: int) -> None:
        """The samples of a step, as files."""
        for name, tracker in list(self._running.items()):
            if step > self._told[name]:
                with self._unharmed(name):
                    SHOWS[name](tracker, paths, captions, step)

    def close(self) -> None:
        for name, tracker in list(self._running.items()):
            with self._unharmed(name):
                tracker.finish()
        self._running, threading.excepthook = {}, self._hook

    def _thread_died(self, told: Any) -> None:
        """TensorBoard's own thread raises its error again where it is told something next: that is soon enough, and has one line."""
        if not type(told.thread).__module__.startswith("tensorboard."):
            self._hook(told)

    @contextmanager
    def _unharmed(self, name: str) -> Iterator[None]:
        """Nothing that a tracker does stops the run; what it prints stays out of stdout, which may be JSON for others to read."""
        try:
            with redirect_stdout(sys.stderr), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except faults(name) as error:
            self._running.pop(name, None)
            self.notes.append(f"{name} failed while the run ran and was told nothing more")
            said = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))[:200] or type(error).__name__  # no password
            self.say(f"{name} failed and is told nothing more: {said}; log.jsonl has all figures")


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, bool | int | float | str]:
    """`section.key` -> value as every tracker takes it; what is not set is left out."""
    values: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{before}{key}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            values[f"{before}{key}"] = value if plain else json.dumps(value, ensure_ascii=False)
    return values


def faults(name: str) -> tuple[type[Exception], ...]:
    """Its own ones only once its package has been imported: then they are there, and cost nothing."""
    module, kind = OWN_FAULTS.get(name, ("", ""))
    return (*FAULTS, getattr(sys.modules[module], kind)) if module in sys.modules else FAULTS


def ready() -> None:
    """accelerate's trackers want its state to be there; of several processes `processes.join` has made it."""
    from accelerate import PartialState

    if not PartialState._shared_state:
        PartialState()


# How each is started: (folder for logs, the run's name, its id, the step at which this session begins)


def _tensorboard(logs: Path, run_name: str, run_id: str, step: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    logs.mkdir(parents=True, exist_ok=True)
    # Steps that a killed session told after its last checkpoint come again: readers pass over the first telling.
    return TensorBoardTracker("", logs, purge_step=step + 1 if step else 0)


def _wandb(logs: Path, run_name: str, run_id: str, step: int) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    logs.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(  # it would send the command line, host name, git remote, source code and all that is printed
        console="off", disable_code=True, disable_git=True, save_code=False, x_disable_meta=True, x_disable_machine_info=True
    )
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandBTracker(project, name=run_name, id=run_id, resume="allow", dir=str(logs), settings=quiet)


def _trackio(logs: Path, run_name: str, run_id: str, step: int) -> Any:
    from accelerate.tracking import TrackioTracker

    told = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
    return TrackioTracker(PROJECT, name=f"{run_name}-{run_id[:4]}", resume="allow", **told)


def _mlflow(logs: Path, run_name: str, run_id: str, step: int) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    logs.mkdir(parents=True, exist_ok=True)
    place = None
    if not os.environ.get("MLFLOW_TRACKING_URI"):  # it would write into the folder that one happens to stand in
        mlflow.set_tracking_uri(f"sqlite:///{(logs / 'mlflow.db').resolve()}")
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # which it sets for its children; the next run in this process has its own
        place = (logs / "mlflow").resolve().as_uri()
    tags = {"mlflow.source.name": "hfdk", "hfdk.run": run_id}
    found = mlflow.search_runs(search_all_experiments=True, filter_string=f"tags.`hfdk.run` = '{run_id}'", output_format="list")
    known = found[0].info.run_id if found else None
    return MLflowTracker(PROJECT, place, run_id=known, tags=tags, run_name=run_name)


STARTS: dict[str, Callable[[Path, str, str, int], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}


# How each shows pictures


def _tensorboard_pictures(tracker: Any, paths: Sequence[Path], captions: Sequence[str], step: int) -> None:
    import numpy as np

    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            tracker.tracker.add_image(f"samples/{index:02d}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        if not step:
            tracker.tracker.add_text(f"samples/{index:02d}", captions[index] or "(no caption)", 0)
    tracker.tracker.flush()


def _wandb_pictures(tracker: Any, paths: Sequence[Path], captions: Sequence[str], step: int) -> None:
    image = import_module("wandb").Image
    shown = [image(str(path), caption=caption) for path, caption in zip(paths, captions, strict=True)]
    tracker.log({"samples": shown}, step=step)


def _trackio_pictures(tracker: Any, paths: Sequence[Path], captions: Sequence[str], step: int) -> None:
    image = import_module("trackio").Image
    pictures = zip(paths, captions, strict=True)
    tracker.log({f"samples/{i:02d}": image(str(path), caption=text) for i, (path, text) in enumerate(pictures)}, step=step)


def _mlflow_pictures(tracker: Any, paths: Sequence[Path], captions: Sequence[str], step: int) -> None:
    for path in paths:
        tracker.log_artifact(str(path), "samples")


SHOWS: dict[str, Callable[[Any, Sequence[Path], Sequence[str], int], None]] = {
    "tensorboard": _tensorboard_pictures,
    "wandb": _wandb_pictures,
    "trackio": _trackio_pictures,
    "mlflow": _mlflow_pictures,
}
