"""The dataset doctor: every picture decoded in full, every caption read, before they cost GPU time."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ConfigError, SourceError, positive
from .base import Row, Source, some
from .captioned import Captioned
from .captions import tidy
from .coco import Coco
from .concepts import NAME, Concepts
from .folder import Folder
from .kinds import kind_of, parquet_splits, source_of
from .leaks import Leak, leaks
from .looks import Looks
from .pictures import REMARKS, SUFFIXES, Stored, store
from .report import Cut, Fault, Report, Twin
from .saved import facts, is_saved
from .subset import Subset
from .table import Table
from .twins import FARTHEST, NEAR, pairs
from .where import expanded

Watch = Callable[[Row, Stored], None]
Beside = Callable[[Twin | Leak, bytes, bytes], None]
PAIRS = 12
"""Pairs of pictures that `beside` is shown."""
OTHER_SIZE = "pictures of another size than their annotations state"
SPARE = 8
"""A text of so many bytes fewer than the model reads tokens cannot be too long: it is not counted."""


@dataclass
class _Set:
    """One split, or the whole."""

    door: Source
    rows: list[Row]
    looks: Looks
    path: Path
    decoded: bool = False
    """Whether every picture has been decoded before."""


def check(
    source: str | Path | Captioned,
    *,
    resolution: int | None = None,
    against: str | Path | None = None,
    near: int = NEAR,
    count_tokens: Callable[[str], int] | None = None,
    tokens: int = 77,
    progress: bool = False,
    watch: Watch = lambda row, picture: None,
    beside: Beside = lambda pair, first, second: None,
    **options: Any,
) -> Report:
    """Looks at a folder (pictures, list of concepts, COCO layout, saved subset, Parquet) or a `Captioned`; changes nothing.

    `resolution`: pixels of the training. `against`: another folder; pictures that are in both are named. `near`: bits of 256 that may
    differ between near-duplicates, 1 to 64. `count_tokens`: a tokenizer's count of a caption, of which the model reads `tokens`; None
    counts nothing. `options`: prompt, caption_column, ignore_captions, split, repair. Splits beside each other (train/, val/) are looked at
    one by one, and against each other.

    `watch` is called with every picture that can be used, `beside` with the first pairs that look the same and their files. Raises
    SourceError only when there is no such folder, or `against` cannot be read; what is wrong inside is in the report.
    """
    positive("check", resolution=resolution, tokens=tokens, near=near)
    if not 1 <= near <= FARTHEST:
        what = f"must lie between 1 and {FARTHEST}, got {near}: pictures that lie farther apart do not look the same"
        raise ConfigError(what, where="check: near", case=1)
    if against is not None and not isinstance(source, Captioned) and _one_place(expanded(source), expanded(against)):
        raise ConfigError("is the folder itself", where="check: against", fix="name another folder", case=1)
    broken: list[Fault] = []
    sets = list(_sets(source, options, broken))
    other = list(_others(expanded(against))) if against is not None else []
    for one in sets:
        for row in one.rows:
            one.looks.hear(row)
        broken += _look(one, watch, progress)
    unread = sum(len(_look(one, lambda row, picture: None, progress)) for one in other)
    notes = [note for one in sets for note in one.door.findings.notes]
    beyond = expanded(against).resolve().name if against is not None else None
    notes += [f"pictures of {beyond} that cannot be read and were not compared: {unread}"] if unread else []
    twins = [(one, one, pair) for one in sets for pair in _twins(one.looks, near)]
    shared: list[tuple[_Set, _Set, Twin | Leak]] = []
    for first, second in [*combinations(sets, 2), *((one, two) for one in sets for two in other)]:
        found, unlike = leaks(first.looks, second.looks, near=near)
        shared += [(first, second, leak) for leak in found]
        notes += [f"of one COCO number, and not one picture: {some(unlike)}"] if unlike else []
    _show([*shared, *twins], beside)
    looks = [one.looks for one in sets]
    sizes = sorted((size for one in looks for size in one.sizes), key=lambda size: size[0] * size[1])
    meant = bool(options.get("prompt")) or any(isinstance(one.door, Concepts) for one in sets) or _one_prompt(source)
    remarks = {REMARKS[name]: number for name, number in sorted(sum((one.remarks for one in looks), Counter[str]()).items())}
    remarks |= {OTHER_SIZE: number} if (number := sum(one.other_size for one in looks)) else {}
    return Report(
        source=sets[0].door.name,
        pictures=len(sizes),
        captions=sum(len(row.captions) for one in sets for row in one.rows),
        sets={one.looks.label: len(one.looks.names) for one in sets} if len(sets) > 1 else {},
        broken=tuple(broken),
        faults=_faults(sets),
        small=tuple(name for one in looks for name in one.small(resolution)),
        resolution=resolution,
        same=tuple(names for one in looks for names in one.same()),
        twins=tuple(pair for _, _, pair in twins if isinstance(pair, Twin)),
        near=near,
        leaks=tuple(leak for _, _, leak in shared if isinstance(leak, Leak)),
        against=beyond,
        shared={} if meant else {text: number for one in looks for text, number in one.shared()},
        like_names=tuple(name for one in looks for name in one.like_names),
        cut=tuple(_cut(sets, count_tokens, tokens)) if count_tokens else (),
        tokens=tokens if count_tokens else None,
        smallest=sizes[0] if sizes else (0, 0),
        largest=sizes[-1] if sizes else (0, 0),
        modes=dict(sum((one.modes for one in looks), Counter[str]()).most_common()),
        misnamed=tuple(name for one in looks for name in one.misnamed),
        remarks=remarks,
        notes=tuple(dict.fromkeys(notes)),
    )


def _sets(source: str | Path | Captioned, options: dict[str, Any], broken: list[Fault]) -> Iterator[_Set]:
    if isinstance(source, Captioned):
        source.need_pixels()
        table = Table(source.dataset)
        yield _Set(table, list(table.rows(Subset())), Looks("train"), Path(), decoded=True)
        return
    path = expanded(source)
    kind = kind_of(path)
    splits = [] if options.get("split") else _splits(path, kind)
    for split in splits or [""]:
        looks = Looks(split or path.resolve().name, alone=not splits)
        told = {**options, "split": split} if split else options
        try:
            door: Source = source_of(path, **told)
            rows = list(door.rows(Subset()))
        except SourceError as error:
            broken.append(replace(_fault(error, path), picture=False))
            door, rows = _pictures_alone(path, kind, split)
        if isinstance(door, Coco):
            _unlisted(door, rows)
        yield _Set(door, [*rows, *_unspoken(door)], looks, path)


def _one_place(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, which is told when it is read
        return False


def _one_prompt(source: str | Path | Captioned) -> bool:
    """Whether a subset was made with one prompt for all, or one a concept."""
    if isinstance(source, Captioned):
        record = source.record
    elif is_saved(path := expanded(source)):
        try:
            record = facts(path)
        except SourceError:  # it has been told of as broken
            return False
    else:
        return False
    if re.search(" --prompt[ =]", record.recipe or ""):
        return True
    return any(f"captions come from {NAME}" in note for note in record.notes)


def _splits(path: Path, kind: type) -> list[str]:
    """Where one folder holds several sets."""
    if kind is Coco:
        found = _coco_splits(path)
        return found if len(found) > 1 else []
    if kind is Table:
        parts = [] if is_saved(path) else list(parquet_splits(path))
        return parts if len(parts) > 1 else []
    try:
        return Folder(path).splits() if kind is Folder else []
    except SourceError:  # no pictures: it will be told when they are read
        return []


def _coco_splits(path: Path) -> list[str]:
    """Those that have captions and pictures."""
    names = sorted(file.stem.removeprefix("captions_") for file in (path / "annotations").glob("captions_*.json"))
    return [name for name in names if (path / name).is_dir()]


def _others(path: Path) -> Iterator[_Set]:
    """The pictures of another folder; what is said of them does not matter."""
    kind = kind_of(path)
    splits = _splits(path, kind)
    for split in splits or [""]:
        label = path.resolve().name + (f"/{split}" if split else "")
        alone = {"prompt": "-", "ignore_captions": True} if kind is Folder else {}
        other = source_of(path, **alone, split=split or None)
        yield _Set(other, list(other.rows(Subset())), Looks(label, alone=False), path)


def _look(one: _Set, watch: Watch, progress: bool) -> list[Fault]:
    """Decodes the pictures of a set one by one; returns those that cannot be."""
    bad: list[Fault] = []
    contents = one.door.contents(one.rows)
    for row, content in tqdm(contents, one.looks.label, len(one.rows), unit="picture", disable=not progress):
        try:
            if isinstance(content, SourceError):
                raise content
            whole = Stored(content, row.width, row.height, ())
            picture = whole if one.decoded else store(content, row.path or row.file_name)
        except SourceError as error:
            bad.append(_fault(error, one.path))
            continue
        one.looks.add(row, content, picture, hashlib.sha256(picture.content).digest())
        watch(row, picture)
    return bad


def _twins(looks: Looks, near: int) -> list[Twin]:
    """Pairs that look the same; what is the same byte for byte is told of elsewhere."""
    found = [pair for pair in pairs(looks.marks, near=near) if looks.sha256[pair.first] != looks.sha256[pair.second]]
    return [Twin(looks.names[pair.first], looks.names[pair.second], pair.distance) for pair in found]


def _show(found: Sequence[tuple[_Set, _Set, Twin | Leak]], beside: Beside) -> None:
    """Reads the files of the first pairs again: none has been kept."""
    shown = found[:PAIRS]
    wanted: dict[int, dict[str, Row]] = {}
    for first, second, pair in shown:
        for one, name in ((first, pair.first), (second, pair.second)):
            wanted.setdefault(id(one), {})[name] = one.looks.rows[one.looks.names.index(name)]
    doors = {id(one): one for first, second, _ in shown for one in (first, second)}
    files: dict[tuple[int, str], bytes] = {}
    for key, rows in wanted.items():
        for name, (_, content) in zip(rows, doors[key].door.contents(rows.values()), strict=True):
            files[key, name] = b"" if isinstance(content, SourceError) else content
    for first, second, pair in shown:
        left, right = files[id(first), pair.first], files[id(second), pair.second]
        if left and right:
            beside(pair, left, right)


def _cut(sets: Sequence[_Set], count: Callable[[str], int], most: int) -> Iterator[Cut]:
    for one in sets:
        for row in one.rows:
            for text in map(tidy, row.captions):
                if len(text.encode()) + SPARE > most and (number := count(text)) > most:
                    yield Cut(one.looks.shown(row.file_name), number, text[:60])


def _faults(sets: Sequence[_Set]) -> dict[str, list[str]]:
    faults: dict[str, list[str]] = {}
    for one in sets:
        for reason, names in one.door.findings.faults.items():
            faults.setdefault(reason, []).extend(one.looks.shown(name) for name in names)
    return faults


def _pictures_alone(path: Path, kind: type, split: str) -> tuple[Source, list[Row]]:
    """The pictures of a folder whose captions cannot be read."""
    place = path / (split or next(iter(_coco_splits(path)), "")) if kind is Coco else path
    folder = Folder(place, prompt="-", ignore_captions=True, split=split if split and kind is Folder else None)
    try:
        return folder, [Row(row.image_id, row.file_name, row.folder, ()) for row in folder.rows(Subset())]
    except SourceError:  # no pictures either; the reader has been told what was wrong first
        return folder, []
    finally:
        folder.findings.notes.clear()


def _unspoken(door: Source) -> list[Row]:
    """Pictures that nobody described are looked at all the same."""
    if not isinstance(door, Folder):
        return []
    return [Row(name, name, door.path, ()) for name in sorted(set(door.findings.faults.get("pictures without a caption", [])))]


def _unlisted(door: Coco, rows: Sequence[Row]) -> None:
    """Pictures beside those that the annotations name."""
    listed = {row.file_name for row in rows} | set(door.findings.faults.get("pictures without a caption", []))
    for folder in sorted({row.folder for row in rows if row.folder}):
        with suppress(OSError):  # a folder that may not be read: each of its pictures is told of as broken
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in SUFFIXES and path.name not in listed:
                    door.findings.fault("pictures that the annotations do not name", path.name)


def _fault(error: SourceError, path: Path) -> Fault:
    """Names inside the folder are shown relative to it, the folder by its name."""
    name, what = str(error.where if error.where is not None else path), error.message
    for place in {path, path.resolve()}:
        name = path.resolve().name if name == str(place) else name.replace(f"{place}/", "")
        what = what.replace(f"{place}/", "")
    return Fault(name, what, error.fix or "")
