"""The loop. It knows no family, no method and no format by name."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..config import plain
from ..data.captioned import Captioned
from ..data.captions import tidy
from ..errors import CheckpointError, ConfigError, DivergedError, ModelError, Stopped, nearest
from ..families import Family
from ..methods import Batch, Method
from ..records import CaptionUse
from . import checkpoint as checkpoints
from .loader import Loader
from .randomness import number, stream
from .settings import TrainSettings
from .signals import Signals

MOST_BAD_STEPS = 5
"""Steps in a row without a finite loss and gradient after which a run is given up."""


class Trainer:
    """One run: `fit()` goes to the last step, `step()` takes one. The same arguments give the same weights, byte for byte.

    `folder` is where checkpoints go; None keeps none. `identity` names base and data by content, so that a resumed run can be
    refused when they have changed. Raises the errors of `errors.py`; after Stopped a checkpoint of the very step stands.
    """

    def __init__(
        self,
        family: Family,
        method: Method,
        settings: TrainSettings,
        data: Captioned,
        *,
        class_data: Captioned | None = None,
        folder: Path | None = None,
        identity: dict[str, str] | None = None,
        say: Callable[[str], None] = print,
        progress: bool = True,
    ):
        self.family, self.method, self.settings, self.folder, self.say, self.progress = (
            family,
            method,
            settings,
            folder,
            say,
            progress,
        )
        self.device = family.device
        self.size = training_size(family, settings)
        self.objective = family.objective(snr_gamma=settings.snr_gamma)
        self.trained = method.adapt(family, number(settings.seed, "adapter"))
        if settings.gradient_checkpointing:
            family.model.enable_gradient_checkpointing()  # type: ignore[operator]
        self.weights = {f"{part.part}.{name}": p for part in self.trained for name, p in part.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(part.parameters.values()), "base_lr": self._rate(part.part)} for part in self.trained],
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
            weight_decay=settings.adam_weight_decay,
        )
        text_cached = not method.trains_text
        self.loader = Loader(data, family, settings, self.size, role="instance", text_cached=text_cached)
        self.prior = (
            Loader(class_data, family, settings, self.size, role="class", text_cached=text_cached)
            if method.wants_prior and class_data is not None
            else None
        )
        self.identity = {
            **(identity or {}),
            "data": data.fingerprint,
            "class_data": class_data.fingerprint if class_data else "none",
            "family": family.name,
            "method": method.name,
            **{f"method.{key}": str(value) for key, value in plain(method).items()},
            **{f"training.{key}": str(value) for key, value in plain(settings).items()},
        }
        self.done, self.skipped = 0, 0
        self.losses: list[float] = []
        self._bad_in_a_row = 0
        self._saved_at: int | None = None
        self.started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        """When the first session of the run began, UTC."""
        self.seconds = 0.0
        """Wall time of `fit` over all sessions: encoding, steps, checkpoints."""
        self.seconds_a_step = 0.0
        """Wall time of the steps of the last `fit`, its checkpoints included."""
        self._mode(training=True)

    # The run

    def fit(self) -> list[float]:
        """Trains to the last step and returns the loss of every step. SIGTERM and SIGINT end it after the step, saved."""
        began = time.monotonic()
        self.fill()
        self._mode(training=True)
        recent: deque[float] = deque(maxlen=50)
        begun, first = time.monotonic(), self.done
        bar = tqdm(total=self.settings.steps, initial=self.done, desc="training", unit="step", disable=not self.progress)
        with bar, Signals() as signals:
            while self.done < self.settings.steps:
                recent.append(self.step())
                bar.update()
                bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)
                if signals.caught is not None:
                    self.seconds += time.monotonic() - began
                    self._stop(signals.caught)
                every = self.settings.checkpointing_steps
                if every and self.done % every == 0 and self.done < self.settings.steps:
                    self.seconds, began = self.seconds + time.monotonic() - began, time.monotonic()
                    self.save()
        self.seconds_a_step = (time.monotonic() - begun) / max(1, self.done - first)
        self.seconds += time.monotonic() - began
        self._mode(training=False)
        self.save()
        return self.losses

    def fill(self) -> None:
        """Encodes all pictures (and captions, where the text side is frozen) before the first step."""
        loaders = [loader for loader in (self.loader, self.prior) if loader is not None]
        total = sum(len(loader.rows) for loader in loaders)
        with tqdm(total=total, desc="encoding pictures", unit="picture", disable=not self.progress, leave=False) as bar:
            for loader in loaders:
                loader.fill(lambda: bar.update() and None)
        self.family.to(self.device, encoders=self.method.trains_text)  # what is not asked again leaves the device's memory

    def step(self) -> float:
        """One optimizer step; returns its loss. A step whose loss or gradient is not finite changes nothing and is counted."""
        accumulation = self.settings.gradient_accumulation_steps
        total = 0.0
        for micro in range(accumulation):
            loss = self._loss(micro)
            (loss / accumulation).backward()
            total += loss.item() / accumulation
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.settings.max_grad_norm)
        if self.done == 0 and norm.item() == 0:
            raise ModelError("no trained weight has a gradient after the first step", where="method: targets", case=4)
        if torch.isfinite(norm) and total == total:
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * self.settings.rate(self.done)
            self.optimizer.step()
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= MOST_BAD_STEPS:
                raise self._diverged()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(total)
        self.done += 1
        return total

    def _diverged(self) -> DivergedError:
        what = f"no finite loss in {MOST_BAD_STEPS} steps in a row, the last one step {self.done + 1}"
        saved = checkpoints.steps_in(self.folder) if self.folder else []
        fix = "lower learning_rate and start anew in another folder"
        if saved:
            fix = f"hfdk resume goes on from step {saved[-1]}: lower learning_rate, with --allow-change training.learning_rate"
        return DivergedError(what, where="training: learning_rate", fix=fix, case=6)

    def batch(self, micro: int) -> Batch:
        """What the next step is shown."""
        batch = self.loader.batch(self.done, micro)
        if self.prior is None:
            return batch
        return Batch(batch.latents_BCHW, batch.cond, self.prior.batch(self.done, micro))

    def _loss(self, micro: int) -> Tensor:
        seed, bf16 = self.settings.seed, self.settings.mixed_precision == "bf16"
        with (
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
            torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
        ):
            torch.manual_seed(number(seed, "dropout", self.done, micro))  # dropout layers know the global stream only
            return self.method.loss(self.family, self.objective, self.batch(micro), stream(seed, "noise", self.done, micro))

    def _mode(self, *, training: bool) -> None:
        for part in self.trained:
            self.family.part(part.part).train(training)
        # Convolutions run 1.1 to 1.9 times as fast; a reader will have the plain layout, and its last bits.
        self.family.model.to(memory_format=torch.channels_last if training else torch.contiguous_format)  # type: ignore[call-overload]

    def _rate(self, part: str) -> float:
        rate = self.settings.text_encoder_learning_rate
        return rate if rate is not None and part in self.family.text_encoders else self.settings.learning_rate

    def _stop(self, signal_number: int) -> None:
        where = self.save()
        text = f"stopped by signal {signal_number} after step {self.done} of {self.settings.steps}"
        raise Stopped(
            f"{text}; saved as {where.name}" if where else text, exit_code=128 + signal_number, fix="`hfdk resume` goes on"
        )

    # Its state

    def save(self) -> Path | None:
        """A checkpoint of this very step; None without a folder. Raises StorageError or ModelError, the one before it untouched."""
        if self.folder is None or self._saved_at == self.done:
            return self.folder and self.folder / f"checkpoint-{self.done:06d}"
        if bad := [name for name, p in self.weights.items() if not torch.isfinite(p).all()]:
            raise ModelError(
                f"{len(bad)} trained weights are not finite ({bad[0]}); nothing was saved", where=self.folder, case=2
            )
        tensors = {
            f"{index}.{key}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        ledger = {
            loader.role: [[*key, times] for key, times in loader.used.items()] for loader in (self.loader, self.prior) if loader
        }
        state = {
            "losses": [loss if isfinite(loss) else None for loss in self.losses],
            "skipped": self.skipped,
            "bad_in_a_row": self._bad_in_a_row,
            "started": self.started,
            "seconds": self.seconds,
            "ledger": ledger,
            "identity": self.identity,
        }
        now = checkpoints.Checkpoint(self.done, dict(self.weights), tensors, state)
        path = checkpoints.save(self.folder, now, keep=self.settings.checkpoints_total_limit)
        self._saved_at = self.done
        return path

    def resume(self, *, allow: Sequence[str] = ()) -> int:
        """Goes back to the newest valid checkpoint of `folder` and returns its step (0: there is none).

        Raises CheckpointError when a setting, the base or the data is another one; `allow` names what may differ.
        """
        found = checkpoints.newest(self.folder, self.say) if self.folder else None
        if found is None:
            return 0
        differs = checkpoints.changes(found.state["identity"], self.identity)
        if strange := [key for key in allow if key not in self.identity]:
            raise ConfigError(
                f"is no setting of this run; {nearest(strange[0], self.identity)}", where=f"--allow-change {strange[0]}", case=1
            )
        refused = [line for line in differs if line.split(":")[0] not in allow]
        if refused:
            raise CheckpointError(
                f"belongs to another run: {'; '.join(refused)}",
                where=self.folder,
                fix="put it back as it was, or say --allow-change for each that is meant",
                case=4,
            )
        for line in differs:
            self.say(f"changed on request: {line}")
        if {name: tensor.shape for name, tensor in found.weights.items()} != {name: p.shape for name, p in self.weights.items()}:
            raise CheckpointError("holds other weights than this method trains", where=self.folder, case=4)
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(found.weights[name])
        self._load_optimizer(found.optimizer)
        self.done = self._saved_at = found.step
        self.losses = [float("nan") if loss is None else loss for loss in found.state["losses"]]
        self.skipped, self._bad_in_a_row = found.state["skipped"], found.state["bad_in_a_row"]
        self.started, self.seconds = found.state["started"], found.state["seconds"]
        for loader in (self.loader, self.prior):
            if loader:
                loader.used.clear()
                loader.used.update({(image, text): times for image, text, times in found.state["ledger"].get(loader.role, [])})
        return self.done

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    # What happened

    def notes(self) -> list[str]:
        """What was cropped, enlarged, cut, dropped or skipped, a sentence each."""
        notes = [note for loader in (self.loader, self.prior) if loader for note in loader.notes()]
        uses = self.ledger()
        if cut := [use for use in uses if use.tokens_cut]:
            longest = max(use.tokens_cut for use in cut)
            notes.append(f"{len(cut)} of {len(uses)} captions were cut by the tokenizer, by up to {longest} tokens")
        shown = {image_id for image_id, _ in self.loader.used}
        if unseen := len(self.loader.rows) - len(shown):
            notes.append(f"{unseen} of {len(self.loader.rows)} pictures were not reached in {self.done} steps")
        for loader in (self.loader, self.prior):
            if loader and (dropped := sum(times for (_, text), times in loader.used.items() if not text)):
                notes.append(f"{dropped} times a {loader.role} picture was shown without its caption (caption_dropout)")
        known = {(image_id, tidy(text)) for image_id, texts in self.loader.rows for text in texts}
        if unused := len(known - self.loader.used.keys()):
            notes.append(f"{unused} of {len(known)} captions were never given to the model (caption = {self.settings.caption})")
        if self.skipped:
            notes.append(f"{self.skipped} steps had no finite loss or gradient and changed nothing")
        return notes

    def ledger(self) -> list[CaptionUse]:
        """Every text that the model was really given, how often, and what the tokenizer cut of it."""
        return [use for loader in (self.loader, self.prior) if loader for use in loader.ledger()]


def training_size(family: Family, settings: TrainSettings) -> tuple[int, int]:
    """Height and width in pixels: as set, or as the base was made. Raises ConfigError when the family cannot take them."""
    height, width = (settings.resolution * 2)[:2] if settings.resolution else (family.native_size, family.native_size)
    if height % family.divides or width % family.divides:
        raise ConfigError(
            f"{height}x{width} cannot be trained; both must be multiples of {family.divides}",
            where="training: resolution",
            case=1,
        )
    return height, width
