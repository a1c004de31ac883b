"""`load_captioned` and `as_captioned`: whatever holds captioned pictures becomes a `Captioned`."""

import re
from pathlib import Path
from typing import Any, TypeAlias

import datasets

from ..errors import ConfigError, SourceError, nearest
from . import saved
from .addresses import SECURE
from .base import Findings, Source
from .captioned import Captioned
from .coco import Coco
from .downloads import Downloads
from .gather import Choice, OnBad, Pixels, gather
from .kinds import source_of
from .passing import Rows
from .remote import table_of_hub
from .subset import Subset
from .table import Table
from .where import expanded, meant

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB = "hf://datasets/"
"""Before an id: the Hub is meant, whatever lies here. Stock `datasets` takes it too."""
Splits: TypeAlias = datasets.DatasetDict | datasets.IterableDatasetDict
ADDRESS = re.compile("https?://")
ONLY = {"on_bad_image": ("error", "skip"), "pixels": ("embedded", "none")}
"""Argument -> what it may be."""


def load_captioned(
    source: str | Path | Captioned | Rows | Splits,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    split: str | None = None,
    prompt: str | None = None,
    ignore_captions: bool = False,
    caption_column: str | None = None,
    image_column: str | None = None,
    repair: bool = False,
    config: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    strict: bool = False,
    on_bad_image: OnBad = "error",
    pixels: Pixels = "embedded",
    progress: bool = False,
    subset: Subset | None = None,
    **choosing: Any,
) -> Captioned:
    """Captioned pictures, each decoded in full.

    `source`: `"coco"` (with `annotations` and `images`, see `Coco`; what is not given is fetched: the official annotations of
    `split`, and of the pictures the chosen ones; `images` may be the https address of a mirror), a folder (your own pictures, a saved
    subset, Parquet, COCO's layout), a concepts_list.json, the id of a dataset on the Hub (with `split`, `config`, `revision`;
    `streaming` stores nothing but the chosen pictures), or rows of `datasets` itself: a table, a stream, the `split` of several, a
    `Captioned`. A `Path` is always a folder, `hf://datasets/user/name` always the Hub; a bare `user/name` is the folder of that name
    where there is one, and an error where one of nearly that name is. `choosing`: the fields of `Subset` (category="dog", count=100,
    seed=0, license="commercial" ...), or `subset` itself. `prompt`: one caption for all.
    `caption_column`, `image_column`: of a table whose names do not tell. `repair`: leave out a last line of metadata that is cut
    short. `strict`: whatever would be left out through a fault is an error. `on_bad_image`: a picture that is missing or broken is an
    error, or is skipped and counted. `pixels="none"`: no picture is read; rows have addresses, captions and licences, and stock
    `datasets` fetches a picture when it is looked at.

    The rows lie in a file below HF_HOME (about as large as the pictures) while this process lives. Memory does not grow with the
    pictures' size; the captions and names of those that are read through stay in it, about 2 KB a picture.
    Raises SourceError for data that are not as they should be, ConfigError for arguments that do not go together, StorageError when
    the disk is full.
    """
    for option, value in (("on_bad_image", on_bad_image), ("pixels", pixels)):
        if value not in ONLY[option]:
            raise ConfigError(f"is {' or '.join(map(repr, ONLY[option]))}, not {value!r}", where=option, case=1)
    if subset is not None and choosing:
        raise ConfigError(f"is given beside {min(choosing)}", where="subset", fix="give one of the two", case=1)
    wanted = Subset.of(**choosing) if subset is None else subset
    chosen = Choice(wanted, strict, on_bad_image, progress, pixels)
    hub = {"config": config, "revision": revision, "streaming": streaming or None}
    tables: dict[str, Any] = {"prompt": prompt, "ignore_captions": ignore_captions, "caption_column": caption_column}
    tables |= {"image_column": image_column}
    of_folders = {**tables, "repair": repair}
    if isinstance(source, str) and source == "coco":
        _unused(hub, "is for datasets of the Hub")
        _unused(of_folders, "is for folders and tables; COCO has pictures and captions of its own")
        return gather(_coco(annotations, images, split, progress), chosen)
    if annotations or images:
        raise ConfigError('annotations and images belong to source "coco"', where=source, case=1)
    if not isinstance(source, str | Path):
        _unused({**hub, "repair": repair}, "is for folders and datasets of the Hub")
        return gather(_table(source, split, tables), chosen)
    if (name := _on_hub(source, any(hub.values()))) is not None:
        _unused({"repair": repair}, "is for folders")
        where: dict[str, Any] = {"config": config, "split": split, "revision": revision, "streaming": streaming}
        return gather(table_of_hub(name, **where, **tables), chosen)
    _unused(hub, "is for datasets of the Hub", f"leave it out, or say {HUB}user/name where the Hub is meant")
    path = expanded(source)
    if saved.is_saved(path) and wanted == Subset() and pixels == "embedded" and not any((*of_folders.values(), split)):
        return Captioned.open(path)
    return gather(source_of(path, **of_folders, split=split), chosen)


def as_captioned(data: Captioned | Rows | Splits | str | Path) -> Captioned:
    """Whatever holds captioned pictures: a `Captioned`, a `datasets.Dataset`, a stream (all of it, so `take` some first), several of
    them by split (`train`, or the only one), a folder, a Hub id. Raises SourceError."""
    if isinstance(data, Captioned):
        return data
    return load_captioned(data, split="train" if isinstance(data, Splits) and "train" in data else None)


def _table(source: Any, split: str | None, options: dict[str, Any]) -> Table:
    """Rows in memory as a source: a `Captioned`, which goes on telling where it is from, a table, a stream, or one of several."""
    notes: list[str] = []
    if isinstance(source, Splits):
        source, notes = _one_of(source, split)
    elif split is not None:
        raise ConfigError("is for folders and datasets of the Hub", where="split", fix="leave it out", case=1)
    if isinstance(source, Captioned):
        return Table(source.dataset, before=source.record, **options)
    if not isinstance(source, Rows):
        fix = "give a Dataset, a folder or an id of the Hub"
        raise SourceError(f"is a {type(source).__name__}, not a datasets.Dataset", where="dataset", fix=fix, case=9)
    table = Table(source, **options)
    table.findings.notes += notes
    return table


def _one_of(data: Splits, split: str | None) -> tuple[Rows, list[str]]:
    """The rows of the split, or of the only one, and a note on the others."""
    names = [str(name) for name in data]
    if split is None and len(names) == 1:
        return data[names[0]], [f"the split is {names[0]}, the only one"] if names[0] != "train" else []
    if split not in names:
        what = f"has no split {split!r}; {nearest(split, names)}" if split else f"holds {len(names)} sets: {', '.join(names)}"
        fix = f"say which: split={names[0]!r}" if names else "give one that has rows"
        raise SourceError(what, where="dataset", fix=fix, case=9)
    others = ", ".join(name for name in names if name != split)
    return data[split], [f"the split is {split}; not read: {others}"] if others else []


def _on_hub(source: str | Path, told: bool) -> str | None:
    """The id of the dataset of the Hub that is meant, None for something on this disk. `told`: something was said that only a dataset
    of the Hub has. Raises SourceError for what is most likely the mistyped path of a folder: the Hub would be asked for half a minute,
    and might even have a dataset of that name."""
    if not isinstance(source, str):
        return None
    if source.startswith(HUB):
        name = source.removeprefix(HUB)
        if not HUB_ID.fullmatch(name):
            raise SourceError("is no id of a dataset of the Hub", where=source, fix=f"say {HUB}user/name", case=9)
        return name
    path = expanded(source)
    if not HUB_ID.fullmatch(source) or path.exists():
        return None
    if not told and ((near := meant(path)) or path.parent.is_dir()):
        fix = f"mend the path; where the Hub is meant, say {HUB}{source}"
        raise SourceError(f"there is no such folder{near}", where=source, fix=fix, case=9)
    return source


def _coco(annotations: str | Path | None, images: str | Path | None, split: str | None, progress: bool) -> Source:
    """COCO on disk, or what is not said of it from the web: `images` may be a folder, `https`, or the address of a mirror."""
    findings = Findings()
    mirror = is_web(images) and images != "https"
    downloads = Downloads(str(images) if mirror else SECURE, progress=progress, findings=findings)
    here = None if images is None or is_web(images) else expanded(images)
    return Coco(expanded(annotations) if annotations else None, here, split, downloads, findings)


def is_web(images: str | Path | None) -> bool:
    """Whether the pictures are to be fetched: `https`, or the address of a mirror."""
    return images == "https" or (isinstance(images, str) and ADDRESS.match(images) is not None)


def _unused(options: dict[str, Any], why: str, fix: str = "leave it out") -> None:
    """An option that would not be used is an error."""
    for name, value in options.items():
        if value not in (None, False):
            raise ConfigError(why, where=name, fix=fix, case=1)
