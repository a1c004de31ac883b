"""Rows of the index as columns of a dataset: which of them, and with a picture's path or address."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from .addresses import secure
from .base import Findings, some
from .captions import beyond, choose, pick_key, tidy
from .features import SCHEMA
from .index_columns import Index
from .paths import near_name
from .query import draw, query
from .subset import Subset
from .wanted import is_long_enough

UNTIDY = "^ | $|  |[^ -~]"
"""What a text must have for `tidy` to change it."""
MISSING = "pictures that are not in the folder"


@dataclass(frozen=True)
class Part:
    """One split's annotations and the folder of its pictures."""

    index: Index
    folder: Path | None
    """None where the pictures stay at their addresses."""

    def mark(self) -> list[str]:
        """Changes when an answer could: with the annotations, and with any file that comes to the folder or goes."""
        if self.folder is None:
            return [self.index.digest]
        try:
            stats = [self.folder.stat()]
            if stats[0].st_nlink != 2:  # it has folders of its own (or a file system that does not count them)
                stats += [(self.folder / name).stat() for name in sorted(_parents(self.index))]
        except OSError as error:
            where = error.filename or self.folder
            raise SourceError("there is no such folder", where=where, fix="name the folder of the pictures", case=9) from error
        return [self.index.digest, str(self.folder), *(f"{told.st_ino} {told.st_mtime_ns}" for told in stats)]


@dataclass(frozen=True)
class Places:
    """Rows, in order: the number of the part, and the place in its index."""

    part: np.ndarray
    place: np.ndarray

    def cut(self, start: int, stop: int) -> "Places":
        return Places(self.part[start:stop], self.place[start:stop])


def chosen(parts: Sequence[Part], subset: Subset, *, skip: bool) -> tuple[Places, list[str]]:
    """The rows of a choice, and what was left out, in sentences. Raises SourceError, for pictures that are missing too."""
    findings = Findings()
    found = []
    for part in parts:
        findings.add(part.index.findings())
        met = query(part.index, subset, findings)
        found.append(_there(part, met, part.folder, findings) if skip and part.folder is not None else met)
    _once(parts, found)
    listed = sum(len(part.index) for part in parts)
    there = sum(map(len, found))
    if not there:
        why = "; ".join(f"{reason}: {number}" for reason, number in findings.counts().items())
        fix = "choose less narrowly"
        raise SourceError(f"not one picture is left ({why or 'there was none'})", where=_names(parts), fix=fix, case=10)
    places = _ordered(parts, found, subset)
    if not skip:
        _all_there(parts, places)
    if subset.count is not None:
        findings.left_out["pictures beyond the count"] = there - len(places.place)
    counted = [f"{reason}: {number}" for reason, number in findings.left_out.items() if number]
    counted += beyond(subset.caption, _numbers(parts, places, subset))
    return places, [f"{len(places.place)} of {listed} pictures of {_names(parts)}", *counted, *findings.sentences()]


def finished(parts: Sequence[Part], places: Places, subset: Subset) -> pa.Table:
    """The columns of FEATURES. Only text is touched row by row."""
    used = [n for n in range(len(parts)) if np.any(places.part == n)]
    tables = [_columns(parts[n], places.place[places.part == n]) for n in used]
    table = pa.concat_tables(tables)
    if len(used) > 1:  # back into the order of the rows
        table = table.take(np.argsort(np.argsort(places.part, kind="stable"), kind="stable"))
    captions = _of_wanted_length(table.column("captions").combine_chunks(), subset)
    texts = _texts(captions, table.column("image_id").to_pylist(), subset)
    paths = table.column("path").combine_chunks()
    made = {
        "image": pa.StructArray.from_arrays([pa.nulls(len(table), pa.binary()), paths], names=["bytes", "path"]),
        "text": pa.array(texts, pa.string()),
        "captions": captions,
        "sha256": pa.nulls(len(table), pa.string()),
    }
    arrays = [made[name] if name in made else table.column(name) for name in SCHEMA.names]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _columns(part: Part, places: np.ndarray) -> pa.Table:
    table = part.index.columns(places)
    names = table.column("file_name")
    if part.folder is None:
        addresses = [secure(address or "") for address in table.column("coco_url").to_pylist()]
        if missing := addresses.count(None):
            what = f"{missing} pictures have no address"
            raise SourceError(what, where=part.index.split, fix="name the folder of the pictures: images=...", case=9)
        paths = pa.chunked_array([pa.array(addresses, pa.string())])
    else:
        folder = part.folder
        if not pc.all(pc.string_is_ascii(names)).as_py():
            names = pa.chunked_array([pa.array([_as_on_disk(folder, name) for name in names.to_pylist()], pa.string())])
        paths = pc.binary_join_element_wise(f"{folder}{os.sep}", names, "")
    return table.append_column("path", paths)


def _numbers(parts: Sequence[Part], places: Places, subset: Subset) -> Iterator[int]:
    """Captions of each picture; asked for only where it matters."""
    for number, part in enumerate(parts):
        if len(at := np.sort(places.place[places.part == number])):
            captions = part.index.columns(at).column("captions").combine_chunks()
            yield from pc.list_value_length(_of_wanted_length(captions, subset)).to_pylist()


def _texts(captions: pa.ListArray, ids: list[str], subset: Subset) -> list[str]:
    """The column `text`. Where one caption's place is known, the others are not made into Python's strings at all."""
    policy = subset.caption
    if policy == "first" or policy.startswith("nth:"):
        starts = captions.offsets.to_numpy()[:-1]
        lengths = np.diff(captions.offsets.to_numpy())
        nth = 1 if policy == "first" else int(policy[4:])
        taken = captions.values.take(pa.array(starts + np.minimum(nth, lengths) - 1))
        texts = taken.to_pylist()
        for place in np.flatnonzero(pc.match_substring_regex(taken, UNTIDY).to_numpy(zero_copy_only=False)):
            texts[place] = tidy(texts[place])
        return texts
    rows = zip(captions.to_pylist(), ids, strict=True)
    return [choose(told, policy, seed=subset.seed, epoch=0, image_id=image_id) for told, image_id in rows]


def _of_wanted_length(captions: pa.ListArray, subset: Subset) -> pa.ListArray:
    if subset.min_words is None and subset.max_words is None:
        return captions
    kept = [[text for text in texts if is_long_enough(text, subset)] for texts in captions.to_pylist()]
    return pa.array(kept, captions.type)


def _ordered(parts: Sequence[Part], found: Sequence[np.ndarray], subset: Subset) -> Places:
    """As `gather` has them: a draw in the order of its keys, else by the pictures' numbers, whatever split they are of."""
    count = subset.count
    if count is not None and count > (there := sum(map(len, found))):
        what = f"{count} pictures are asked for and {there} are there"
        raise SourceError(what, where=_names(parts), fix=f"ask for at most {there}", case=10)
    if count is not None:  # the first of all are among the first of each
        found = [
            draw(part.index, places, replace(subset, count=min(count, len(places)))) if len(places) else places
            for part, places in zip(parts, found, strict=True)
        ]
    part = np.concatenate([np.full(len(places), n) for n, places in enumerate(found)])
    place = np.concatenate(found)
    if len(parts) > 1:
        ids = [name for one, places in zip(parts, found, strict=True) for name in one.index.column("image_id", places)]
        if count is None:
            order = sorted(range(len(ids)), key=lambda n: (len(ids[n]), ids[n]))
        else:
            order = sorted(range(len(ids)), key=lambda n: pick_key(subset.seed, ids[n]))
        part, place = part[order], place[order]
    return Places(part[:count], place[:count])


def _once(parts: Sequence[Part], found: Sequence[np.ndarray]) -> None:
    if len(parts) < 2:
        return
    times: Counter[str] = Counter()
    for part, places in zip(parts, found, strict=True):
        times.update(part.index.column("image_id", places))
    if twice := next((name for name, number in times.items() if number > 1), None):
        raise SourceError(f"image {twice} is in more than one of them", where=_names(parts), fix="name one split", case=7)


def _there(part: Part, places: np.ndarray, folder: Path, findings: Findings) -> np.ndarray:
    names = part.index.column("file_name", places)
    lost = _lost(folder, names)
    for name in names:
        if name in lost:
            findings.fault(MISSING, name)
    return places[[name not in lost for name in names]] if lost else places


def _all_there(parts: Sequence[Part], places: Places) -> None:
    for number, part in enumerate(parts):
        if part.folder is None:
            continue
        names = part.index.column("file_name", np.sort(places.place[places.part == number]))
        if lost := _lost(part.folder, names):
            first = sorted(lost)
            near = near_name(part.folder, first[0])
            hint = f"; did you mean {near!r}?" if near else ""
            hint = "; is this the folder of another split or year?" if len(lost) == len(names) > 1 else hint
            what = f"{len(lost)} of {len(names)} pictures are not there: {some(first).partition(' ')[2].strip('()')}{hint}"
            fix = 'put them there, leave them out with on_bad_image="skip", or take their addresses with images=None'
            raise SourceError(what, where=part.folder, fix=fix, case=6 if near else 9)


def _lost(folder: Path, names: Sequence[str]) -> set[str]:
    """Each folder is listed once: 83,000 questions to the disk take seconds."""
    there: set[str] = set()
    for parent in {name.rpartition("/")[0] for name in names}:
        try:
            with os.scandir(folder / parent) as entries:
                there |= {f"{parent}/{entry.name}" if parent else entry.name for entry in entries}
        except OSError:
            continue  # none of its pictures is there
    lost = set(names) - there
    return lost - {name for name in lost if not name.isascii() and unicodedata.normalize("NFD", name) in there}


def _as_on_disk(folder: Path, name: str) -> str:
    """Names are composed in the index; a disk may have them decomposed."""
    if name.isascii() or (folder / name).exists():
        return name
    return unicodedata.normalize("NFD", name)


def _parents(index: Index) -> set[str]:
    """Folders that the names of pictures have in them, which is rare."""
    names = index.column("file_name", np.arange(len(index)))
    return {name.rpartition("/")[0] for name in names if "/" in name}


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(part.index.split for part in parts)
