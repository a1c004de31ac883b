"""`load_captioned` and `as_captioned`: whatever holds captioned pictures becomes a `Captioned`."""

import re
from pathlib import Path
from typing import Any

import datasets

from ..errors import ConfigError, SourceError
from . import saved
from .addresses import SECURE
from .base import Findings, Source
from .captioned import Captioned
from .coco import Coco
from .downloads import Downloads
from .gather import Choice, OnBad, Pixels, gather
from .kinds import source_of
from .remote import table_of_hub
from .subset import Subset
from .table import Table
from .where import expanded

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADDRESS = re.compile("https?://")
ONLY = {"on_bad_image": ("error", "skip"), "pixels": ("embedded", "none")}
"""Argument -> what it may be."""


def load_captioned(
    source: str | Path | datasets.Dataset | datasets.IterableDataset,
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
    `streaming` stores nothing but the chosen pictures), or a table or stream of `datasets` itself. `choosing`: the fields of `Subset`
    (category="dog", count=100, seed=0, license="commercial" ...), or `subset` itself. `prompt`: one caption for all.
    `caption_column`, `image_column`: of a table whose names do not tell. `repair`: leave out a last line of metadata that is cut
    short. `strict`: whatever would be left out through a fault is an error. `on_bad_image`: a picture that is missing or broken is an
    error, or is skipped and counted. `pixels="none"`: no picture is read; rows have addresses, captions and licences, and stock
    `datasets` fetches a picture when it is looked at.

    The rows lie in a file below HF_HOME (about as large as the pictures) while this process lives. Memory does not grow with the
    pictures' size; the captions and names of those that are read through stay in it, about 2 KB a picture.
    Raises SourceError for data that are not as they should be, ConfigError for arguments that do not go together, StorageError when
    the disk is full.
    """
    for name, value in (("on_bad_image", on_bad_image), ("pixels", pixels)):
        if value not in ONLY[name]:
            raise ConfigError(f"is {' or '.join(map(repr, ONLY[name]))}, not {value!r}", where=name, case=1)
    if subset is not None and choosing:
        raise ConfigError(f"is given beside {min(choosing)}", where="subset", fix="give one of the two", case=1)
    wanted = Subset.of(**choosing) if subset is None else subset
    chosen = Choice(wanted, strict, on_bad_image, progress, pixels)
    hub = {"config": config, "revision": revision, "streaming": streaming or None}
    of_tables: dict[str, Any] = {"prompt": prompt, "ignore_captions": ignore_captions, "caption_column": caption_column}
    of_tables |= {"image_column": image_column, "repair": repair}
    if isinstance(source, str) and source == "coco":
        _unused(hub, "is for datasets of the Hub")
        _unused(of_tables, "is for folders and tables; COCO has pictures and captions of its own")
        return gather(_coco(annotations, images, split, progress), chosen)
    if annotations or images:
        raise ConfigError('annotations and images belong to source "coco"', where=source, case=1)
    if isinstance(source, datasets.Dataset | datasets.IterableDataset):
        _unused({**hub, "split": split, "repair": repair}, "is for folders and datasets of the Hub")
        return gather(Table(source, **{name: value for name, value in of_tables.items() if name != "repair"}), chosen)
    path = expanded(source)
    if path.exists() or not HUB_ID.fullmatch(str(source)):
        _unused(hub, "is for datasets of the Hub")
        if saved.is_saved(path) and wanted == Subset() and pixels == "embedded" and not any((*of_tables.values(), split)):
            return Captioned.open(path)
        return gather(source_of(path, **of_tables, split=split), chosen)
    _unused({"repair": repair}, "is for folders")
    options = {name: value for name, value in of_tables.items() if name != "repair"}
    where: dict[str, Any] = {"config": config, "split": split, "revision": revision, "streaming": streaming}
    return gather(table_of_hub(str(source), **where, **options), chosen)


def as_captioned(data: Captioned | datasets.Dataset | datasets.IterableDataset | str | Path) -> Captioned:
    """Whatever holds captioned pictures: a `Captioned`, a `datasets.Dataset`, a stream (all of it, so `take` some first), a folder,
    a Hub id. Raises SourceError."""
    if isinstance(data, Captioned):
        return data
    if isinstance(data, (str, Path)):
        return load_captioned(data)
    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        if "train" not in data:
            raise SourceError(f"has no split train, only {', '.join(data)}", where="dataset", fix="give one split", case=9)
        data = data["train"]
    if not isinstance(data, datasets.Dataset | datasets.IterableDataset):
        what = f"is a {type(data).__name__}, not a datasets.Dataset"
        raise SourceError(what, where="dataset", fix="give a Dataset, a folder or an id of the Hub", case=9)
    return gather(Table(data), Choice(Subset()))


def _coco(annotations: str | Path | None, images: str | Path | None, split: str | None, progress: bool) -> Source:
    """COCO on disk, or what is not said of it from the web: `images` may be a folder, `https`, or the address of a mirror."""
    findings = Findings()
    address = str(images) if images is not None and ADDRESS.match(str(images)) else SECURE
    downloads = Downloads(address, progress=progress, findings=findings)
    here = None if images is None or images == "https" or ADDRESS.match(str(images)) else expanded(images)
    return Coco(expanded(annotations) if annotations else None, here, split, downloads, findings)


def _unused(options: dict[str, Any], why: str) -> None:
    """An option that would not be used is an error."""
    for name, value in options.items():
        if value not in (None, False):
            raise ConfigError(why, where=name, fix="leave it out", case=1)
