"""COCO captions (Chen et al. 2015) as a source: official layout, or single files, of 2014, 2017 or anybody's own."""

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import ConfigError, SourceError, nearest
from ..records import file_sha256
from .addresses import SECURE
from .archives import ARCHIVES
from .base import Findings, Row
from .called import harmless
from .downloads import Downloads
from .index import Index, open_index, split_of
from .pictures import read_rows
from .query import query
from .subset import Subset, flag
from .wanted import trimmed


@dataclass
class Coco:
    """`annotations`: a folder of captions_*.json (and instances_*.json, where categories are wanted), or one such file.
    `images`: the folder of one split's pictures, or the root that has train2017/ and so on.

    Rows come in the order of their numbers, whatever the order of the files. Captions whose picture is not listed, blank
    captions and pictures without captions are counted in `findings`.
    """

    annotations: Path | None
    """None has `downloads` fetch the official ones of `split`."""
    images: Path | None
    """None where `downloads` fetches the chosen ones, or only addresses are wanted."""
    split: str | None = None
    """`val2014`, `train2017` ...; None takes every split whose pictures are there."""
    downloads: Downloads | None = None
    findings: Findings = field(default_factory=Findings)
    name = "coco"

    def rows(self, subset: Subset) -> Iterator[Row]:
        if self.images is not None and not self.images.is_dir():
            raise SourceError("there is no such folder", where=self.images, fix="name the folder of the pictures", case=9)
        found: list[tuple[Index, Path | None, np.ndarray]] = []
        for file, folder in (splits := self.splits):
            index = open_index(file, instances_of(file, subset))
            if (
                len(splits) > 1
                and folder
                and folder == self.images
                and not any((folder / name).is_file() for name in _names(index))
            ):
                self.findings.notes.append(f"{file.name} was not used: none of its {len(index)} pictures is in the folder")
                continue
            self.findings.add(index.findings())
            found.append((index, folder, query(index, subset, self.findings)))
        self._unique(found)
        if len(splits) > 1:
            used = sorted(folder.name if folder else index.split for index, folder, places in found if len(places))
            self.findings.notes.append(f"pictures come from {', '.join(used)}")
        rows = _in_order([index.rows(places, folder) for index, folder, places in found])
        yield from (trimmed(row, subset) for row in rows)  # what is trimmed away was counted by the query

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        if self.images is None and self.downloads is not None:
            return self.downloads.contents(rows)
        return read_rows(rows)

    def files(self) -> dict[str, str]:
        read = [path for file, _ in self.splits for path in (file, beside(file)) if path is not None and path.is_file()]
        return {path.name: file_sha256(path) for path in read}

    def words(self) -> list[str]:
        split = flag("split", self.split) if self.split else []
        told = dict(zip(("annotations", "images"), (self.annotations, self.images), strict=True))
        named = _named([path.resolve() for path in told.values() if path], self.findings)
        words = [word for name, path in told.items() if path for word in flag(name, named[path.resolve()])]
        if self.downloads is not None and not self.images and self.downloads.endpoint.startswith("https://"):
            words += ["--images", self.downloads.endpoint] if self.downloads.endpoint != SECURE else []
        return ["coco", *words, *split]

    @cached_property
    def notes(self) -> Path:
        """The annotations, fetched if need be. Raises ConfigError when it is not said which."""
        if self.annotations is not None:
            return self.annotations
        if self.downloads is None or self.split is None:
            fix = f"say which split, e.g. split='val2017' (known: {', '.join(ARCHIVES)}), or name the folder of the annotations"
            raise ConfigError("which annotations?", where="coco", fix=fix, case=1)
        return self.downloads.annotations(self.split)

    @cached_property
    def splits(self) -> list[tuple[Path, Path | None]]:
        """(captions file, folder of its pictures) of every split that is wanted and there."""
        files = {split_of(file): file for file in caption_files(self.notes)}
        inside = self.images.resolve().name if self.images else ""
        wanted = self.split or (inside if inside in files else None)
        if wanted is not None:
            if wanted not in files:
                raise SourceError(f"has no captions of {wanted!r}; {nearest(wanted, files)}", where=self.notes, case=7)
            files = {wanted: files[wanted]}
        if self.images is None:
            return [(file, None) for file in files.values()]
        own = {split: self.images / split for split in files if (self.images / split).is_dir()}
        if not own:
            return [(file, self.images) for file in files.values()]
        for split in sorted(files.keys() - own.keys()):
            self.findings.notes.append(
                f"the captions of {split} were not read: there is no folder {split} beside the other pictures"
            )
        return [(files[split], folder) for split, folder in own.items()]

    def _unique(self, found: list[tuple[Index, Path | None, np.ndarray]]) -> None:
        places_of: dict[str, str] = {}
        for index, folder, places in found if len(found) > 1 else []:
            place = index.split if folder in (None, self.images) else str(folder)
            for image_id in index.column("image_id", places):
                if (other := places_of.setdefault(image_id, place)) is not place:
                    what = f"image {image_id} is in both {other} and {place}"
                    raise SourceError(what, where=self.notes, fix="name one split", case=7)


def _named(paths: list[Path], findings: Findings) -> dict[Path, str]:
    """Names that hold beside each other, from the folder that has both; their last parts alone where that is far away."""
    home = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    near = all(len(path.relative_to(home).parts) <= 2 for path in paths)
    shown = {path: path.relative_to(home).parts if near else (path.name,) for path in paths}
    return {path: "/".join(harmless(part, findings) for part in parts) for path, parts in shown.items()}


def caption_files(annotations: Path) -> list[Path]:
    """The captions_*.json of a folder, of the folder annotations/ in it, or the file itself. Raises SourceError for none."""
    if annotations.is_file():
        return [annotations]
    for folder in (annotations, annotations / "annotations"):
        if files := sorted(folder.glob("captions_*.json")):
            return files
    seen = sorted(path.name for path in annotations.glob("*.json")) if annotations.is_dir() else []
    what = f"has no captions_*.json (it has {', '.join(seen[:5])})" if seen else "has no captions_*.json"
    raise SourceError(what, where=annotations, fix="name the folder or file of COCO's captions", case=7)


def beside(file: Path) -> Path | None:
    """Where the objects of a captions file are looked for: instances_val2014.json beside captions_val2014.json."""
    path = file.with_name(file.name.replace("captions", "instances"))
    return None if path == file else path


def instances_of(file: Path, subset: Subset) -> Path | None:
    """The objects' file that is there. Raises SourceError when there is none and the choice needs it."""
    path = beside(file)
    if path is not None and path.is_file():
        return path
    if told := list(subset.of_objects):
        name = path.name if path is not None else "an instances_*.json"
        what = f"{told[0]} can be chosen only with {name} beside {file.name}"
        raise SourceError(what, where=file.parent, fix="put it there, or leave the category out", case=7)
    return None


def _names(index: Index) -> Iterator[str]:
    for start in range(0, len(index), 4096):
        yield from index.column("file_name", np.arange(start, min(start + 4096, len(index))))


def _in_order(parts: list[Iterator[Row]]) -> Iterator[Row]:
    """Rows of several splits, each sorted, by their numbers."""
    return heapq.merge(*parts, key=lambda row: (len(row.image_id), row.image_id))
