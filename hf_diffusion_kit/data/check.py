"""The dataset doctor: every picture decoded in full, every caption read, before they cost GPU time."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from tqdm import tqdm

from ..errors import SourceError, positive
from . import saved
from .base import Row, Source
from .captioned import Captioned
from .coco import Coco
from .folder import Folder
from .pictures import REMARKS, Stored, store
from .subset import Subset
from .table import Table


@dataclass(frozen=True)
class Fault:
    """Something that stops a training."""

    name: str
    """The picture, or the file of captions."""
    what: str
    """What it really is, or what is wrong with it."""
    fix: str = ""


@dataclass(frozen=True)
class Report:
    source: str
    pictures: int
    """Those that can be decoded to the last row."""
    captions: int
    broken: tuple[Fault, ...] = ()
    """Pictures and files of captions that cannot be used."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> names: pictures without captions, captions without pictures, blank ones."""
    small: tuple[str, ...] = ()
    """Pictures with a side shorter than the training resolution; they would be enlarged."""
    resolution: int | None = None
    """Pixels that `small` was measured against; None when nobody asked."""
    same: tuple[tuple[str, ...], ...] = ()
    """Pictures that are the same, byte for byte."""
    smallest: tuple[int, int] = (0, 0)
    """Width and height of the picture with the fewest pixels."""
    largest: tuple[int, int] = (0, 0)
    remarks: dict[str, int] = field(default_factory=dict)
    """What is unusual and will be put right: turned, transparent, 16-bit, animated, grey, with EXIF."""
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 when something is broken or nothing is there; 0 otherwise, whatever else was found."""
        return 3 if self.broken or not self.pictures else 0

    @property
    def flawless(self) -> bool:
        return not (self.exit_code or self.faults or self.small or self.same)


def check(
    source: str | Path,
    *,
    resolution: int | None = None,
    prompt: str | None = None,
    caption_column: str | None = None,
    progress: bool = False,
    watch: Callable[[Row, Stored], None] = lambda row, picture: None,
) -> Report:
    """Looks at a folder (pictures, COCO layout, saved subset, Parquet); changes nothing. `resolution`: pixels of the training.

    `watch` is called with every picture that can be used. Raises SourceError only when there is no such folder; what is wrong
    inside it is in the report.
    """
    positive("check", resolution=resolution)
    path = Path(source).expanduser()
    if not path.is_dir():
        raise SourceError("there is no such folder", where=path, case=9)
    broken: list[Fault] = []
    try:
        door = source_of(path, prompt, caption_column)
        rows = list(door.rows(Subset()))
    except SourceError as error:
        broken.append(_fault(error, path))
        door, rows = _pictures_alone(path)
    good: dict[str, list[str]] = {}
    sizes: list[tuple[int, int]] = []
    small: list[str] = []
    remarks: Counter[str] = Counter()
    unspoken = _unspoken(door, path)
    all_rows = [*rows, *unspoken]
    for row, content in tqdm(door.contents(all_rows), "pictures", len(all_rows), unit="picture", disable=not progress):
        try:
            if isinstance(content, SourceError):
                raise content
            picture = store(content, row.path or row.file_name)
        except SourceError as error:
            broken.append(_fault(error, path))
            continue
        good.setdefault(hashlib.sha256(picture.content).hexdigest(), []).append(row.file_name)
        sizes.append((picture.width, picture.height))
        remarks.update(picture.remarks)
        watch(row, picture)
        if resolution and min(picture.width, picture.height) < resolution:
            small.append(f"{row.file_name} ({picture.width}x{picture.height})")
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return Report(
        source=door.name,
        pictures=len(sizes),
        captions=sum(len(row.captions) for row in rows),
        broken=tuple(broken),
        faults=dict(door.findings.faults),
        small=tuple(small),
        resolution=resolution,
        same=tuple(tuple(names) for names in good.values() if len(names) > 1),
        smallest=ordered[0] if ordered else (0, 0),
        largest=ordered[-1] if ordered else (0, 0),
        remarks={REMARKS[name]: number for name, number in sorted(remarks.items())},
        notes=tuple(door.findings.notes),
    )


def source_of(path: Path, prompt: str | None, caption_column: str | None) -> Source:
    """What a folder holds. Raises SourceError when it cannot be told."""
    if any((path / "annotations").glob("captions_*.json")):
        return Coco(path / "annotations", path)
    if saved.is_saved(path):
        return Table(Captioned.open(path).dataset, path.name, prompt=prompt, caption_column=caption_column)
    if next(path.rglob("*.parquet"), None):
        return Table(datasets.Dataset(saved.parquet(path)), path.name, prompt=prompt, caption_column=caption_column)
    return Folder(path, prompt=prompt, caption_column=caption_column)


def _pictures_alone(path: Path) -> tuple[Source, list[Row]]:
    """The pictures of a folder whose captions cannot be read."""
    folder = Folder(path, prompt="-", ignore_captions=True)
    try:
        return folder, [Row(row.image_id, row.file_name, row.folder, ()) for row in folder.rows(Subset())]
    except SourceError:  # no pictures either; the reader has been told what was wrong first
        return folder, []
    finally:
        folder.findings.notes.clear()


def _unspoken(door: Source, path: Path) -> list[Row]:
    """Pictures that nobody described are looked at all the same."""
    if not isinstance(door, Folder):
        return []
    return [Row(name, name, path, ()) for name in sorted(set(door.findings.faults.get("pictures without a caption", [])))]


def _fault(error: SourceError, path: Path) -> Fault:
    """Names inside the folder are shown relative to it."""
    name = str(error.where).replace(f"{path}/", "") if error.where is not None else path.name
    return Fault(name, error.message, error.fix or "")
