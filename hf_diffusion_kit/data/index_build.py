"""From COCO's JSON to an index on disk, in one pass over each file.

Memory: some numbers a picture, caption and object; texts go to disk as they are read. What is wrong is counted on the way.
"""

import json
import mmap
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from .annotations import CAPTIONS, INSTANCES, Caption, Image, Object, stream
from .base import Findings
from .index_columns import ARRAYS, BATCH, MANIFEST, PICTURES, SCHEMA, file_mark, numbers_of
from .licenses import COCO
from .paths import plain_name

SAID = r"[^\s\x00-\x1f\x7f-\x9f\x{feff}\x{200b}\x{2060}]"
"""What makes a caption more than blank: any sign that `captions.tidy` would keep."""
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
"""File names that need no second look."""
Watch = Callable[[memoryview], None]


def split_of(file: Path) -> str:
    """captions_val2014.json -> val2014."""
    return file.stem.removeprefix("captions_")


def texts_of(values: list[str]) -> pa.LargeStringArray:
    """As `pa.array` gives, without its import of pandas (0.3 s). Half of a surrogate pair becomes a question mark."""
    joined = "".join(values)
    if joined.isascii():
        content, lengths = joined.encode(), np.fromiter(map(len, values), np.int64, len(values))
    else:
        encoded = [value.encode("utf-8", "replace") for value in values]
        content, lengths = b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(values))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(content))


@dataclass
class Numbers:
    """Ids as they come: integers, texts, or both; equal when their texts are."""

    parts: list[np.ndarray] = field(default_factory=list)

    def add(self, values: list[Any]) -> None:
        try:
            if values and any(type(value) is str for value in (values[0], values[-1])):
                raise TypeError
            self.parts.append(np.fromiter(values, np.int64, len(values)))
        except (TypeError, ValueError, OverflowError):
            self.parts.append(np.array(list(map(str, values))))

    def joined(self) -> np.ndarray:
        texts = any(part.dtype.kind == "U" for part in self.parts)
        parts = [part.astype(str) if texts else part for part in self.parts]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def alike(*columns: np.ndarray) -> list[np.ndarray]:
    """All as integers, or all as texts."""
    texts = any(column.dtype.kind == "U" for column in columns)
    return [column.astype(str) if texts else column for column in columns]


def column_of(ids: np.ndarray) -> pa.Array:
    return texts_of(ids.tolist()) if ids.dtype.kind == "U" else numbers_of(ids)


def numpy_of(numbers: pa.Array) -> np.ndarray:
    """A copy with -1 where null stands; `to_numpy` would import pandas."""
    kind = np.dtype(numbers.type.to_pandas_dtype())
    values = np.frombuffer(numbers.buffers()[1], kind, len(numbers), numbers.offset * kind.itemsize)
    return values if not numbers.null_count else np.where(numpy_of(numbers.is_valid().cast(pa.uint8())) == 1, values, -1)


def places_in(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place of each id of `wanted` in `ids`, -1 where it is not there."""
    ids, wanted = alike(ids, wanted)
    found = pc.index_in(column_of(wanted), value_set=column_of(ids))
    return numpy_of(found).astype(np.int64)


def by_number(ids: np.ndarray) -> list[np.ndarray]:
    """Keys for `np.lexsort`: 2 before 10, as numbers and as texts."""
    return [ids, np.char.str_len(ids)] if ids.dtype.kind == "U" else [ids]


def build(folder: Path, captions: Path, instances: Path | None, watch: tuple[Watch, Watch]) -> dict[str, Any]:
    """Fills `folder`; returns the facts, to which the caller adds the digest and hands to `finish`."""
    findings = Findings()
    pictures, spoken = _captions(folder, captions, findings, watch[0])
    things = _Things()
    if instances is not None:
        things.read(instances, watch[1])
    _write(folder, captions, pictures, spoken, things, findings)
    return {
        "split": split_of(captions),
        "pictures": len(spoken.kept),
        "objects": instances is not None,
        "categories": [[name, above] for name, above in things.named()],
        "licenses": pictures.licenses(findings),
        "faults": findings.faults,
        "notes": findings.notes,
    }


def finish(folder: Path, facts: dict[str, Any]) -> None:
    files = {name: file_mark(folder / name) for name in (PICTURES, *(f"{name}.npy" for name in ARRAYS))}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, ensure_ascii=False), encoding="utf-8")


@dataclass
class _Pictures:
    """What the captions' file says of its pictures, in its own order."""

    ids: Numbers = field(default_factory=Numbers)
    columns: dict[str, list[pa.Array]] = field(default_factory=dict)
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Licence number -> name and address."""

    def add(self, part: list[Image], file: Path) -> None:
        self.ids.add([image.id for image in part])
        names = [image.file_name for image in part]
        if not all(map(SAFE.fullmatch, names)):
            pairs = zip(names, part, strict=True)
            names = [unicodedata.normalize("NFC", plain_name(name, where=f"{file}: image {image.id}")) for name, image in pairs]
        licenses = ["" if image.license is None else str(image.license) for image in part]
        self._put("file_name", texts_of(names))
        self._put("width", numbers_of(np.array([image.width for image in part], dtype=np.int32)))
        self._put("height", numbers_of(np.array([image.height for image in part], dtype=np.int32)))
        self._put("license", texts_of(licenses))
        self._put("flickr_url", texts_of([image.flickr_url or "" for image in part]))
        split = split_of(file)
        urls = [image.coco_url or "" for image in part]
        if any("//mscoco.org/" in url for url in urls):  # the addresses of 2014 that died
            alive = f"http://images.cocodataset.org/{split}/"
            urls = [f"{alive}{name}" if "//mscoco.org/" in url else url for url, name in zip(urls, names, strict=True)]
        self._put("coco_url", texts_of(urls))

    def _put(self, name: str, values: pa.Array) -> None:
        self.columns.setdefault(name, []).append(values)

    def column(self, name: str) -> pa.Array:
        self.columns[name] = [pa.concat_arrays(self.columns[name])]
        return self.columns[name][0]

    def licenses(self, findings: Findings) -> list[list[str]]:
        """Number, name, address of every licence that a picture states, in the order of their numbers."""
        stated = sorted(set(pc.unique(self.column("license")).to_pylist()) - {""}, key=lambda n: (len(n), n))
        known = self.told
        if stated and not known and all(number in COCO for number in stated):
            known = COCO
            note = "the file names no licences: its numbers are read as COCO's own"
            if note not in findings.notes:
                findings.notes.append(note)
        return [[number, *known.get(number, (f"licence {number}", ""))] for number in stated]


@dataclass
class _Spoken:
    """The captions, by picture."""

    texts: pa.Array
    """On disk, in the order of the file."""
    order: np.ndarray
    """Captions that are kept, sorted by picture and number."""
    starts: np.ndarray
    """Where each picture's begin in `order`; one more at the end."""
    kept: np.ndarray
    """Pictures (in the order of the file) that have captions, sorted by number."""


def _captions(folder: Path, file: Path, findings: Findings, watch: Watch) -> tuple[_Pictures, _Spoken]:
    pictures, numbers, owners = _Pictures(), Numbers(), Numbers()
    lengths: list[np.ndarray] = []
    blank: list[np.ndarray] = []
    pictures.add([], file)
    raw = folder / "texts.bin"
    with raw.open("wb") as out:
        for name, part in stream(file, CAPTIONS, watch=watch):
            if name == "images":
                pictures.add(part, file)
            elif name == "licenses":
                pictures.told |= {str(entry.id): (entry.name or "", entry.url or "") for entry in part}
            else:
                _spill(part, out, lengths, blank)
                numbers.add([note.id for note in part])
                owners.add([note.image_id for note in part])
        out.write(b"\0")  # an empty file cannot be mapped
    return pictures, _sorted(
        file, pictures, numbers.joined(), owners.joined(), _mapped(raw, lengths), np.concatenate(blank), findings
    )


def _spill(part: list[Caption], out: Any, lengths: list[np.ndarray], blank: list[np.ndarray]) -> None:
    texts = texts_of([note.caption or "" for note in part])
    _, offsets, content = texts.buffers()
    out.write(content)
    lengths.append(np.diff(np.frombuffer(offsets, dtype=np.int64)))
    blank.append(numpy_of(pc.match_substring_regex(texts, SAID).cast(pa.uint8())) == 0)


def _mapped(raw: Path, lengths: list[np.ndarray]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    with raw.open("rb") as file:
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), content)


def _sorted(
    file: Path,
    pictures: _Pictures,
    numbers: np.ndarray,
    owners: np.ndarray,
    texts: pa.Array,
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
    if (twice := _repeated(numbers)) and set(numbers[:1].astype(str)) != {"0"}:
        findings.notes.append(f"{file.name}: {twice} annotation numbers are used more than once; every caption is kept")
    rank = np.empty(len(ids), dtype=np.int64)
    order = np.lexsort(by_number(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
    rank[order] = np.arange(len(ids))
    told = np.flatnonzero(~lost & ~blank)
    ranks = rank[owner[told]]
    told = told[_by_rank_and_number(ranks, numbers[told])]
    count = np.bincount(rank[owner[told]], minlength=len(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
    has = count > 0
    names = pictures.column("file_name")
    for place in order[~has]:
        if first[place]:
            findings.fault("pictures without a caption", names[int(place)].as_py())
    return _Spoken(texts, told, np.concatenate([[0], np.cumsum(count[has])]).astype(np.int64), order[has])


def _first_of_each(file: Path, ids: np.ndarray, pictures: _Pictures) -> np.ndarray:
    """Marks the first listing of each number. Raises SourceError where a number stands for two files."""
    unique, first = np.unique(ids, return_index=True)
    marks = np.zeros(len(ids), dtype=bool)
    marks[first] = True
    if len(unique) < len(ids):
        names = pictures.column("file_name")
        at = dict(zip(unique.tolist(), first.tolist(), strict=True))
        for place in np.flatnonzero(~marks):
            one, other = names[at[ids[place].item()]].as_py(), names[int(place)].as_py()
            if one != other:
                fix = "give each picture a number of its own"
                raise SourceError(f"image id {ids[place]} is {one!r} and {other!r}", where=file, fix=fix, case=7)
    return marks


def _by_rank_and_number(ranks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    if numbers.dtype.kind != "U" and len(numbers) and 0 <= numbers.min() and numbers.max() < 1 << 32 and len(ranks) < 1 << 30:
        return np.argsort((ranks << 32) | numbers, kind="stable" if _repeated(numbers) else None)  # a third of lexsort's time
    return np.lexsort([*by_number(numbers), ranks]) if len(numbers) else np.zeros(0, dtype=np.int64)


def _repeated(numbers: np.ndarray) -> int:
    """How many values occur more than once."""
    ordered = np.sort(numbers)
    same = np.concatenate([[False], ordered[1:] == ordered[:-1], [False]])
    return int((same[1:] & ~same[:-1]).sum())


@dataclass
class _Things:
    """The objects of the instances' file."""

    owners: Numbers = field(default_factory=Numbers)
    kinds: Numbers = field(default_factory=Numbers)
    areas: list[np.ndarray] = field(default_factory=list)
    crowds: list[np.ndarray] = field(default_factory=list)
    names: dict[int | str, tuple[str, str]] = field(default_factory=dict)
    """Category number -> name and supercategory."""

    def read(self, file: Path, watch: Watch) -> None:
        for name, part in stream(file, INSTANCES, watch=watch):
            if name == "categories":
                self.names |= {entry.id: (entry.name, entry.supercategory or "") for entry in part}
            else:
                self._add(part)

    def _add(self, part: list[Object]) -> None:
        self.owners.add([thing.image_id for thing in part])
        self.kinds.add([thing.category_id for thing in part])
        self.areas.append(np.array([thing.area for thing in part], dtype=np.float32))  # None becomes NaN
        self.crowds.append(np.array([thing.iscrowd for thing in part]).astype(bool) if part else np.zeros(0, dtype=bool))

    def numbers(self) -> list[int | str]:
        return sorted(self.names, key=lambda number: (len(str(number)), str(number)))

    def named(self) -> list[tuple[str, str]]:
        return [self.names[number] for number in self.numbers()]


def _write(folder: Path, file: Path, pictures: _Pictures, spoken: _Spoken, things: _Things, findings: Findings) -> None:
    kept = spoken.kept
    ids = pictures.ids.joined()[kept]
    take = numbers_of(kept)
    width, height = (numpy_of(pictures.column(name).take(take)) for name in ("width", "height"))
    licenses = pictures.licenses(findings)
    stated = pictures.column("license").take(take)
    known = texts_of([number for number, *_ in licenses])
    license = numpy_of(pc.index_in(stated, value_set=known))
    arrays: dict[str, np.ndarray] = {"width": width, "height": height, "license": license.astype(np.int16)}
    arrays |= _objects(ids, width, height, things, findings)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", arrays[name])
    seen = _categories(arrays, len(kept), things)
    with pa.OSFile(str(folder / PICTURES), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for start in range(0, len(kept), BATCH):
            writer.write_batch(_batch(slice(start, start + BATCH), ids, pictures, spoken, arrays, licenses, seen))
    (folder / "texts.bin").unlink()


def _objects(
    ids: np.ndarray, width: np.ndarray, height: np.ndarray, things: _Things, findings: Findings
) -> dict[str, np.ndarray]:
    owner = places_in(ids, things.owners.joined())
    known = Numbers()
    known.add(things.numbers())
    kind = places_in(known.joined(), things.kinds.joined())
    if nameless := Counter(things.kinds.joined()[kind < 0].tolist()):
        findings.notes.append(f"objects of categories without a name were not counted: {sum(nameless.values())}")
    here = np.flatnonzero((owner >= 0) & (kind >= 0))
    area = np.concatenate(things.areas)[here] if things.areas else np.zeros(0, dtype=np.float32)
    crowd = np.concatenate(things.crowds)[here] if things.crowds else np.zeros(0, dtype=bool)
    pixels = width[owner[here]].astype(np.float32) * height[owner[here]]
    share = area / np.where(pixels > 0, pixels, np.nan)  # of a picture of unknown size nobody knows
    return {
        "thing_picture": owner[here].astype(np.int32),
        "thing_category": kind[here].astype(np.int16),
        "thing_share": share.astype(np.float32),
        "thing_crowd": crowd,
    }


def _categories(arrays: dict[str, np.ndarray], count: int, things: _Things) -> tuple[np.ndarray, pa.Array, pa.Array]:
    """(starts by picture, places in the names, the names): which categories are in which picture, in the order of their numbers."""
    names = [name for name, _ in things.named()]
    pairs = np.sort(arrays["thing_picture"].astype(np.int64) * max(len(names), 1) + arrays["thing_category"])
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique takes twenty times as long here
    owner, kind = np.divmod(pairs, max(len(names), 1))
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))]).astype(np.int64)
    return starts, kind, texts_of(names)


def _batch(
    span: slice,
    ids: np.ndarray,
    pictures: _Pictures,
    spoken: _Spoken,
    arrays: dict[str, np.ndarray],
    licenses: list[list[str]],
    seen: tuple[np.ndarray, Any, pa.Array],
) -> pa.RecordBatch:
    take = numbers_of(spoken.kept[span])
    edges = spoken.starts[span.start : span.stop + 1]
    texts = spoken.texts.take(numbers_of(spoken.order[edges[0] : edges[-1]])).cast(pa.string())
    starts, kinds, names = seen
    bounds = starts[span.start : span.stop + 1]
    inside = names.take(numbers_of(kinds[bounds[0] : bounds[-1]])) if bounds[-1] > bounds[0] else texts_of([])
    which = numbers_of(np.where(arrays["license"][span] < 0, len(licenses), arrays["license"][span]).astype(np.int64))
    number, url = (texts_of([*(entry[at] for entry in licenses), ""]).take(which) for at in (1, 2))
    columns = {
        "image_id": column_of(ids[span]),
        "file_name": pictures.column("file_name").take(take).cast(pa.string()),
        "captions": pa.ListArray.from_arrays(numbers_of((edges - edges[0]).astype(np.int32)), texts),
        "width": numbers_of(arrays["width"][span]),
        "height": numbers_of(arrays["height"][span]),
        "categories": pa.ListArray.from_arrays(numbers_of((bounds - bounds[0]).astype(np.int32)), inside),
        "license": number,
        "license_url": url,
        "flickr_url": pictures.column("flickr_url").take(take).cast(pa.string()),
        "coco_url": pictures.column("coco_url").take(take).cast(pa.string()),
    }
    return pa.record_batch([columns[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA)
