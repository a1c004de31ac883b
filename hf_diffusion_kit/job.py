"""One run from settings to a folder that explains itself: check first, train, write, load back, look, record."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from . import bases
from .class_pictures import class_pictures
from .data import Captioned, as_captioned, load_captioned
from .data.captions import tidy
from .errors import ConfigError, ModelError, StorageError
from .evaluation import Shot, difference, draw
from .families import Family, detect
from .formats import FORMATS
from .hardware import hardware, pick_device, versions
from .recipe import DataSettings, Recipe
from .records import DataRecord, RunRecord, Shown, Verified, Weights
from .run import IMAGES, RECORD, SETTINGS, Run
from .sheet import Cell, sheet
from .training.checkpoint import steps_in
from .training.trainer import Trainer, training_size

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of a pixel in [0, 1] between the trained pipeline and the one loaded back. On a CPU in float32 it is 0;
in bfloat16 a stock reader rounds the adapter to the base's own precision."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    recipe: Recipe
    folder: Path
    base: bases.Base
    data: Captioned
    class_data: Captioned | None = None
    say: Say = print
    progress: bool = True


def train(
    recipe: Recipe,
    folder: Path,
    *,
    data: Any = None,
    class_data: Any = None,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    say: Say = print,
    progress: bool = True,
) -> Run:
    """Runs a recipe in a folder. `data`: captioned pictures that are at hand already (else `recipe.data` says where they are).

    `resume` goes on from the newest valid checkpoint; without it a folder that holds a run is refused. Raises the errors of
    errors.py; whatever stops it, the folder can be resumed.
    """
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".lock"
        try:
            with FileLock(lock, timeout=0):
                return _train(recipe, folder, data, class_data, resume, allow_change, say, progress)
        finally:
            if new and list(folder.iterdir()) == [lock]:  # nothing came of it: leave nothing behind
                lock.unlink()
                folder.rmdir()
    except Timeout:
        raise StorageError(
            "another run works in this folder", where=folder, fix="wait for it, or name another --out", case=8
        ) from None
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise StorageError(
            f"cannot be written: {error.strerror}", where=folder, fix="name a folder you may write", case=3
        ) from error


def _train(
    recipe: Recipe, folder: Path, data: Any, class_data: Any, resume: bool, allow: Sequence[str], say: Say, progress: bool
) -> Run:
    started, begun = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), time.monotonic()
    if not resume and (steps_in(folder) or (folder / RECORD).exists()):
        raise StorageError("holds a run already", where=folder, fix=f"hfdk resume {folder}, or name another folder", case=8)
    rows = as_captioned(data) if data is not None else load_data(recipe.data, progress=progress)
    if not len(rows):
        raise ConfigError("there is not one picture to train on", where="data", case=10)
    base = bases.resolve(recipe.base.id, revision=recipe.base.revision, license_id=recipe.base.license)
    job = Job(recipe, folder, base, rows, None, say, progress)
    if recipe.publish.repo:
        preflight(job)
    family = open_family(job)
    training_size(family, recipe.training)
    if not resume:
        recipe.write(folder / SETTINGS)
    if recipe.method.wants_prior:
        job = replace(job, class_data=class_rows(job, family, class_data))
    shots = gallery_shots(job, family)
    before = draw(family.pipe, shots, title="gallery before" if progress else None)
    trainer = Trainer(
        family,
        recipe.method,
        recipe.training,
        rows,
        class_data=job.class_data,
        folder=folder,
        identity={"base": base.identity},
        say=say,
        progress=progress,
    )
    if resume and (step := trainer.resume(allow=allow)):
        finished = step >= recipe.training.steps
        say(f"already at {step}/{recipe.training.steps}" if finished else f"resumed at step {step} of {recipe.training.steps}")
    recipe.write(folder / SETTINGS)  # on a resume only now, when its changes were allowed
    trainer.fit()
    family.to(family.device, encoders=True)
    weights, verified, fresh = write_and_verify(job, family, shots[0])
    gallery = save_gallery(job, shots, before, draw(fresh, shots, title="gallery after" if progress else None))
    record = make_record(job, trainer, gallery, weights, verified, started=started, seconds=time.monotonic() - begun)
    record.save(folder / RECORD)
    return Run(folder, record)


def load_data(settings: DataSettings, *, progress: bool = False) -> Captioned:
    """What section `[data]` describes. Raises ConfigError when it describes nothing."""
    if settings.annotations or settings.images:
        return load_captioned(
            "coco",
            annotations=settings.annotations,
            images=settings.images,
            category=list(settings.category) or None,
            count=settings.count,
            seed=settings.seed,
            progress=progress,
        )
    if settings.path is None:
        raise ConfigError(
            "there are no pictures", where="data", fix="set data.path, or data.annotations and data.images", case=10
        )
    return load_captioned(settings.path, prompt=settings.prompt, ignore_captions=settings.ignore_captions, progress=progress)


def preflight(job: Job) -> None:
    """Would the push at the end be let in? Asked before the first step."""
    from .hub.choice import open_door
    from .hub.preflight import preflight as ask

    told = job.recipe.publish
    with open_door(told.hub) as door:
        metadata = {"license": job.base.pinned.license, "library_name": "diffusers"}
        found = ask(door, str(told.repo), private=told.private, card_metadata=metadata)
    job.say(
        f"publish: {found.repo_id} as {found.user}, {'there already' if found.exists else 'new'}, {'private' if found.private else 'public'}"
    )


def open_family(job: Job) -> Family:
    bf16 = job.recipe.training.mixed_precision == "bf16"
    kind = detect(job.base.location, revision=job.base.revision)
    family = kind.open(job.base.location, revision=job.base.revision, dtype=torch.bfloat16 if bf16 else torch.float32)
    family.to(pick_device(job.recipe.base.device), encoders=True)
    return family


def solver(job: Job) -> tuple[int, float]:
    """Steps and guidance of every picture that this run draws."""
    told = job.recipe.gallery
    steps = told.steps or (10 if job.base.embedded else 25)
    return steps, told.guidance if told.guidance is not None else (2.0 if job.base.embedded else 7.5)


def class_rows(job: Job, family: Family, given: Any) -> Captioned:
    """The class pictures: given, in a folder, or made by the base."""
    if given is not None:
        return as_captioned(given)
    if job.recipe.data.class_path:
        return load_captioned(job.recipe.data.class_path)
    method: Any = job.recipe.method
    if not method.class_prompts:
        raise ConfigError(
            "prior preservation needs class pictures",
            where="method: class_prompts",
            fix='say what the class is, e.g. class_prompts = ["a photo of a dog"], or set prior_weight = 0',
            case=7,
        )
    steps, guidance = solver(job)
    size = training_size(family, job.recipe.training)
    shots = [
        Shot(tidy(method.class_prompts[i % len(method.class_prompts)]), i, steps, guidance, size)
        for i in range(method.class_count)
    ]
    return class_pictures(family.pipe, shots, job.folder / "class_images", base=job.base.identity, progress=job.progress)


def gallery_shots(job: Job, family: Family) -> list[Shot]:
    told = job.recipe.gallery
    captions = [tidy(text) for text in told.captions]
    if not captions:
        rows = job.data.dataset["captions"][: told.count]
        captions = [tidy(texts[0]) for texts in rows]
    steps, guidance = solver(job)
    size = training_size(family, job.recipe.training)
    return [Shot(caption, told.seed + i, steps, guidance, size) for i, caption in enumerate(captions)]


def write_and_verify(job: Job, family: Family, shot: Shot) -> tuple[list[Weights], list[Verified], Any]:
    """Writes the adapter, opens it as anybody else would, and compares one picture. Returns the reopened pipeline too."""
    form = FORMATS["diffusers-lora"]
    written = form.write(family, job.folder)
    fresh = form.read(type(family), job.base.location, job.folder, revision=job.base.revision, dtype=family.dtype)
    fresh.to(family.device)
    apart = difference(family.pipe, fresh, shot)
    if not apart <= TOLERANCE[family.dtype]:
        raise ModelError(
            f"opens as another model than was trained: pixels differ by {apart:.3f}", where=job.folder / form.name, case=4
        )
    weights = [
        Weights(path.name, form.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in written.files
    ]
    return weights, [Verified(form.name, written.reader, shot.caption, shot.seed, apart)], fresh


def save_gallery(job: Job, shots: Sequence[Shot], before: Sequence[Any], after: Sequence[Any]) -> list[Shown]:
    folder = job.folder / IMAGES
    folder.mkdir(exist_ok=True)
    shown = []
    for i, (shot, old, new) in enumerate(zip(shots, before, after, strict=True)):
        names = (f"{i:02d}.png", f"{i:02d}-before.png")
        for name, picture in zip(names, (new, old), strict=True):
            picture.save(folder / name)
        after_name, before_name = (f"{IMAGES}/{name}" for name in names)
        shown.append(Shown(after_name, shot.caption, shot.seed, shot.steps, shot.guidance, before_name))
    rows = [
        [Cell(picture) for picture in before],
        [Cell(picture, shot.caption) for picture, shot in zip(after, shots, strict=True)],
    ]
    sheet(rows, row_labels=("before", "after"), title=f"{job.recipe.base.id} + {job.recipe.method.name}").save(
        folder / "before_after.png"
    )
    return shown


def make_record(
    job: Job,
    trainer: Trainer,
    gallery: list[Shown],
    weights: list[Weights],
    verified: list[Verified],
    *,
    started: str,
    seconds: float,
) -> RunRecord:
    recipe, data, settings = job.recipe, job.data, job.recipe.training
    told = sum(len({tidy(text) for text in texts}) for texts in data.dataset["captions"])
    counts: dict[str, int] = {}
    for part in trainer.trained:
        counts[part.part] = sum(p.numel() for p in part.parameters.values())
    return RunRecord(
        name=job.folder.resolve().name,
        family=trainer.family.name,
        method=recipe.method.name,
        base_model=job.base.pinned,
        data=DataRecord(
            data.source, len(data), data.fingerprint, data.recipe, dict(data.licenses), dict(data.left_out), captions=told
        ),
        settings=recipe.public(),
        steps=trainer.done,
        samples=trainer.done * settings.batch_size * settings.gradient_accumulation_steps,
        losses=stretches(trainer.losses),
        versions=versions(),
        hardware={**hardware(trainer.device), "seconds_a_step": round(trainer.seconds_a_step, 4)},
        seconds=round(seconds, 1),
        captions=trainer.ledger(),
        parameters=counts,
        gallery=gallery,
        weights=weights,
        verified=verified,
        notes=[*data.notes, *trainer.notes()],
        started=started,
        command=recipe.command(data_name(job), job.folder.resolve().name),
    )


def data_name(job: Job) -> str:
    """The data as the command that makes the run again calls them: the subset's folder, as its own recipe names it."""
    words = (job.data.recipe or "").split()
    return words[words.index("--out") + 1] if "--out" in words else Path(job.recipe.data.path or "data").name


def stretches(losses: Sequence[float], most: int = 200) -> list[float]:
    """Means over at most `most` equal stretches of the run."""
    size = max(1, -(-len(losses) // most))
    groups = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [round(sum(group) / len(group), 6) for group in groups]
