"""From captioned pictures to batches: which picture, which caption, mirrored or not, and what the frozen parts say of it.

Shape suffixes: B batch, R G pixel height and width.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..data.captioned import Captioned
from ..data.captions import choose
from ..data.pixels import Prepared, prepare
from ..families import Conditioning, Family, Posterior
from ..methods import Batch
from ..records import CaptionUse
from .cache import Cache
from .randomness import number, order, stream
from .settings import TrainSettings


@dataclass(frozen=True)
class Sample:
    """One picture as it is shown once."""

    index: int
    image_id: str
    caption: str
    """The exact text the model is given; empty when it was dropped."""
    flip: bool


class Loader:
    """`batch(step, micro)` is a function of its arguments and the seed: any step can be had without the ones before it."""

    def __init__(
        self, data: Captioned, family: Family, settings: TrainSettings, size: tuple[int, int], *, role: str, text_cached: bool
    ):
        """`role` is `instance` or `class`; `text_cached` is False where the text side is trained. Raises SourceError when `data` has no pixels."""
        data.need_pixels()
        self.data, self.family, self.settings, self.size, self.role = data, family, settings, size, role
        self.text_cached = text_cached
        self.device = family.device
        self.cache = Cache()
        self.used: Counter[tuple[str, str]] = Counter()
        """(image id, text) -> how often the model was given it: the caption ledger."""
        rows = data.dataset.select_columns(["image_id", "captions"])
        self.rows: list[tuple[str, tuple[str, ...]]] = [(row["image_id"], tuple(row["captions"])) for row in rows]
        self._epoch, self._order = -1, [0]

    def samples(self, step: int, micro: int) -> list[Sample]:
        """Batches run on over the end of an epoch; none is smaller than the others."""
        first = (step * self.settings.gradient_accumulation_steps + micro) * self.settings.batch_size
        return [self._sample(first + k) for k in range(self.settings.batch_size)]

    def batch(self, step: int, micro: int) -> Batch:
        samples = self.samples(step, micro)
        self.used.update((sample.image_id, sample.caption) for sample in samples)
        posteriors = [self._posterior(sample) for sample in samples]
        joint = Posterior(torch.cat([p.mean_BCHW for p in posteriors]), torch.cat([p.std_BCHW for p in posteriors]))
        latents_BCHW = joint.draw(stream(self.settings.seed, self.role, "latents", step, micro))
        return Batch(latents_BCHW, self._conditioning(samples))

    def fill(self, watch: Callable[[], None]) -> None:
        """Asks VAE and text encoder everything that can be known before the first step; `watch` is called once a picture."""
        for index, (image_id, captions) in enumerate(self.rows):
            for flip in (False, True) if self.settings.random_flip else (False,):
                for caption in {choose((caption,), "first", seed=0, epoch=0, image_id=image_id) for caption in captions} | {""}:
                    sample = Sample(index, image_id, caption, flip)
                    self._posterior(sample)
                    if self.text_cached:
                        self._conditioning([sample])
            watch()

    def ledger(self) -> list[CaptionUse]:
        """Every text that the model was really given of each picture, how often, and what the tokenizer cut of it."""
        texts: dict[str, list[tuple[str, int]]] = {}
        for (image_id, text), times in sorted(self.used.items()):
            texts.setdefault(image_id, []).append((text, times))
        names = self.data.dataset["file_name"]
        lines = []
        for (image_id, _), file_name in zip(self.rows, names, strict=True):
            for text, times in texts.get(image_id, []):
                count = self.family.count_tokens(text)
                lines.append(CaptionUse(image_id, file_name, text, times, count.seen, count.cut, self.role))
        return lines

    def notes(self) -> list[str]:
        """What fitting the pictures to the training size cut away or enlarged; after `fill`."""
        shapes = [self._geometry(Sample(index, image_id, "", False)) for index, (image_id, _) in enumerate(self.rows)]
        scales = [max(th / h, tw / w) for h, w, _, _, th, tw in shapes]
        cut = [1 - th * tw / (h * w * s * s) for (h, w, _, _, th, tw), s in zip(shapes, scales, strict=True)]
        cropped, enlarged = [c for c in cut if c > 0.005], [s for s in scales if s > 1]
        size, notes = f"{self.size[0]}x{self.size[1]}", []
        if cropped:
            mean, most = sum(cropped) / len(cropped), max(cropped)
            notes.append(
                f"{len(cropped)} of {len(cut)} {self.role} pictures were cropped to {size}: {mean:.0%} of their area on average, {most:.0%} at most"
            )
        if enlarged:
            notes.append(
                f"{len(enlarged)} of {len(cut)} {self.role} pictures are smaller than {size} and were enlarged, up to {max(enlarged):.1f} times"
            )
        return notes

    def prepared(self, index: int, flip: bool) -> Prepared:
        return prepare(self.data.example(index).image, *self.size, flip=flip)

    def _sample(self, position: int) -> Sample:
        seed, (epoch, place) = self.settings.seed, divmod(position, len(self.rows))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(seed, epoch, len(self.rows), self.role)
        index = self._order[place]
        image_id, captions = self.rows[index]
        dropped = number(seed, self.role, "dropout", position) < self.settings.caption_dropout * 2**63
        caption = "" if dropped else choose(captions, self.settings.caption, seed=seed, epoch=epoch, image_id=image_id)
        flip = self.settings.random_flip and number(seed, self.role, "flip", epoch, image_id) % 2 == 1
        return Sample(index, image_id, caption, flip)

    def _posterior(self, sample: Sample) -> Posterior:
        return self.cache.get(("picture", sample.index, sample.flip), lambda: self._encode_picture(sample))

    def _geometry(self, sample: Sample) -> tuple[int, ...]:
        return self.cache.get(("geometry", sample.index, sample.flip), lambda: self.prepared(sample.index, sample.flip).geometry)

    def _encode_picture(self, sample: Sample) -> Posterior:
        prepared = self.prepared(sample.index, sample.flip)
        self.cache.get(("geometry", sample.index, sample.flip), lambda: prepared.geometry)
        posterior = self.family.posterior(torch.from_numpy(prepared.pixels_3RG)[None])
        return Posterior(posterior.mean_BCHW.to(self.device), posterior.std_BCHW.to(self.device))

    def _conditioning(self, samples: list[Sample]) -> Conditioning:
        if not self.text_cached:
            return self._encode_captions(samples)
        parts = []
        for sample in samples:
            key = ("caption", sample.caption, self._geometry(sample))
            parts.append(self.cache.get(key, lambda sample=sample: self._encode_captions([sample])))  # type: ignore[misc]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _encode_captions(self, samples: list[Sample]) -> Conditioning:
        geometry_B6 = torch.tensor([self._geometry(sample) for sample in samples])
        with torch.set_grad_enabled(not self.text_cached):
            cond = self.family.encode_captions([sample.caption for sample in samples], geometry_B6)
        return {name: value.to(self.device) for name, value in cond.items()}
