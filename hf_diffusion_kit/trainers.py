"""The trainer classes of the README: a few lines of sugar over one loop.

run = LoraTrainer(base="stable-diffusion-v1-5/stable-diffusion-v1-5", rank=16, steps=1000).fit(cats)
run.publish("me/coco-cats-lora")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .job import train
from .recipe import Recipe, sorted_keywords
from .run import Run


class LoraTrainer:
    """LoRA on captioned pictures. Keywords are the settings of `[method]` and `[training]`: `rank`, `steps`, `learning_rate` …

    `base`: Hub id, folder, or an embedded base (`digits`, `digits-seven`). `out`: folder of the run (default `runs/<base>-<method>`).
    `publish_to`: a repository to check before the first step. Raises ConfigError for an unknown keyword, naming the nearest.
    """

    method: ClassVar[str] = "lora"

    def __init__(self, base: str, *, out: str | Path | None = None, publish_to: str | None = None, **settings: Any):
        sections = sorted_keywords(self.method, settings)
        sections.setdefault("base", {})["id"] = str(base)
        if publish_to:
            sections.setdefault("publish", {})["repo"] = publish_to
        self.recipe = Recipe.of(sections, where=type(self).__name__)
        name = str(base).rstrip("/").rsplit("/", 1)[-1]
        self.out = Path(out) if out is not None else Path("runs") / f"{name}-{self.method}"

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


class DreamBoothTrainer(LoraTrainer):
    """A few pictures of one subject, with prior preservation: `class_prompts`, `class_count`, `prior_weight` besides."""

    method: ClassVar[str] = "dreambooth"
