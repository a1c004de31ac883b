"""From COCO's JSON to an index on disk, in one pass over each file.

Memory: some numbers a picture, caption and object; texts go to disk as they are read. What is wrong is counted on the way.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from .addresses import official
from .annotations import CAPTIONS, Image, stream
from .arrow import Spill, TextWriter, ends_of, numbers_of, numpy_of, texts_of
from .base import Findings
from .index_columns import ARRAYS, FILES, MANIFEST, facts_mark, file_mark
from .index_things import Numbers, Things, by_number, categories_of, objects_of, places_in
from .licenses import COCO
from .paths import plain_name

SAID = re.compile("[^\\s\x00-\x1f\x7f-\x9f\ufeff\u200b\u2060]")
"""What makes a caption more than blank: any sign that `captions.tidy` would keep."""
Watch = Callable[[memoryview], None]


def split_of(file: Path) -> str:
    """captions_val2014.json -> val2014."""
    return file.stem.removeprefix("captions_")


def build(folder: Path, captions: Path, instances: Path | None, watch: tuple[Watch, Watch]) -> dict[str, Any]:
    """Fills `folder`; returns the facts, to which the caller adds the digest and hands to `finish`."""
    findings = Findings()
    pictures, spoken = _captions(folder, captions, findings, watch[0])
    things = Things(folder)
    if instances is not None:
        things.read(instances, watch[1])
    licenses = pictures.licenses(findings)
    _write(folder, pictures, spoken, things, [number for number, *_ in licenses], findings)
    return {
        "split": split_of(captions),
        "pictures": len(spoken.kept),
        "areas": things.has_areas,
        "categories": [[name, above] for name, above in things.named()],
        "licenses": licenses,
        "faults": findings.faults,
        "notes": findings.notes,
    }


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """The manifest, last: without it an index is none."""
    files = {name: file_mark(folder / name) for name in FILES}
    told = {**facts, "files": files}
    (folder / MANIFEST).write_text(json.dumps({**told, "mark": facts_mark(told)}, ensure_ascii=False), encoding="utf-8")


@dataclass
class _Pictures:
    """What the captions' file says of its pictures, in its own order."""

    file: Path
    folder: Path
    sizes: list[np.ndarray] = field(default_factory=list)
    """int32, (width, height) x pictures."""
    stated: list[pa.Array] = field(default_factory=list)
    """Licence numbers, "" where there is none."""
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Licence number -> name and address."""

    def __post_init__(self) -> None:
        self.ids = Numbers(self.folder / "pictures.ids")
        self.texts = {name: TextWriter(self.folder, name) for name in ("file_name", "flickr_url", "coco_url")}
        self.split = split_of(self.file)

    def add(self, part: list[Image]) -> None:
        self.ids.add([image.id for image in part])
        names = [image.file_name for image in part]
        if not _harmless("\n".join(names), len(names)):
            pairs = zip(names, part, strict=True)
            names = [
                unicodedata.normalize("NFC", plain_name(name, where=f"{self.file}: image {image.id}")) for name, image in pairs
            ]
        self.texts["file_name"].add(names)
        self.sizes.append(self._sizes(part))
        self.stated.append(texts_of(["" if image.license is None else str(image.license) for image in part]))
        self.texts["flickr_url"].add([image.flickr_url or "" for image in part])
        urls = [image.coco_url or "" for image in part]
        if not all(urls) or "//mscoco.org/" in "\n".join(urls):  # the addresses of 2014 died
            known = zip(urls, names, strict=True)
            urls = [url if url and "//mscoco.org/" not in url else official(self.split, name) or url for url, name in known]
        self.texts["coco_url"].add(urls)

    def _sizes(self, part: list[Image]) -> np.ndarray:
        try:
            width = np.fromiter([image.width for image in part], np.int32, len(part))
            return np.stack([width, np.fromiter([image.height for image in part], np.int32, len(part))])
        except (OverflowError, ValueError) as error:
            wrong = next(image for image in part if not (0 <= image.width < 1 << 31 and 0 <= image.height < 1 << 31))
            what = f"image {wrong.id} is {wrong.width:g}x{wrong.height:g} pixels"
            raise SourceError(what, where=self.file, fix="mend its width and height", case=7) from error

    def close(self) -> None:
        self.names = {name: texts.close() for name, texts in self.texts.items()}["file_name"]
        self.stated = [pa.concat_arrays(self.stated)]

    def licenses(self, findings: Findings) -> list[list[str]]:
        """Number, name, address of every licence that the file names or a picture states, in the order of their numbers."""
        stated = set(pc.unique(self.stated[0]).to_pylist()) - {""}
        known = self.told
        if stated and not known and all(number in COCO for number in stated):
            known = COCO
            findings.notes.append("the file names no licences: its numbers are read as COCO's own")
        numbers = sorted(stated | set(known), key=lambda n: (len(n), n))
        return [[number, *known.get(number, (f"licence {number}", ""))] for number in numbers]


def _harmless(joined: str, count: int) -> bool:
    """Whether names, a line each, need no second look: no folder, drive, home or line break in them, and nothing beyond ASCII."""
    return (
        joined.isascii()
        and joined.count("\n") == max(count - 1, 0)
        and not any(sign in joined for sign in "/\\:~\0")
        and (".." not in joined and "\n\n" not in f"\n{joined}\n")
    )


def _blank(texts: list[str], column: pa.LargeStringArray) -> np.ndarray:
    """Which say nothing: looked at one by one only where the first byte is no ordinary sign."""
    _, ends, content = column.buffers()
    starts = np.frombuffer(ends, dtype=np.int64)[:-1]
    first = np.frombuffer(content.to_pybytes() + b" ", dtype=np.uint8)[starts]
    marks = (first <= 32) | (first >= 127)
    blank = np.zeros(len(texts), dtype=bool)
    for place in np.flatnonzero(marks | (np.diff(np.frombuffer(ends, dtype=np.int64)) == 0)):
        blank[place] = SAID.search(texts[place]) is None
    return blank


@dataclass
class _Spoken:
    """The captions, by picture."""

    order: np.ndarray
    """Captions that are kept, sorted by picture and number."""
    starts: np.ndarray
    """Where each picture's begin in `order`; one more at the end."""
    kept: np.ndarray
    """Pictures (in the order of the file) that have captions, sorted by number."""


def _captions(folder: Path, file: Path, findings: Findings, watch: Watch) -> tuple[_Pictures, _Spoken]:
    pictures = _Pictures(file, folder)
    numbers, owners = (Numbers(folder / f"captions.{name}") for name in ("ids", "owners"))
    texts, blank = TextWriter(folder, "captions"), Spill(folder / "blank", np.bool_)
    pictures.add([])
    for name, part in stream(file, CAPTIONS, watch=watch):
        if name == "images":
            pictures.add(part)
        elif name == "licenses":
            pictures.told |= {str(entry.id): (entry.name or "", entry.url or "") for entry in part}
        else:
            told = [note.caption or "" for note in part]
            blank.add(_blank(told, texts.add(told)))
            numbers.add([note.id for note in part])
            owners.add([note.image_id for note in part])
    texts.close()
    pictures.close()
    return pictures, _sorted(file, pictures, numbers.joined(), owners.joined(), blank.read, findings)


def _sorted(
    file: Path,
    pictures: _Pictures,
    numbers: np.ndarray,
    owners: np.ndarray,
    blank: np.ndarray,
    findings: Findings,
) -> _Spoken:
    ids = pictures.ids.joined()
    first = _first_of_each(file, ids, pictures)
    owner = places_in(ids, owners)  # the first, where a picture is listed twice
    lost = owner < 0
    for place in np.flatnonzero(lost):
        findings.fault("captions of pictures that are not listed", f"annotation {numbers[place]} of image {owners[place]}")
    for place in np.flatnonzero(blank & ~lost):
        findings.fault("blank captions", f"annotation {numbers[place]} of image {owners[place]}")
    if (twice := _repeated(numbers)) and set(np.unique(numbers).astype(str)) != {"0"}:  # all 0: the file numbers none
        findings.notes.append(f"{file.name}: {twice} annotation numbers are used more than once; every caption is kept")
    rank = np.empty(len(ids), dtype=np.int32)
    order = np.lexsort(by_number(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
    rank[order] = np.arange(len(ids))
    good = ~lost & ~blank
    told = np.flatnonzero(good).astype(np.int32)
    ranks = rank[owner[good]]
    count = np.bincount(ranks, minlength=len(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
    told = told[_by_rank_and_number(ranks, numbers if good.all() else numbers[good], bool(twice))]
    has = count > 0
    for place in order[~has]:
        if first[place]:
            findings.fault("pictures without a caption", pictures.names[int(place)].as_py())
    return _Spoken(told, ends_of(count[has]), order[has])


def _first_of_each(file: Path, ids: np.ndarray, pictures: _Pictures) -> np.ndarray:
    """Marks the first listing of each number. Raises SourceError where a number stands for two files."""
    unique, first = np.unique(ids, return_index=True)
    marks = np.zeros(len(ids), dtype=bool)
    marks[first] = True
    if len(unique) < len(ids):
        names = pictures.names
        at = dict(zip(unique.tolist(), first.tolist(), strict=True))
        for place in np.flatnonzero(~marks):
            one, other = names[at[ids[place].item()]].as_py(), names[int(place)].as_py()
            if one != other:
                fix = "give each picture a number of its own"
                raise SourceError(f"image id {ids[place]} is {one!r} and {other!r}", where=file, fix=fix, case=7)
    return marks


def _by_rank_and_number(ranks: np.ndarray, numbers: np.ndarray, repeated: bool) -> np.ndarray:
    if numbers.dtype.kind != "U" and len(numbers) and numbers.min() >= 0 and numbers.max() < 1 << 32 and len(ranks) < 1 << 30:
        keys = ranks.astype(np.int64)
        keys <<= 32
        keys |= numbers
        return np.argsort(keys, kind="stable" if repeated else None)  # a third of lexsort's time
    return np.lexsort([*by_number(numbers), ranks]) if len(numbers) else np.zeros(0, dtype=np.int64)


def _repeated(numbers: np.ndarray) -> int:
    """How many values occur more than once."""
    ordered = np.sort(numbers)
    same = np.concatenate([[False], ordered[1:] == ordered[:-1], [False]])
    return int((same[1:] & ~same[:-1]).sum())


def _write(folder: Path, pictures: _Pictures, spoken: _Spoken, things: Things, licenses: list[str], findings: Findings) -> None:
    kept = spoken.kept
    ids = pictures.ids.joined()[kept]
    width, height = np.concatenate(pictures.sizes, axis=1)[:, kept]
    license = numpy_of(pc.index_in(pictures.stated[0].take(numbers_of(kept)), value_set=texts_of(licenses)))
    arrays: dict[str, np.ndarray] = {"kept": kept, "ids": ids, "width": width, "height": height}
    arrays |= {"license": license.astype(np.int16), "caption_order": spoken.order, "caption_starts": spoken.starts}
    arrays |= objects_of(ids, width, height, things, findings)
    arrays |= categories_of(arrays, len(kept), things)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", arrays[name])
