"""What a path holds, and so which source reads it: COCO, a saved subset, Parquet, a list of concepts, one's own pictures."""

import os
import re
import weakref
from pathlib import Path
from typing import Any

import datasets

from ..errors import ConfigError, SourceError, nearest
from . import saved
from .base import Findings, Source
from .called import called
from .captioned import Captioned
from .coco import Coco
from .concepts import Concepts, is_concepts
from .folder import Folder
from .metadata import NAMES
from .scan import SPLIT
from .spool import remove
from .subset import flag
from .table import Table
from .where import meant

TAKEN: dict[type, tuple[str, ...]] = {
    Coco: ("split",),
    Concepts: ("ignore_captions", "caption_column", "repair"),
    Folder: ("prompt", "ignore_captions", "caption_column", "split", "repair"),
    Table: ("prompt", "ignore_captions", "caption_column", "image_column", "split"),
}
"""Options of each; one that is given and not taken is an error."""


def source_of(path: Path, **options: Any) -> Source:
    """The source for a folder, or for a file that is a list of concepts.

    `options`: prompt, ignore_captions, caption_column, image_column, split, repair; None and False are as if not given. Raises
    SourceError when nothing is there, ConfigError for an option that this kind does not have.
    """
    told = {name: value for name, value in options.items() if value not in (None, False)}
    kind = kind_of(path)
    for name in told:
        if name not in TAKEN[kind]:
            what = f"is not for {WORDS[kind]}; {nearest(name, TAKEN[kind])}"
            raise ConfigError(what, where=name, fix="leave it out", case=1)
    if kind is Coco:
        beside = _captions_of(path)
        return (
            Coco(beside, path, **{"split": path.resolve().name, **told}) if beside else Coco(path / "annotations", path, **told)
        )
    if kind is Table:
        return _table(path, **told)
    return Concepts(path, **told) if kind is Concepts else Folder(path, **told)


WORDS = {Coco: "a COCO folder", Concepts: "a list of concepts", Folder: "a folder of pictures", Table: "a table"}


def kind_of(path: Path) -> type:
    """Raises SourceError when there is nothing, or a file that is no list of concepts."""
    if is_concepts(path):
        return Concepts
    if path.is_file():
        raise SourceError("is a file", where=path, fix="name the folder that holds the pictures", case=9)
    if not path.is_dir():
        raise SourceError(f"there is no such folder{meant(path)}", where=path, case=9)
    if any((path / "annotations").glob("captions_*.json")) or _captions_of(path):
        return Coco
    return Table if saved.is_saved(path) or tables_in(path) else Folder


def _table(path: Path, split: str | None = None, **told: Any) -> Table:
    findings = Findings()
    named: dict[str, Any] = {"label": called(path, findings), "findings": findings}
    named["asked"] = tuple(flag("split", split)) if split else ()
    if saved.is_saved(path):
        if split not in (None, "train"):
            raise SourceError(f"has no split {split!r}, only train", where=path, fix="leave it out", case=9)
        data = Captioned.open(path)
        read = {f"{named['label']}/{saved.FACTS}": path / saved.FACTS}
        return freed(Table(data.dataset, before=data.record, read=read, **named, **told))
    parts = parquet_splits(path)
    if split is None and len(parts) > 1:
        fix = f"say which: split={next(iter(parts))!r} (--split {next(iter(parts))})"
        raise SourceError(f"holds several sets: {', '.join(parts)}", where=path, fix=fix, case=9)
    if split is not None and split not in parts:
        raise SourceError(f"has no split {split!r}; {nearest(split, parts)}", where=path, fix="name one that is there", case=9)
    files = parts.get(split or "") or [file for part in parts.values() for file in part]
    read = {file.relative_to(path).as_posix(): file for file in files}
    return freed(Table(datasets.Dataset(saved.parquet(path, files)), read=read, **named, **told))


def freed(table: Table) -> Table:
    """Its rows go from the disk with it: nobody else has them, for what is read from it is written anew."""
    for held in table.dataset.cache_files:
        weakref.finalize(table, remove, Path(held["filename"]), os.getpid())
    return table


def parquet_splits(path: Path) -> dict[str, list[Path]]:
    """Split -> its files, told as stock `datasets` does: by the file's name (test-00000-of-00002.parquet) or its folder's. Files
    that tell nothing are train; train comes first."""
    parts: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        if file.name != "metadata.parquet":
            words = [*file.relative_to(path).parts[:-1], re.split(r"[-_.]", file.name)[0]]
            split = next((word for word in words if SPLIT.fullmatch(word)), "train")
            parts.setdefault(split, []).append(file)
    return dict(sorted(parts.items(), key=lambda part: (part[0] != "train", part[0])))


def _captions_of(path: Path) -> Path | None:
    """val2017/ has its captions in ../annotations/captions_val2017.json, unless it has its own."""
    home = path.resolve().parent / "annotations"
    own = (path / name for name in NAMES)
    return home if (home / f"captions_{path.resolve().name}.json").is_file() and not any(file.exists() for file in own) else None


def tables_in(path: Path) -> bool:
    """Whether pictures lie in Parquet below; a metadata.parquet holds only what is said of them."""
    return any(file.name != "metadata.parquet" for file in path.rglob("*.parquet"))
