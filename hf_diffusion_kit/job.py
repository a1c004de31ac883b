"""One run from settings to a folder that explains itself: check first, train, then hand over to `outcome`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from . import bases
from .class_pictures import class_pictures
from .data import Captioned, as_captioned, load_captioned
from .data.captions import in_template, tidy
from .data.check import check
from .errors import ConfigError, KitError, ModelError, StorageError
from .evaluation import Shot, draw
from .families import Family, detect
from .hardware import pick_device
from .lora_files import begun
from .outcome import Outcome, finish
from .recipe import DataSettings, Recipe
from .run import RECORD, SETTINGS, Run
from .training import optimizers, sharding
from .training.checkpoint import left_on_disk, steps_in
from .training.processes import ALONE, Processes, join, shared_device
from .training.shortage import memory_ended
from .training.size import training_size
from .training.trackers import chosen
from .training.trainer import Trainer
from .watch import Watch

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    recipe: Recipe
    folder: Path
    base: bases.Base
    say: Say = print
    progress: bool = True
    processes: Processes = ALONE


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
    """Runs a recipe in a folder. `data`: captioned pictures that are at hand already (else `recipe.data` says where they are);
    they are kept in the run's folder, so that it can be resumed by itself.

    `resume` goes on from the newest valid checkpoint; without it a folder that holds a run is refused. Started as one of several
    processes (torchrun, `accelerate launch`, `hfdk train --processes`) it does its share, and rank 0 writes. Raises the errors of
    errors.py; once run.toml is there, whatever stops the run, `hfdk resume` goes on.
    """
    processes = join(pick_device(shared_device(recipe.base.device)))
    say, progress = (say, progress) if processes.main else (silent, False)
    with one_line(folder), locked(folder) if processes.main else nullcontext():
        if processes.main and not resume and (steps_in(folder) or (folder / RECORD).exists()):
            raise StorageError("holds a run already", where=folder, fix=f"hfdk resume {folder}, or name another folder", case=8)
        if processes.main:
            recipe = replace(recipe, data=kept(recipe, folder, data, class_data))
        processes.wait()
        if not processes.main:  # what rank 0 was given in memory lies there now
            recipe = replace(recipe, data=found(recipe, folder, data, class_data))
        return _train(recipe, folder, resume, allow_change, say, progress, processes)


def silent(text: str) -> None:
    """What rank 0 says is enough."""


def _train(
    recipe: Recipe, folder: Path, resume: bool, allow: Sequence[str], say: Say, progress: bool, processes: Processes
) -> Run:
    optimizers.check(recipe.training)
    sharding.check(recipe.training, recipe.method)
    chosen(recipe.training.report_to)
    base = bases.resolve(recipe.base.id, revision=recipe.base.revision, license_id=recipe.base.license, config=recipe.base.config)
    rows = load_data(recipe.data, progress=progress)
    held = load_captioned(recipe.training.validation_path, progress=progress) if recipe.training.validation_path else None
    start = begun(recipe.method)
    recipe = replace(
        recipe, base=replace(recipe.base, revision=base.revision), method=start.told
    )  # a resume must see the same commit
    job = Job(replace(recipe, method=start.here), folder, base, say, progress, processes)
    if recipe.publish.repo and processes.main:
        preflight(job)
    family = open_family(job)
    missing_words(job, rows)
    if processes.main:
        examine(job, family, rows)
        if not resume:
            recipe.write(folder / SETTINGS)
    classes = class_rows(job, family, rows)
    shots = gallery_shots(job, family, rows)
    before = draw(family.pipe, shots, title="gallery before" if progress else None) if processes.main else []
    given: dict[str, Any] = {
        "class_data": classes,
        "validation_data": held,
        "folder": folder,
        "identity": {"base": base.identity, **start.identity},
    }
    trainer = Trainer(family, start.here, recipe.training, rows, **given, processes=processes, say=say, progress=progress)
    if resume and (step := trainer.resume(allow=allow)):
        finished = step >= recipe.training.steps or trainer.ended_early
        say(f"already at {step}/{recipe.training.steps}" if finished else f"resumed at step {step} of {recipe.training.steps}")
    if processes.main:
        recipe.write(folder / SETTINGS)  # on a resume only now, when its changes were allowed
    for line in start.notes:
        say(line)
    for line in trainer.loader.buckets.lines() if recipe.training.buckets else []:
        say(line)
    watch = Watch(trainer, recipe, folder, shots, before, f"{base.pinned.id} + {recipe.method.name}", say)
    try:
        trainer.fit()
    finally:
        watch.end()
    trainer.gather()
    if processes.main:
        recipe.write(folder / SETTINGS)  # in case the folder was removed while the run ran
        finish(Outcome(recipe, folder, base, rows, trainer, shots, before, progress, [*start.notes, *watch.notes]))
    processes.wait()
    return Run.open(folder)


def loop(recipe: Recipe, data: Any, *, class_data: Any = None, say: Say = print) -> Trainer:
    """The loop of a run by itself, for notebooks: nothing is kept, drawn or written. Raises the errors of errors.py."""
    base = bases.resolve(recipe.base.id, revision=recipe.base.revision, license_id=recipe.base.license, config=recipe.base.config)
    rows = as_captioned(data) if not isinstance(data, str | Path) else load_captioned(data)
    start = begun(recipe.method)
    job = Job(replace(recipe, method=start.here), Path(), base, say, False)
    family = open_family(job)
    missing_words(job, rows)
    classes = None if class_data is None else as_captioned(class_data)
    told: dict[str, Any] = {"class_data": classes, "identity": {"base": base.identity, **start.identity}, "say": say}
    return Trainer(family, start.here, recipe.training, rows, **told)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; a folder of which nothing came is not left behind."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise StorageError(
            "another run works in this folder", where=folder, fix="wait for it, or name another --out", case=8
        ) from None
    finally:
        if new and list(folder.iterdir()) == [lock]:
            lock.unlink()
            folder.rmdir()


@contextmanager
def one_line(folder: Path) -> Iterator[None]:
    """What the machine refuses, in one line: a full disk, a folder that cannot be written, memory that is used up."""
    try:
        yield
    except KitError:
        raise
    except (OSError, SafetensorError) as error:
        where = getattr(error, "filename", None) or folder
        said = getattr(error, "strerror", None) or str(error)
        if "o space left" in said:
            said = f"{said} ({left_on_disk(folder)})"
        fix = "make room or name another folder; what was saved is untouched and `hfdk resume` goes on from it"
        raise StorageError(f"could not be read or written: {said}", where=where, fix=fix, case=3) from error
    except (MemoryError, RuntimeError) as error:
        if not memory_ended(error):
            raise
        fix = "training.batch_size=1, training.gradient_checkpointing=true, training.mixed_precision=bf16, or a smaller training.resolution"
        raise ModelError("the device's memory is used up", where=folder, fix=fix, case=6) from error


def kept(recipe: Recipe, folder: Path, data: Any, class_data: Any) -> DataSettings:
    """`[data]` with pictures that were given in memory saved in the run's folder. Raises ConfigError for what would go unused."""
    told = recipe.data
    if class_data is not None and not recipe.method.wants_prior:
        raise ConfigError(
            f"class pictures were given, and {recipe.method.name} as it is set uses none", where="class_data", case=7
        )
    if data is not None:
        told = replace(told, path=at_hand(data, folder / "data"))
    if class_data is not None:
        told = replace(told, class_path=at_hand(class_data, folder / "class_data"))
    return told


def at_hand(given: Any, folder: Path) -> str:
    """Where pictures lie that were given by their folder, or in memory: these are saved first."""
    if isinstance(given, str | Path):
        return str(given)
    rows = as_captioned(given)
    rows.need_pixels()
    return str(rows.save(folder))


def found(recipe: Recipe, folder: Path, data: Any, class_data: Any) -> DataSettings:
    """The same for the other processes, after rank 0 has saved it."""
    told = recipe.data
    if data is not None:
        told = replace(told, path=str(data if isinstance(data, str | Path) else folder / "data"))
    if class_data is not None:
        told = replace(told, class_path=str(class_data if isinstance(class_data, str | Path) else folder / "class_data"))
    return told


def load_data(settings: DataSettings, *, progress: bool = False) -> Captioned:
    """What section `[data]` describes. Raises ConfigError when it describes nothing, or two things."""
    told: dict[str, Any] = {"split": settings.split}
    if settings.annotations or settings.images:
        if settings.path or settings.prompt or settings.ignore_captions:
            raise ConfigError(
                "COCO annotations do not go with path, prompt or ignore_captions", where="data", fix="choose one source", case=1
            )
        told |= {"annotations": settings.annotations, "images": settings.images}
    elif settings.path is None:
        raise ConfigError(
            "there are no pictures", where="data", fix="set data.path, or data.annotations and data.images", case=10
        )
    else:
        told |= {name: getattr(settings, name) for name in ("prompt", "ignore_captions", "caption_column", "repair")}
    rows = load_captioned(settings.path or "coco", subset=settings.subset, progress=progress, **told)
    rows.need_pixels()
    return rows


def preflight(job: Job) -> None:
    """Would the push at the end be let in? Asked before the first step."""
    from .hub.choice import open_door
    from .hub.preflight import preflight as ask

    told = job.recipe.publish
    with open_door(told.hub) as door:
        metadata = {"license": job.base.pinned.license, "library_name": "diffusers"}
        found = ask(door, str(told.repo), private=told.private, card_metadata=metadata)
    there, seen = "there already" if found.exists else "new", "private" if found.private else "public"
    job.say(f"publish: {found.repo_id} as {found.user}, {there}, {seen}")


def examine(job: Job, family: Family, rows: Captioned) -> None:
    """What the doctor would say of these pictures at this size: told before the first step, and no reason to stop."""

    def count(text: str) -> int:
        told = family.count_tokens(text)
        return told.seen + told.cut

    size = min(training_size(family, job.recipe.training))
    most = max(family.lengths().values())
    try:
        report = check(rows, resolution=size, count_tokens=count, tokens=most, progress=job.progress)
    except KitError as error:  # training will meet it again where it matters
        job.say(f"data: the doctor could not look: {error}")
        return
    for line in report.advice:
        job.say(f"data: {line}")


def open_family(job: Job) -> Family:
    """The base on its device, and everything about it that can be known to fail tried before a picture is drawn."""
    recipe = job.recipe
    kind = detect(job.base.location, revision=job.base.revision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.training.mixed_precision, torch.float32)
    family = kind.open(job.base.location, revision=job.base.revision, dtype=dtype, quantize=recipe.training.quantize)
    training_size(family, recipe.training)
    family.objective(**recipe.training.objective_options())
    recipe.method.check(family)
    family.to(pick_device(shared_device(recipe.base.device)), encoders=True)
    return family


def missing_words(job: Job, rows: Captioned) -> None:
    """Raises ConfigError for a new word that no caption holds: it would never be trained."""
    template = job.recipe.training.caption_template or "{caption}"
    texts = (in_template(template, tidy(text)) for texts in rows.dataset["captions"] for text in texts)
    if missing := job.recipe.method.missing_tokens(texts):
        fix = f'put it into the captions, or set caption_template = "{{caption}}, {missing[0]}"'
        raise ConfigError(f"{missing[0]} stands in no caption, and would not be learnt", where="method: tokens", fix=fix, case=9)


def solver(job: Job, family: Family) -> tuple[int, float]:
    """Steps and guidance of every picture that this run draws."""
    told, usual = job.recipe.gallery, (10, 2.0) if job.base.embedded else family.usual_call()
    return told.steps or usual[0], usual[1] if told.guidance is None else told.guidance


def class_rows(job: Job, family: Family, rows: Captioned) -> Captioned | None:
    """The class pictures: in a folder, or made by the base; None where the method wants none."""
    method: Any = job.recipe.method
    path = job.recipe.data.class_path
    if method.name.startswith("dreambooth") and method.prior_by_base and not method.class_prompts:
        fix = 'say what the class is, e.g. class_prompts = ["a photo of a dog"], or set prior_weight = 0'
        raise ConfigError(
            "a prior by the base's answers needs words for the class", where="method: class_prompts", fix=fix, case=7
        )
    if not method.wants_prior:
        if path:
            raise ConfigError(f"is set, and {method.name} as it is set uses no class pictures", where="data: class_path", case=7)
        return None
    if path:
        if method.class_prompts:
            fix = "leave out one of the two; a folder's pictures bring their own captions"
            raise ConfigError("is set beside data.class_path", where="method: class_prompts", fix=fix, case=7)
        return told_apart(job, rows, load_captioned(path))
    if not method.class_prompts:
        fix = 'say what the class is, e.g. class_prompts = ["a photo of a dog"], or set prior_weight = 0'
        raise ConfigError("prior preservation needs class pictures", where="method: class_prompts", fix=fix, case=7)
    steps, guidance = solver(job, family)
    size = training_size(family, job.recipe.training)
    prompts = [tidy(text) for text in method.class_prompts]
    shots = [Shot(prompts[i % len(prompts)], i, steps, guidance, size) for i in range(method.class_count)]
    told: dict[str, Any] = {"base": job.base.identity, "progress": job.progress}
    if job.processes.main:
        class_pictures(family.pipe, shots, job.folder / "class_images", **told)
    job.processes.wait()
    return class_pictures(family.pipe, shots, job.folder / "class_images", **told)


def told_apart(job: Job, rows: Captioned, classes: Captioned) -> Captioned:
    """The class pictures of a folder. Raises ConfigError where they are the subject's own: a prior of these holds nothing in check."""
    subject, known = (set(one.dataset["sha256"]) for one in (rows, classes))
    both, where = subject & known, "data: class_path"
    if both in (subject, known):
        fix = "name a folder of other pictures of the class, or set class_prompts, from which they are made"
        raise ConfigError("holds the very pictures that are to be learnt", where=where, fix=fix, case=7)
    if both:
        job.say(f"{where}: {len(both)} of {len(known)} class pictures are also among those to be learnt")
    method: Any = job.recipe.method
    if len(classes) < method.class_count:
        job.say(
            f"{where}: {len(classes)} class pictures, fewer than class_count = {method.class_count}; each is shown more often"
        )
    return classes


def gallery_shots(job: Job, family: Family, rows: Captioned) -> list[Shot]:
    told = job.recipe.gallery
    captions = [tidy(text) for text in told.captions] or [tidy(texts[0]) for texts in rows.dataset["captions"][: told.pictures]]
    steps, guidance = solver(job, family)
    size = training_size(family, job.recipe.training)
    return [Shot(caption, told.seed + i, steps, guidance, size) for i, caption in enumerate(captions)]
