"""The loop. It knows no family, no method and no format by name."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.captioned import Captioned
from ..data.captions import tidy
from ..errors import ConfigError, ModelError
from ..families import Family
from ..methods import Batch, Method
from ..records import CaptionUse
from . import best, convolutions, on_cpu, optimizers, saving, sharding, shortage
from . import stages as staging
from .cache import Cache
from .ema import Ema
from .endings import diverged, stopped
from .loader import Loader
from .notes import notes
from .processes import ALONE, Processes
from .progress import Smoothed, beside, memory
from .randomness import number, reseed, stream
from .settings import TrainSettings
from .signals import Signals
from .size import training_size
from .stages import Stage
from .validation import Validation, held_out

MOST_BAD_STEPS = 5
"""Steps in a row without a finite loss and gradient after which a run is given up."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE = 2.0**12
"""Of fp16 losses: small enough that the first steps of an adapter are not lost, and it grows by itself."""


class Trainer:
    """One run: `fit()` goes to the last step, `step()` takes one, `for loss in trainer` takes one after another. The same
    arguments give the same weights, byte for byte.

    `folder` is where checkpoints go; None keeps none. `identity` names base and data by content, so that a resumed run can be
    refused when they have changed. `validation_data`: pictures that are held out, where
    `validation_share` does not hold out some of `data`. `after_step`: plain functions that are given the trainer
    after each step of `fit`. Raises the errors of `errors.py`; after Stopped a checkpoint of the very step stands.
    """

    def __init__(
        self,
        family: Family,
        method: Method,
        settings: TrainSettings,
        data: Captioned,
        *,
        class_data: Captioned | None = None,
        validation_data: Captioned | None = None,
        folder: Path | None = None,
        identity: dict[str, str] | None = None,
        processes: Processes = ALONE,
        say: Callable[[str], None] = print,
        progress: bool = True,
    ):
        self.family, self.method, self.settings, self.folder = family, method, settings, folder
        self.processes, self.say, self.progress = processes, say, progress and processes.main
        self.device = family.device
        self.size = training_size(family, settings)
        self.objective = family.objective(**settings.objective_options())
        method.prepare(family)
        sharding.aside(self)
        self.trained = method.adapt(family, number(settings.seed, "adapter"))
        if settings.gradient_checkpointing:
            family.compute_twice(on_cpu.checkpointed)
        self.hollow = sharding.begin(self)
        """The denoiser without its weights, where they are shared out over the processes."""
        self.weights = {f"{part.part}.{name}": p for part in self.trained for name, p in part.parameters.items()}
        self.label_of = {f"{part.part}.{name}": part.label for part in self.trained for name in part.parameters}
        """Trained weight -> the group of the optimizer that holds it."""
        text = [part.label for part in self.trained if part.kind == "text"]
        tokens = [part.label for part in self.trained if part.kind == "tokens"]
        self.stages = staging.stages(settings, [part.label for part in self.trained], text, tokens)
        self.text_labels = {*text, *tokens}
        forgotten = {label for stage in self.stages for label in stage.forget}
        self.first_weights = {name: p.detach().clone() for name, p in self.weights.items() if self.label_of[name] in forgotten}
        self.ema = Ema(self.weights, settings.ema_decay) if settings.ema_decay else None
        half = settings.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=FIRST_SCALE, enabled=half)
        told: dict[str, Any] = {"base": (identity or {}).get("base"), "processes": processes, "say": say}
        only, out = held_out(data.dataset["image_id"][:], settings.validation_share, settings.seed)
        self.loader = Loader(data, family, settings, self.size, role="instance", only=only, **told)
        self.prior = (
            Loader(class_data, family, settings, self.size, role="class", **told)
            if method.wants_prior and class_data is not None
            else None
        )
        self.held = (
            Loader(validation_data or data, family, settings, self.size, role="instance", only=out or None, **told)
            if out or validation_data is not None
            else None
        )
        self.validation = (
            Validation(family, self.objective, self.held.held(), settings.seed, autocast=self.autocast) if self.held else None
        )
        self.identity = saving.identity(self, identity or {}, data, class_data)
        self.done, self.skipped = 0, 0
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        """(step, loss of the held-out pictures)."""
        self.after_step: list[Callable[[Trainer], None]] = []
        self.ended_early = False
        self.given_out: int | None = None
        """The step whose weights were given out, where that is not the last one."""
        self.bad_in_a_row = 0
        self.saved_at: int | None = None
        self.started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        """When the first session of the run began, UTC."""
        self.seconds = 0.0
        """Wall time of the earlier sessions' `fit`: encoding, steps, checkpoints."""
        self._began: float | None = None
        self.seconds_a_step = 0.0
        """Wall time of the steps of the last `fit`, its checkpoints included."""
        self.optimizer: torch.optim.Optimizer
        self.stage: Stage | None = None
        self.enter(0)

    # The run

    def __iter__(self) -> Iterator[float]:
        """The loss of each step that is left."""
        self.fill()
        while self.done < self.settings.steps:
            yield self.step()

    def fit(self) -> list[float]:
        """Trains to the last step and returns the loss of every step. SIGTERM and SIGINT end it after the step, saved."""
        self._began = time.monotonic()
        shortage.check_room(self)
        self.fill()
        smoothed = Smoothed(self.losses)
        begun, first = time.monotonic(), self.done
        bar = tqdm(total=self.settings.steps, initial=self.done, desc="training", unit="step", disable=not self.progress)
        with bar, Signals() as signals:
            while self.done < self.settings.steps and not self.ended_early:
                smoothed.add(self.step())
                bar.update()
                if self.done % 10 == 1 and self.progress:
                    bar.set_postfix_str(beside(smoothed.value, self.rates(), memory(self.device)), refresh=False)
                every = self.settings.checkpointing_steps
                for watch in self.after_step:
                    watch(self)
                due = bool(every) and self.done % every == 0 and self.done < self.settings.steps
                if caught := self._caught(signals):
                    raise stopped(self, caught)
                if due:
                    self.save()
        self.seconds_a_step = (time.monotonic() - begun) / max(1, self.done - first)
        self.save()
        self.seconds, self._began = self.elapsed(), None
        self.give_out()
        return self.losses

    def fill(self) -> None:
        """Encodes all pictures (and captions, where the text side is frozen) before the first step; what is not asked again
        leaves the memory."""
        loaders = [loader for loader in (self.loader, self.prior, self.held) if loader is not None]
        also = [tidy(text) for text in self._class_prompts()]
        total = sum(loader.share() for loader in loaders)
        with tqdm(total=total, desc="encoding pictures", unit="picture", disable=not self.progress, leave=False) as bar:
            for loader in loaders:
                loader.fill(lambda: bar.update() and None, also=also if loader is self.loader else ())
        self.leave_encoders()

    def leave_encoders(self) -> None:
        """Lets go of VAE and text encoders where nothing asks them any more until the end."""
        asked = self.text_labels or any(loader.asks_later for loader in (self.loader, self.prior) if loader)
        self.family.release(keep=self.family.text_encoders if asked else ())

    def step(self) -> float:
        """One optimizer step; returns its loss. A step whose loss or gradient is not finite changes nothing and is counted."""
        stage = self.enter(self.done)
        accumulation = self.settings.gradient_accumulation_steps
        losses = []
        with shortage.spared(self):
            for micro in range(accumulation):
                loss = self._loss(micro)
                self.scaler.scale(loss / accumulation).backward()
                losses.append(loss.detach())
        learning = [p for name, p in self.weights.items() if self.label_of[name] in stage.parts]
        self.processes.average(learning)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = sharding.clip(learning, self.settings.max_grad_norm)
        told = torch.stack([torch.stack(losses).mean().float(), norm.float()]).tolist()  # the one wait for the device
        total, length = self.processes.mean(told)
        if self.done == 0 and all(p.grad is None for p in learning):
            raise ModelError("no trained weight has a gradient after the first step", where="method: targets", case=4)
        finite = isfinite(total) and isfinite(length)
        if finite:
            optimizers.set_rates(self.optimizer, staging.factors(stage, self.done, self.settings))
            self.scaler.step(self.optimizer)
            self.bad_in_a_row = 0
            if self.ema is not None:
                self.ema.update()
        else:
            self.skipped += 1
            self.bad_in_a_row += 1
            if self.bad_in_a_row >= MOST_BAD_STEPS * (4 if self.scaler.is_enabled() else 1):
                raise diverged(self)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        for loader in filter(None, (self.loader, self.prior)):
            loader.count(self.done)
        self.losses.append(total)
        self.done += 1
        return total

    def batch(self, micro: int) -> Batch:
        """What the next step is shown."""
        batch = self.loader.batch(self.done, micro)
        if self.prior is not None:
            return replace(batch, prior=self.prior.batch(self.done, micro))
        if self.method.prior_by_base:
            told = (self._class_prompts(), self.done, micro)
            before = None
            if self.text_labels:
                with torch.no_grad(), self._untouched() as base:
                    before = self.loader.spoken(*told, by=base)
            prior = Batch(batch.latents_BCHW, self.loader.spoken(*told), base_cond=before)
            return replace(batch, prior=prior)
        return batch

    def autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic of a step."""
        precision = self.settings.mixed_precision
        return torch.autocast(self.device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision != "no")

    def measure(self) -> float:
        """Loss of the held-out pictures with the weights that would be given out now. Raises ConfigError when none are held out."""
        if self.validation is None:
            raise ConfigError("no picture is held out", where="training: validation_share", case=1)
        with self.shown():
            return self.validation.measure(processes=self.processes).loss

    def rates(self) -> dict[str, float]:
        """Learning rate of each part that learnt in the last step."""
        stage, step = self.stage or self.stages[0], max(0, self.done - 1)
        return {name: staging.rate(stage, step, self.settings, name) for name in stage.parts}

    def elapsed(self) -> float:
        """Wall time of the run so far, over all its sessions, in seconds."""
        return self.seconds + (time.monotonic() - self._began if self._began is not None else 0.0)

    def _untouched(self) -> AbstractContextManager[Family]:
        method: Any = self.method
        return method.untouched(self.family)

    def _class_prompts(self) -> tuple[str, ...]:
        method: Any = self.method
        return method.class_prompts if method.prior_by_base else ()

    def _loss(self, micro: int) -> Tensor:
        seed = self.settings.seed
        generators = [stream(seed, "noise", place) for place in self.loader.places(self.done, micro)]
        with (
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
            self.autocast(),
        ):
            # dropout layers know the global stream only
            rank = [self.processes.rank] if self.processes.rank else []
            reseed(self.device, number(seed, "dropout", self.done, micro, *rank))
            batch = self.batch(micro)
            with on_cpu.faster(self.device):
                return self.method.loss(self.family, self.objective, batch, generators)

    # Stages: which parts learn now

    def enter(self, step: int, *, resuming: bool = False) -> Stage:
        """The stage of a step. Where one begins, what the one before was to forget is set back (not where a checkpoint is to follow)."""
        stage, before = staging.at(self.stages, step), self.stage
        if stage is before:
            return stage
        self.stage = stage
        if before is not None and before.forget and not resuming:
            self._forget(before.forget)
        if stage.fresh or before is None or resuming:
            if before is not None and not resuming:
                optimizers.mode(self.optimizer, training=False)  # what learns no more stays where it would be given out
            self.optimizer = optimizers.build(
                self.settings,
                [
                    optimizers.Group(part.label, part.parameters, stage.rates[part.label])
                    for part in self.trained
                    if part.label in stage.rates
                ],
            )
        for name, parameter in self.weights.items():
            parameter.requires_grad_(self.label_of[name] in stage.parts)
        earlier = self.stages[: self.stages.index(stage)]
        for loader in (self.loader, self.prior, self.held):
            if loader is not None:
                changed = any(self.text_labels.intersection(one.parts) for one in earlier)
                loader.text_side(learns=bool(self.text_labels.intersection(stage.parts)), changed=changed)
        self.mode(training=True)
        optimizers.mode(self.optimizer, training=True)
        return stage

    def _forget(self, labels: Sequence[str]) -> None:
        with torch.no_grad():
            for name, parameter in self.weights.items():
                if self.label_of[name] in labels:
                    parameter.copy_(self.first_weights[name])
        if self.ema is not None:
            self.ema.restart()
        self.say(f"after step {self.done}: {', '.join(labels)} is set back to what it was, and learns anew")

    def mode(self, *, training: bool) -> None:
        """Dropout on and the fast memory layout, or as a reader will have it."""
        for part in self.trained:
            self.family.part(part.part).train(training and self.stage is not None and part.label in self.stage.parts)
        # Convolutions run 1.1 to 1.9 times as fast; a reader will have the plain layout, and its last bits. Shares have no other.
        if self.hollow is None:
            convolutions.turn(self.family.model, torch.channels_last if training else torch.contiguous_format)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the weights are those that would be given out now, and nothing is dropped; afterwards all is as before, bit for bit."""
        averages = self.ema.swapped() if self.ema is not None else nullcontext()
        modules = [self.family.part(part.part) for part in self.trained]
        before = [module.training for module in modules]
        with optimizers.at_rest(self.optimizer), averages:
            for module in modules:
                module.eval()
            try:
                yield
            finally:
                for module, training in zip(modules, before, strict=True):
                    module.train(training)

    def give_out(self) -> None:
        """Leaves the weights, after the last step, as they go out: averaged, where an average is kept."""
        optimizers.mode(self.optimizer, training=False)
        if self.ema is not None:
            self.ema.give_out()
        if self.settings.early_stop and (step := best.give_out(self)):
            self.given_out = step
            self.say(f"given out: the weights of step {step}, the best by the held-out pictures")
        self.mode(training=False)

    def gather(self) -> None:
        """After the last step, before anything is written: the denoiser whole again in rank 0, where it was shared out."""
        sharding.finish(self)

    # How it ends

    def _caught(self, signals: Signals) -> int:
        """The signal that any of the processes was sent, 0 for none."""
        caught = signals.caught or 0
        return round(self.processes.most(caught)) if self.processes.world > 1 else caught

    # Its state

    def save(self) -> Path | None:
        """A checkpoint of this very step; None without a folder. Raises StorageError or ModelError, the one before it untouched."""
        return saving.save(self)

    def resume(self, *, allow: Sequence[str] = ()) -> int:
        """Goes back to the newest valid checkpoint of `folder` and returns its step (0: there is none).

        Raises CheckpointError when a setting, the base or the data is another one; `allow` names what may differ.
        """
        return saving.resume(self, allow)

    def let_go(self) -> None:
        """Forgets model, weights, optimizer and caches, after the last word on the run has been heard."""
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()
        self.weights, self.first_weights, self.trained, self.ema, self.validation = {}, {}, [], None, None
        self.held = self.prior = None
        self.loader.cache, self.loader.texts = Cache(), Cache()
        self.family.let_go()

    # What happened

    def notes(self) -> list[str]:
        """What was cropped, enlarged, cut, dropped or skipped, a sentence each."""
        return notes(self)

    def ledger(self) -> list[CaptionUse]:
        """Every text that the model was really given, how often, and what the tokenizer cut of it."""
        return [use for loader in (self.loader, self.prior) if loader for use in loader.ledger()]
