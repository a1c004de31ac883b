"""A run is a folder that explains itself: settings, record, weights, pictures, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, ModelError
from .records import RunRecord

if TYPE_CHECKING:
    from .bases import Base
    from .hub.publish import Pushed

RECORD, SETTINGS, IMAGES = "run.json", "run.toml", "images"


@dataclass(frozen=True)
class Run:
    folder: Path
    """Holds run.toml, run.json, the weights, images/ and the checkpoints."""
    record: RunRecord

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """A finished run's folder. Raises ConfigError when there is none, or its record cannot be read."""
        path = Path(folder) / RECORD
        if not path.is_file():
            fix = f"hfdk resume {folder}" if (Path(folder) / SETTINGS).is_file() else "name the folder of a finished run"
            raise ConfigError("holds no finished run: there is no run.json", where=folder, fix=fix, case=1)
        try:
            return cls(Path(folder), RunRecord.load(path))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"cannot be read: {error}", where=path, case=1) from error

    @property
    def sheet(self) -> Path:
        """The pictures before and after, side by side."""
        return self.folder / IMAGES / "before_after.png"

    def publish(self, repo_id: str, **options: Any) -> "Pushed":
        """Weights, run.json, gallery and card as one commit; private unless `private=False`. See `publish.publish`."""
        from .publish import publish

        self.check_pictures()
        return publish(self.folder, repo_id, **options)

    def base(self) -> "Base":
        """The base that the run was trained on. Raises ModelError when what lies there now is another one."""
        from . import bases, config

        told = config.read(self.folder / SETTINGS).get("base", {})
        if not isinstance(told, dict) or "id" not in told:
            raise ConfigError("names no base", where=self.folder / SETTINGS, fix="put back [base] id", case=1)
        found = bases.resolve(
            told["id"], revision=self.record.base_model.revision or told.get("revision"), config=told.get("config")
        )
        if self.record.base_model.sha256 and found.pinned.sha256 != self.record.base_model.sha256:
            raise ModelError(
                "is not the base that this run was trained on: its weights differ", where=f"base: {told['id']}", case=3
            )
        return found

    def reopened(self) -> Any:
        """Base and adapter as a stock pipeline, the way anybody else would open them, on the run's own kind of device."""
        import torch

        from . import config
        from .families import FAMILIES
        from .formats import reopen
        from .hardware import pick_device

        base, told = self.base(), self.record.settings["training"]
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(told["mixed_precision"], torch.float32)
        names, kind = [line.format for line in self.record.verified], FAMILIES[self.record.family]
        bits = told.get("quantize", "no")
        pipe = reopen(names, kind, base.location, self.folder, revision=base.revision, dtype=dtype, quantize=bits)
        return pipe.to(pick_device(config.read(self.folder / SETTINGS)["base"].get("device")))

    def evaluate(self) -> dict[str, float]:
        """Draws the gallery again from the files and compares: `{"images/00.png": largest difference of a pixel in [0, 1]}`."""
        import numpy as np
        from PIL import Image

        from .evaluation import Shot, draw

        self.check_pictures()
        kept = [np.asarray(Image.open(self.folder / shown.file).convert("RGB"), np.float32) for shown in self.record.gallery]
        shots = [
            Shot(shown.caption, shown.seed, shown.steps, shown.guidance, (picture.shape[0], picture.shape[1]))
            for shown, picture in zip(self.record.gallery, kept, strict=True)
        ]
        drawn = draw(self.reopened(), shots, title="gallery")
        return {
            shown.file: float(np.abs(np.asarray(new, np.float32) - old).max() / 255)
            for shown, new, old in zip(self.record.gallery, drawn, kept, strict=True)
        }

    def check_pictures(self) -> None:
        """Raises ModelError when a picture that the record names is gone."""
        names = [name for shown in self.record.gallery for name in (shown.file, shown.before) if name]
        if gone := [name for name in names if not (self.folder / name).is_file()]:
            raise ModelError(f"{gone[0]} is gone", where=self.folder, fix=f"hfdk resume {self.folder} draws it anew", case=2)

    def export(self, form: str, out: Path, *, say: Callable[[str], None] = print) -> list[Path]:
        """Writes the run in another format and loads it back. Raises ConfigError, ModelError; returns the files."""
        from .export import export

        return export(self, form, out, say=say)
