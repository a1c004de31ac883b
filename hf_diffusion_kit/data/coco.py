"""COCO captions (Chen et al. 2015) as a source: official layout, or single files, of 2014, 2017 or anybody's own."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError, SourceError, nearest
from .annotations import Captions, Instances, License
from .annotations import read as read_annotations
from .base import Findings, Row
from .captions import tidy
from .paths import plain_name
from .pictures import read_rows
from .subset import Subset
from .wanted import wanted


@dataclass
class Coco:
    """`annotations`: a folder of captions_*.json (and instances_*.json, where categories are wanted), or one such file.
    `images`: the folder of one split's pictures, or the root that has train2017/ and so on.

    Rows come in the order of their numbers, whatever the order of the files. Captions whose picture is not listed, blank
    captions and pictures without captions are counted in `findings`.
    """

    annotations: Path
    images: Path
    split: str | None = None
    """`val2014`, `train2017` ...; None takes every split whose pictures are there."""
    findings: Findings = field(default_factory=Findings)
    name = "coco"

    def rows(self, subset: Subset) -> Iterator[Row]:
        if not self.images.is_dir():
            raise SourceError("there is no such folder", where=self.images, fix="name the folder of the pictures", case=9)
        found: list[Row] = []
        rest = replace(subset, category=(), crowd=True, min_area=0.0, supercategory=())
        for file, folder in (splits := self._splits()):
            rows = list(self._rows_of(file, folder, subset))
            if len(splits) > 1 and folder == self.images and not any((folder / row.file_name).is_file() for row in rows):
                self.findings.notes.append(f"{file.name} was not used: none of its {len(rows)} pictures is in the folder")
                continue
            found += rows
        self._unique(found)
        if len(splits) > 1:
            used = sorted({row.folder.name for row in found if row.folder})
            self.findings.notes.append(f"pictures come from {', '.join(used)}")
        yield from wanted(sorted(found, key=lambda row: (len(row.image_id), row.image_id)), rest, self.findings)

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        return read_rows(rows)

    def words(self) -> list[str]:
        split = ["--split", self.split] if self.split else []
        return ["coco", "--annotations", self.annotations.resolve().name, "--images", self.images.resolve().name, *split]

    def _splits(self) -> list[tuple[Path, Path]]:
        """(captions file, folder of its pictures) of every split that is wanted and there."""
        files = {split_of(file): file for file in self._caption_files()}
        wanted = self.split or (self.images.resolve().name if self.images.resolve().name in files else None)
        if wanted is not None:
            if wanted not in files:
                raise SourceError(f"has no captions of {wanted!r}; {nearest(wanted, files)}", where=self.annotations, case=7)
            files = {wanted: files[wanted]}
        own = {split: self.images / split for split in files if (self.images / split).is_dir()}
        if not own:
            return [(file, self.images) for file in files.values()]
        for split in sorted(files.keys() - own.keys()):
            self.findings.notes.append(
                f"the captions of {split} were not read: there is no folder {split} beside the other pictures"
            )
        return [(files[split], folder) for split, folder in own.items()]

    def _caption_files(self) -> list[Path]:
        if self.annotations.is_file():
            return [self.annotations]
        for folder in (self.annotations, self.annotations / "annotations"):
            if files := sorted(folder.glob("captions_*.json")):
                return files
        seen = sorted(path.name for path in self.annotations.glob("*.json")) if self.annotations.is_dir() else []
        what = f"has no captions_*.json (it has {', '.join(seen[:5])})" if seen else "has no captions_*.json"
        raise SourceError(what, where=self.annotations, fix="name the folder or file of COCO's captions", case=7)

    def _rows_of(self, file: Path, folder: Path, subset: Subset) -> Iterator[Row]:
        raw = read_annotations(file, Captions)
        licenses = {str(entry.id): entry for entry in raw.licenses or []}
        sentences = self._sentences(file, raw)
        inside = self._categories(file, subset)
        asked = self._wanted(file, inside, subset)
        names: dict[str, str] = {}
        for image in raw.images:
            number = str(image.id)
            if names.setdefault(number, image.file_name) != image.file_name:
                fix = "give each picture a number of its own"
                raise SourceError(f"image id {number} is {names[number]!r} and {image.file_name!r}", where=file, fix=fix, case=7)
            captions = sentences.pop(number, None)
            if captions is None:  # listed twice, or nothing said of it
                continue
            if not captions:
                self.findings.fault("pictures without a caption", image.file_name)
                continue
            here = inside.categories_of(number)
            if missing := next((name for name in asked if name not in here), None):
                self.findings.left_out[f"pictures without {missing}"] += 1
                continue
            license = licenses.get(
                str(image.license), License(0, f"licence {image.license}" if image.license is not None else "")
            )
            yield Row(
                image_id=number,
                file_name=unicodedata.normalize("NFC", plain_name(image.file_name, where=f"{file}: image {number}")),
                folder=folder,
                captions=tuple(captions),
                width=int(image.width),
                height=int(image.height),
                categories=here,
                license=license.name or "",
                license_url=license.url or "",
                flickr_url=image.flickr_url or "",
                coco_url=_url(image.coco_url or "", split_of(file), image.file_name),
            )

    def _sentences(self, file: Path, raw: Captions) -> dict[str, list[str]]:
        """Image -> captions in the order of their numbers. Two annotations of one number are two captions."""
        sentences: dict[str, list[tuple[str, str]]] = {str(image.id): [] for image in raw.images}
        for note in raw.annotations:
            here = sentences.get(str(note.image_id))
            if here is None:
                self.findings.fault("captions of pictures that are not listed", f"annotation {note.id} of image {note.image_id}")
            elif not tidy(note.caption or ""):
                self.findings.fault("blank captions", f"annotation {note.id} of image {note.image_id}")
            else:
                here.append((str(note.id), note.caption or ""))
        twice = [number for number, times in Counter(str(note.id) for note in raw.annotations).items() if times > 1]
        if twice and twice != ["0"]:
            self.findings.notes.append(
                f"{file.name}: {len(twice)} annotation numbers are used more than once; every caption is kept"
            )
        return {number: [text for _, text in sorted(notes, key=lambda n: (len(n[0]), *n))] for number, notes in sentences.items()}

    def _categories(self, file: Path, subset: Subset) -> "Objects":
        beside = file.with_name(file.name.replace("captions", "instances"))
        if beside == file or not beside.is_file():
            if subset.of_objects:
                what = f"a category can be chosen only with {beside.name} beside {file.name}"
                raise SourceError(what, where=file.parent, fix="put it there, or leave the category out", case=7)
            return Objects({}, {})
        raw = read_annotations(beside, Instances)
        held: defaultdict[str, set[str]] = defaultdict(set)
        for thing in raw.annotations:
            held[str(thing.image_id)].add(str(thing.category_id))
        return Objects({str(entry.id): entry.name for entry in raw.categories}, held)

    def _wanted(self, file: Path, inside: "Objects", subset: Subset) -> list[str]:
        known = {name.casefold(): name for name in inside.names.values()}
        for name in subset.category:
            if name.casefold() not in known:
                raise ConfigError(f"unknown category {name!r}; {nearest(name.casefold(), known)}", where=file, case=1)
        return [known[name.casefold()] for name in subset.category]

    def _unique(self, rows: list[Row]) -> None:
        folders: dict[str, Row] = {}
        for row in rows:
            if (other := folders.setdefault(row.image_id, row)) is not row:
                what = f"image {row.image_id} is in both {other.folder} and {row.folder}"
                raise SourceError(what, where=self.annotations, fix="name one split", case=7)


@dataclass(frozen=True)
class Objects:
    """What is to be seen in which picture."""

    names: dict[str, str]
    """Category number -> name."""
    held: dict[str, set[str]]
    """Image number -> category numbers."""

    def categories_of(self, image: str) -> tuple[str, ...]:
        return tuple(
            self.names[number] for number in sorted(self.held.get(image, ()), key=lambda n: (len(n), n)) if number in self.names
        )


def split_of(file: Path) -> str:
    """captions_val2014.json -> val2014."""
    return file.stem.removeprefix("captions_")


def _url(url: str, split: str, file_name: str) -> str:
    """COCO's address of a picture; the ones of 2014 that died (http://mscoco.org/images/391895) are replaced."""
    return f"http://images.cocodataset.org/{split}/{file_name}" if "//mscoco.org/" in url else url
