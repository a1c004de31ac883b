"""From captioned pictures to batches: which picture, which caption, which part of it, and what the frozen parts say of it.

Shape suffixes: B batch, C latent channels, H W latent height and width, R G pixel height and width.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ..data.captioned import Captioned
from ..data.captions import choose, in_template, shuffled, tidy
from ..data.pixels import MIDDLE, Crop, Place, prepare
from ..errors import ConfigError
from ..families import Conditioning, Family, Posterior
from ..methods import Batch
from ..records import CaptionUse
from . import convolutions
from .buckets import Buckets, assign, sizes
from .cache import Cache, encoded_folder
from .crops import need_smart, smart, window, windows
from .keys import caption_key, mask_key, origin, picture_key, place_key
from .masks import Masks, floored
from .pictured import pictured
from .processes import ALONE, Processes
from .progress import memory_left
from .randomness import number, stream
from .settings import TrainSettings
from .validation import Held


@dataclass(frozen=True)
class Sample:
    """One picture as it is shown once."""

    index: int
    """Its place among the rows."""
    image_id: str
    chosen: str
    """The caption that was its turn; empty when it was dropped."""
    caption: str
    """The exact text the model is given."""
    crop: Crop


class Loader:
    """`batch(step, micro)` is a function of its arguments and the seed: any step can be had without the ones before it."""

    def __init__(
        self,
        data: Captioned,
        family: Family,
        settings: TrainSettings,
        size: tuple[int, int],
        *,
        role: str,
        only: Sequence[int] | None = None,
        base: str | None = None,
        processes: Processes = ALONE,
        say: Callable[[str], None] = print,
    ):
        """`role` is `instance` or `class`. `only`: rows to show; None shows all. `base` names the base by content, so that what its
        frozen parts say can be kept on disk; None keeps it in memory. Raises SourceError when `data` has no pixels."""
        data.need_pixels()
        self.data, self.family, self.settings, self.size, self.role, self.processes = (
            data,
            family,
            settings,
            size,
            role,
            processes,
        )
        self.device = family.device
        on_disk = base if settings.disk_cache else None
        folder = encoded_folder(on_disk) if on_disk else None
        self.cache = Cache(folder, keep_bytes=memory_left() // 2 if folder else None, device=self.device, say=say)
        self.texts = self.cache
        """Where conditioning is kept; in memory alone once the text side has learnt."""
        self.origin = origin(family.name, base or "none", family.dtype, self.device)
        self.text_learns = False
        self._turned = self._measured = False
        self.used: Counter[tuple[str, str]] = Counter()
        """(image id, text) -> how often the model was given it: the caption ledger."""
        self.chosen: Counter[tuple[str, str]] = Counter()
        """The same before tags were shuffled and templates filled."""
        self.at = list(range(len(data))) if only is None else sorted(only)
        """Rows of the dataset."""
        columns = ["image_id", "file_name", "sha256", "captions", "height", "width"]
        told = data.dataset.select_columns(columns)[self.at]  # all at once: one by one, 100,000 of them take minutes
        self.rows: list[dict[str, Any]] = [
            dict(zip(columns, row, strict=True)) for row in zip(*(told[c] for c in columns), strict=True)
        ]
        self.buckets = self._buckets()
        self.plan = self.buckets.plan(settings.batch_size * processes.world, settings.seed, role)
        self.masks = Masks(data, settings.mask, settings.mask_path) if settings.mask != "no" and role == "instance" else None
        self.finder = need_smart() if settings.crop == "smart" else ""

    def _buckets(self) -> Buckets:
        told, shapes = self.settings, [(row["height"], row["width"]) for row in self.rows]
        if not told.buckets:
            return Buckets(tuple(shapes), (self.size,) * len(shapes))
        if told.bucket_step % self.family.divides:
            raise ConfigError(
                f"must be a multiple of {self.family.divides}, got {told.bucket_step}", where="training: bucket_step", case=1
            )
        there = sizes(self.size, told.bucket_step, told.bucket_min_side, told.bucket_max_side)
        return assign(shapes, there, told.bucket_upscale, step=told.bucket_step)

    @cached_property
    def pictured(self) -> dict[str, Tensor]:
        """All its pictures by name and digest, for checkpoints."""
        return pictured(self.data, self.role)

    # What is shown when

    def places(self, step: int, micro: int) -> range:
        """Numbers, within the run, of this process's samples: all their randomness hangs on them."""
        first = self._group(step, micro) * self.plan.group_size + self.processes.rank * self.settings.batch_size
        return range(first, first + self.settings.batch_size)

    def samples(self, step: int, micro: int) -> list[Sample]:
        """Of all processes, in order. Batches run on over the end of an epoch; none is smaller than the others."""
        k = self._group(step, micro)
        told = enumerate(self.plan.group(k), k * self.plan.group_size)
        return [self._sample(place, index, epoch) for place, (index, epoch) in told]

    def batch(self, step: int, micro: int) -> Batch:
        """This process's share."""
        samples = self.samples(step, micro)
        mine = samples[self.processes.rank * self.settings.batch_size :][: self.settings.batch_size]
        posteriors = [self.posterior(sample) for sample in mine]
        joint = Posterior(torch.cat([p.mean_BCHW for p in posteriors]), torch.cat([p.std_BCHW for p in posteriors]))
        seed = self.settings.seed
        latents_BCHW = joint.draw([stream(seed, self.role, "latents", place) for place in self.places(step, micro)])
        masks = torch.cat([self.mask(sample) for sample in mine]) if self.masks else None
        return Batch(latents_BCHW, self.conditioning(mine), masks)

    def spoken(self, prompts: Sequence[str], step: int, micro: int, *, by: Family | None = None) -> Conditioning:
        """Conditioning of this process's samples with other words, which take turns: the class prompts of a prior by the base.
        `by`: the family whose text side is asked, and not remembered."""
        places, mine = self.places(step, micro), self.samples(step, micro)
        mine = mine[self.processes.rank * self.settings.batch_size :][: self.settings.batch_size]
        texts = [tidy(prompts[place % len(prompts)]) for place in places]
        told = [replace(sample, caption=text) for sample, text in zip(mine, texts, strict=True)]
        return self.conditioning(told) if by is None else self._encode_captions(told, by)

    def still(self, index: int) -> Sample:
        """A row as it is measured: its first caption, its middle, not mirrored."""
        row = self.rows[index]
        text = tidy(row["captions"][0])
        return Sample(index, row["image_id"], text, self._worded(text), self._crop(index, MIDDLE, flip=False))

    def held(self) -> list[Held]:
        """The rows as pictures to measure; from now on nothing else of them is encoded ahead."""
        self._measured = True
        return [Held(row["image_id"], partial(self._still_batch, index)) for index, row in enumerate(self.rows)]

    def _still_batch(self, index: int) -> Batch:
        sample = self.still(index)
        mask = self.mask(sample) if self.masks else None
        return Batch(self.posterior(sample).mean_BCHW, self.conditioning([sample]), mask)

    def _group(self, step: int, micro: int) -> int:
        return step * self.settings.gradient_accumulation_steps + micro

    def _sample(self, place: int, index: int, epoch: int) -> Sample:
        told, row = self.settings, self.rows[index]
        image_id, seed = row["image_id"], told.seed
        dropped = number(seed, self.role, "dropout", place) < told.caption_dropout * 2**63
        chosen = "" if dropped else choose(row["captions"], told.caption, seed=seed, epoch=epoch, image_id=image_id)
        text = chosen
        if told.caption_shuffle and self.role == "instance":
            text = shuffled(text, told.caption_keep, number(seed, self.role, "tags", place))
        flip = told.random_flip and number(seed, self.role, "flip", epoch, image_id) % 2 == 1
        return Sample(index, image_id, chosen, self._worded(text), self._crop(index, self._place(index, epoch), flip=flip))

    def _worded(self, text: str) -> str:
        template = self.settings.caption_template if self.role == "instance" else None
        return in_template(template, text) if template else text

    def _place(self, index: int, epoch: int) -> Place:
        told, size = self.settings, self.buckets.size_of[index]
        if told.crop == "random":
            named = {"seed": told.seed, "epoch": epoch, "name": self.role, "image_id": self.rows[index]["image_id"]}
            return window(self.buckets.shapes[index], size, told.random_crops, **named)
        if told.crop == "smart":
            key = place_key(self.finder, self.rows[index]["sha256"], size)
            found = self.cache.get(key, lambda: {"place": torch.tensor(smart(self._image(index), size), dtype=torch.float64)})
            down, right = found["place"].tolist()
            return down, right
        return MIDDLE

    def _crop(self, index: int, place: Place, *, flip: bool) -> Crop:
        return Crop(self.buckets.shapes[index], self.buckets.size_of[index], place, flip)

    # What the frozen parts say

    def share(self) -> int:
        """Pictures that this process encodes."""
        return len(self._mine())

    def fill(self, watch: Callable[[], None], *, also: Sequence[str] = ()) -> None:
        """Asks VAE and text encoders everything that can be known before the first step; `watch` is called once a picture. `also`:
        texts that are told of every picture. Processes that share a disk divide the work."""
        mine = self._mine()
        with self._fast():
            for index in mine:
                self._fill(index, also)
                watch()
        self.processes.wait()
        for index in sorted(set(range(len(self.rows))) - set(mine)):  # from disk now
            self._fill(index, also)

    def text_side(self, *, learns: bool, changed: bool) -> None:
        """Whether the text side learns now, and whether it has: what it said before counts no more, and is nobody else's."""
        self.text_learns = learns
        if changed:
            self.texts = Cache(device=self.device)

    @property
    def asks_later(self) -> bool:
        """Whether text encoders are asked in the run, and not only before it: tags are shuffled anew each time."""
        return self.settings.caption_shuffle and self.role == "instance"

    def posterior(self, sample: Sample) -> Posterior:
        crop = sample.crop
        key = picture_key(self.origin, self.rows[sample.index]["sha256"], crop)
        told = self.cache.get(key, lambda: self._encode_picture(sample.index, crop))
        return Posterior(told["mean"], told["std"])

    def mask(self, sample: Sample) -> Tensor:
        """mask_1HW of a picture as it is shown, at the latents' size -> (1, 1, H, W)."""
        masks, divisor = self.masks, self.family.latent_size_divisor
        if masks is None:
            raise ConfigError("there are no masks", where="training: mask", case=1)
        at = self.at[sample.index]
        key = mask_key(masks.mark(at), sample.crop, divisor)
        told = self.cache.get(key, lambda: {"mask": masks.at(at, sample.crop, divisor)})
        return floored(told["mask"][None], self.settings.unmasked_weight)

    def conditioning(self, samples: Sequence[Sample]) -> Conditioning:
        if self.text_learns:
            return self._encode_captions(samples)
        parts = []
        for sample in samples:
            key = caption_key(self.origin, sample.caption, sample.crop.geometry if self.family.reads_geometry else None)
            parts.append(self.texts.get(key, lambda sample=sample: self._encode_captions([sample])))  # type: ignore[misc]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _mine(self) -> list[int]:
        count, (rank, world) = len(self.rows), (self.processes.rank, self.processes.world)
        return list(range(rank, count, world)) if self.cache.folder is not None else list(range(count))

    def _fill(self, index: int, also: Sequence[str]) -> None:
        if self._measured:
            self._ask(self.still(index))
            return
        told, row = self.settings, self.rows[index]
        places = [self._place(index, 0)]
        if told.crop == "random":
            places = windows(self.buckets.shapes[index], self.buckets.size_of[index], told.random_crops)
        texts = {choose((text,), "first", seed=0, epoch=0, image_id=row["image_id"]) for text in row["captions"]}
        texts = {self._worded(text) for text in texts} | ({""} if told.caption_dropout else set()) | set(also)
        for place in places:
            for flip in (False, True) if told.random_flip else (False,):
                sample = Sample(index, row["image_id"], "", "", self._crop(index, place, flip=flip))
                self._ask(*(replace(sample, caption=text) for text in sorted(texts)))

    def _ask(self, *samples: Sample) -> None:
        """One and the same part of a picture, with each of its texts."""
        self.posterior(samples[0])
        if self.masks:
            self.mask(samples[0])
        if not self.text_learns and not self.asks_later:
            for sample in samples:
                self.conditioning([sample])

    def _image(self, index: int) -> Any:
        return self.data.example(self.at[index]).image

    def _encode_picture(self, index: int, crop: Crop) -> dict[str, Tensor]:
        pixels_3RG = prepare(self._image(index), *crop.size, place=crop.place, flip=crop.flip).pixels_3RG
        with self._fast():
            posterior = self.family.posterior(torch.from_numpy(pixels_3RG)[None])
        return {"mean": posterior.mean_BCHW, "std": posterior.std_BCHW}

    def _encode_captions(self, samples: Sequence[Sample], by: Family | None = None) -> Conditioning:
        geometry_B6 = torch.tensor([sample.crop.geometry for sample in samples])
        learns = self.text_learns and by is None
        kept = not learns and by is None  # what is kept must not hang on whether it was asked for within a step
        with torch.set_grad_enabled(learns), torch.autocast(self.device.type, enabled=False) if kept else nullcontext():
            cond = (by or self.family).encode_captions([sample.caption for sample in samples], geometry_B6)
        return {name: value.to(self.device) for name, value in cond.items()}

    @contextmanager
    def _fast(self) -> Iterator[None]:
        """Inside, the VAE lies in memory as its convolutions like it: a third of the time in bfloat16 on a CPU. The last bits are others,
        so every picture is encoded so; the pipeline draws with the plain layout, as its readers do."""
        outer, self._turned = self._turned, True
        vae: Any = self.family.part("vae")
        if not outer:
            convolutions.turn(vae, torch.channels_last)
        try:
            yield
        finally:
            self._turned = outer
            if not outer:
                convolutions.turn(vae, torch.contiguous_format)

    # What was shown

    def count(self, step: int) -> None:
        """A step that was taken to its end goes into the ledger, with everybody's samples."""
        for micro in range(self.settings.gradient_accumulation_steps):
            samples = self.samples(step, micro)
            self.used.update((sample.image_id, sample.caption) for sample in samples)
            self.chosen.update((sample.image_id, sample.chosen) for sample in samples)

    def told(self) -> dict[str, list[list[Any]]]:
        """The ledger as JSON; `recall` takes it back."""
        return {name: [[*key, times] for key, times in counter.items()] for name, counter in self._counters().items()}

    def recall(self, told: dict[str, list[list[Any]]]) -> None:
        for name, counter in self._counters().items():
            counter.clear()
            counter.update({(image, text): times for image, text, times in told.get(name, [])})

    def _counters(self) -> dict[str, Counter[tuple[str, str]]]:
        return {"used": self.used, "chosen": self.chosen}

    def ledger(self) -> list[CaptionUse]:
        """Every text that the model was really given of each picture, how often, and what the tokenizer cut of it."""
        texts: dict[str, list[tuple[str, int]]] = {}
        for (image_id, text), times in sorted(self.used.items()):
            texts.setdefault(image_id, []).append((text, times))
        lines = []
        for row in self.rows:
            for text, times in texts.get(row["image_id"], []):
                count = self.family.count_tokens(text)
                lines.append(CaptionUse(row["image_id"], row["file_name"], text, times, count.seen, count.cut, self.role))
        return lines

    def notes(self) -> list[str]:
        """What fitting the pictures to the training sizes cut away or enlarged, what masks hide, what the cache spared."""
        notes = self.buckets.notes(self.role, self.plan.group_size)
        if self.masks:
            notes += self.masks.notes([self.mask(self.still(index))[0] for index in range(len(self.rows))])
        return notes
