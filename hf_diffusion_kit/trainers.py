"""The trainer classes of the README: a few lines of sugar over one loop.

run = LoraTrainer(base="stable-diffusion-v1-5/stable-diffusion-v1-5", rank=16, steps=1000).fit(cats)
run.publish("me/coco-cats-lora")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import unknown
from .job import loop, train
from .presets import PRESETS
from .recipe import Recipe, merged, sorted_keywords
from .run import Run

if TYPE_CHECKING:
    from .training.trainer import Trainer


class MethodTrainer:
    """Keywords are the settings of `[method]` and `[training]`: `rank`, `steps`, `learning_rate` …

    `base`: Hub id, folder, or an embedded base (`digits`, `digits-seven`). `out`: folder of the run (default `runs/<base>-<method>`).
    `publish_to`: a repository to check before the first step. Raises ConfigError for an unknown keyword, naming the nearest.
    """

    method: ClassVar[str]

    def __init__(self, base: str, *, out: str | Path | None = None, publish_to: str | None = None, **settings: Any):
        self._set(self.method, {}, base, out, publish_to, settings)

    def _set(
        self,
        name: str,
        preset: dict[str, dict[str, Any]],
        base: str,
        out: str | Path | None,
        publish_to: str | None,
        settings: dict[str, Any],
    ) -> None:
        sections = merged(preset, sorted_keywords(name, settings))
        sections.setdefault("base", {})["id"] = str(base)
        if publish_to:
            sections.setdefault("publish", {})["repo"] = publish_to
        self.recipe = Recipe.of(sections, where=type(self).__name__)
        last = str(base).rstrip("/").rsplit("/", 1)[-1]
        self.out = Path(out) if out is not None else Path("runs") / f"{last}-{self.recipe.method.name}"

    def fit(
        self,
        data: Any,
        *,
        class_data: Any = None,
        resume: bool = False,
        allow_change: Sequence[str] = (),
        say: Callable[[str], None] = print,
        progress: bool = True,
    ) -> Run:
        """Trains, writes, loads back and records. `data`: what `load_captioned` gives, a folder, or a `datasets.Dataset` with
        columns `image` and `text`. `resume` goes on from the newest checkpoint in `out`."""
        told = {"class_data": class_data, "resume": resume, "allow_change": allow_change, "say": say, "progress": progress}
        return train(self.recipe, self.out, data=data, **told)

    def loop(self, data: Any, *, class_data: Any = None, say: Callable[[str], None] = print) -> "Trainer":
        """For a notebook, one step at a time: `for loss in trainer.loop(data): ...`. Nothing is written; weights, rates and the pipeline
        (`.family.pipe`) are there to be looked at between two steps."""
        return loop(self.recipe, data, class_data=class_data, say=say)


class LoraTrainer(MethodTrainer):
    """Adapters on captioned pictures: LoRA, DoRA, or `adapter="loha" | "lokr" | "oft"`."""

    method: ClassVar[str] = "lora"


class DreamBoothTrainer(MethodTrainer):
    """A few pictures of one or several subjects, with prior preservation: `class_prompts`, `class_count`, `prior_weight`, `prior`.

    `full=True` trains all weights instead of adapters. `preset`: `fast-dreambooth`, `fast-dreambooth-text-first` or
    `fast-dreambooth-lora`; what else is said wins over it.
    """

    method: ClassVar[str] = "dreambooth"

    def __init__(
        self,
        base: str,
        *,
        full: bool = False,
        preset: str | None = None,
        out: str | Path | None = None,
        publish_to: str | None = None,
        **settings: Any,
    ):
        if preset is not None and preset not in PRESETS:
            raise unknown("preset", preset, PRESETS, where="DreamBoothTrainer: preset")
        told = PRESETS[preset] if preset else {}
        name = "dreambooth-full" if full else str(told.get("method", {}).get("name", self.method))
        self._set(name, told, base, out, publish_to, settings)


class FullTrainer(MethodTrainer):
    """Every weight of the denoiser, and of the text encoders with `text_encoder=True`; `ema_decay` keeps a moving average."""

    method: ClassVar[str] = "full"


class TextualInversionTrainer(MethodTrainer):
    """New words for what the pictures show: `tokens=["<my-cat>"]`, `initializer=["cat"]`; `lora=True` trains adapters beside them
    (pivotal tuning)."""

    method: ClassVar[str] = "textual-inversion"

    def __init__(
        self, base: str, *, lora: bool = False, out: str | Path | None = None, publish_to: str | None = None, **settings: Any
    ):
        self._set("pivotal" if lora else self.method, {}, base, out, publish_to, settings)
