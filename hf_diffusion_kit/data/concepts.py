"""concepts_list.json as DreamBooth people have it: several folders, each with one prompt for its pictures."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from ..errors import SourceError, nearest
from ..records import file_sha256
from .base import Findings, Row
from .called import called
from .captions import tidy
from .folder import Folder
from .metadata import NAMES as TABLES
from .pictures import SUFFIXES, read, read_rows
from .scan import scan
from .subset import Subset, flag, place
from .wanted import wanted
from .where import expanded

NAME = "concepts_list.json"
KEYS = ("instance_prompt", "class_prompt", "instance_data_dir", "class_data_dir")
"""Those of diffusers' early script and its many descendants; what else stands there (num_class_images ...) is named as not used."""
PLACEHOLDER = "[filewords]"
"""What another program replaces by the text of the file beside the picture."""


@dataclass(frozen=True)
class Concept:
    prompt: str | None
    """None where the file gives none: then the folder's own captions count."""
    folder: Path
    """Of the instance pictures."""
    class_folder: Path | None
    where: str
    """Its place in the file."""


@dataclass
class Concepts:
    """`path`: a concepts_list.json, or the folder that holds one. Its paths count from the file, or else from the working directory
    (which is noted), or are absolute.

    Rows are those of all instance folders, each picture with its concept's `instance_prompt`; one that two concepts name has both.
    Class pictures are no part of it. Captions in an instance folder are an error unless they are ignored as asked.
    """

    path: Path
    ignore_captions: bool = False
    caption_column: str | None = None
    """For folders whose concept has no `instance_prompt`."""
    repair: bool = False
    findings: Findings = field(default_factory=Findings)
    _lies: dict[str, Row] = field(default_factory=dict, repr=False)
    """Name in the rows -> the same picture by its own folder."""
    _files: dict[str, str] = field(default_factory=dict, repr=False)
    name = "folder"

    @property
    def file(self) -> Path:
        return self.path / NAME if self.path.is_dir() else self.path

    def rows(self, subset: Subset) -> Iterator[Row]:
        return wanted(self._rows(), subset, self.findings)

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        rows = list(rows)
        found = read_rows(self._lies[row.image_id] for row in rows)
        yield from ((row, content) for row, (_, content) in zip(rows, found, strict=True))

    def files(self) -> dict[str, str]:
        return {NAME: file_sha256(self.file), **self._files}

    def words(self) -> list[str]:
        column = flag("caption-column", self.caption_column) if self.caption_column else []
        flags = ["--ignore-captions"] * self.ignore_captions + ["--repair"] * self.repair
        return ["folder", place(called(self.path, self.findings)), *column, *flags]

    def _rows(self) -> Iterator[Row]:
        concepts = list(self._read())
        self._what_else(concepts)
        found: dict[str, Row] = {}
        for concept, inner in zip(concepts, self._names(concepts), strict=True):
            for row in self._rows_of(concept, inner):
                before = found.get(row.image_id)
                found[row.image_id] = replace(before, captions=(*before.captions, *row.captions)) if before else row
        self.findings.notes.append(f"captions come from {NAME}, which names {len(concepts)} folder{'s' * (len(concepts) > 1)}")
        yield from sorted(found.values(), key=lambda row: row.file_name)

    def _names(self, concepts: list[Concept]) -> list[str]:
        """What each folder is called in the rows: its place below the list, or its last part, so that no path of a machine is kept."""
        base, names = self.file.parent.absolute(), dict[Path, str]()
        for folder in dict.fromkeys(concept.folder for concept in concepts):
            inner = folder.relative_to(base) if folder.is_relative_to(base) else Path(called(folder, self.findings, "concept"))
            name, number = inner.as_posix(), 2
            while name in names.values():
                name, number = f"{inner.name}-{number}", number + 1
            names[folder] = name
        return [names[concept.folder] for concept in concepts]

    def _rows_of(self, concept: Concept, inner: str) -> Iterator[Row]:
        column = None if concept.prompt else self.caption_column
        own = Folder(concept.folder, concept.prompt, self.ignore_captions, column, repair=self.repair)
        try:
            rows = list(own.rows(Subset()))
        except SourceError as error:
            raise SourceError(f"{concept.where}: {error.message}", where=error.where, fix=error.fix, case=error.case) from error
        self._files |= {_within(inner, name): sha256 for name, sha256 in own.files().items()}
        for reason, names in own.findings.faults.items():
            for name in names:
                self.findings.fault(reason, _within(inner, name))
        told = [note for note in own.findings.notes if concept.prompt is None or "ignored" in note]
        self.findings.notes += [f"{inner}: {note}" for note in told]
        for row in rows:
            name = _within(inner, row.file_name)
            self._lies[name] = row
            yield replace(row, image_id=name, file_name=name, folder=None)

    def _read(self) -> Iterator[Concept]:
        try:
            told = msgspec.json.decode(read(self.file).removeprefix(b"\xef\xbb\xbf"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            what = "the JSON is cut short" if "truncated" in str(error) else f"is no JSON: {str(error)[:200]}"
            raise SourceError(what, where=self.file, fix="mend it, or write it again", case=7) from error
        if not isinstance(told, list) or not told:
            what = "is an empty list" if told == [] else "is not a list of concepts"
            raise SourceError(what, where=self.file, fix='write [{"instance_prompt": ..., "instance_data_dir": ...}]', case=7)
        others: dict[str, None] = {}
        for number, entry in enumerate(told):
            where = f"[{number}]"
            if not isinstance(entry, dict):
                what = f"is {repr(entry)[:60]}, not an object"
                raise SourceError(what, where=f"{self.file}: {where}", fix="write {...} with instance_data_dir", case=7)
            others |= dict.fromkeys(str(key) for key in entry if key not in KEYS)
            yield self._concept(entry, where)
        if others:
            self.findings.notes.append(f"{NAME}: {', '.join(others)[:200]} is not used here")

    def _concept(self, entry: dict[str, Any], where: str) -> Concept:
        told: dict[str, str] = {}
        for key in KEYS:
            value = entry.get(key)
            if value is not None and not isinstance(value, str):
                raise SourceError(f"is {repr(value)[:60]}, not text", where=f"{self.file}: {where}.{key}", fix="mend it", case=7)
            told[key] = (value or "").strip()
        if not told["instance_data_dir"]:
            hint = nearest("instance_data_dir", map(str, entry)) if entry else "it is empty"
            what = f"names no instance_data_dir; {hint[:200]}"
            raise SourceError(what, where=f"{self.file}: {where}", fix="name the folder of its pictures", case=7)
        if told["instance_prompt"] and not tidy(told["instance_prompt"]):
            fix = "write what the pictures show, or leave it out to use the folder's own captions"
            raise SourceError("is blank", where=f"{self.file}: {where}.instance_prompt", fix=fix, case=8)
        if PLACEHOLDER in told["instance_prompt"]:
            fix = "leave instance_prompt out to use the files beside the pictures, or write the prompt in full"
            raise SourceError(
                f"holds {PLACEHOLDER}, which is not filled in here",
                where=f"{self.file}: {where}.instance_prompt",
                fix=fix,
                case=8,
            )
        folder = self._place(told["instance_data_dir"], f"{where}.instance_data_dir")
        class_folder = self._place(told["class_data_dir"], f"{where}.class_data_dir") if told["class_data_dir"] else None
        if not _is_dir(folder):
            what = f"there is no folder {told['instance_data_dir'][:200]!r}"
            fix = "mend the path; it counts from the file, or else from the working directory, or is absolute"
            raise SourceError(what, where=f"{self.file}: {where}.instance_data_dir", fix=fix, case=9)
        if class_folder is not None and class_folder.is_relative_to(folder):
            what = "lies in the folder of the instance pictures"
            raise SourceError(
                what, where=f"{self.file}: {where}.class_data_dir", fix="give the class pictures a folder of their own", case=9
            )
        return Concept(told["instance_prompt"] or None, folder, class_folder, where)

    def _place(self, told: str, where: str) -> Path:
        try:
            named = expanded(told.replace("\\", "/"))
        except SourceError as error:
            what = f"{told[:200]!r}: {error.message}"
            raise SourceError(what, where=f"{self.file}: {where}", fix=error.fix, case=error.case) from error
        beside, here = (Path(os.path.normpath(home / named)) for home in (self.file.parent.absolute(), Path.cwd()))
        if here == beside or not _is_dir(here):
            return beside
        if _is_dir(beside):
            self._note(f"{NAME}: {told[:200]} is the folder beside the list, not the one in the working directory")
            return beside
        self._note(f"{NAME}: {told[:200]} counts from the working directory, for there is no such folder beside the list")
        return here

    def _note(self, note: str) -> None:
        if note not in self.findings.notes:
            self.findings.notes.append(note)

    def _what_else(self, concepts: list[Concept]) -> None:
        """Class pictures, tables and pictures beside the list are told of; none of them is used."""
        classes = sorted({concept.class_folder for concept in concepts if concept.class_folder})
        if classes:
            names = ", ".join(called(folder, self.findings) for folder in classes)
            self.findings.notes.append(
                f"class pictures are no part of this subset: {names} (name such a folder as data.class_path)"
            )
        if not self.path.is_dir():
            return
        mine = [*classes, *(concept.folder for concept in concepts)]
        root = self.path.absolute()
        for name, path in scan(root, self.findings).items():
            if any(path.is_relative_to(folder) for folder in mine):
                continue
            if path.name in TABLES and not self.ignore_captions:
                what = f"has captions that would not be used: {name} (used: {NAME})"
                fix = "remove what is not meant, or say ignore_captions=True (--ignore-captions)"
                raise SourceError(what, where=self.path, fix=fix, case=9)
            if path.name in TABLES:
                self.findings.notes.append(f"captions that exist were ignored as asked: {name}")
            elif path.suffix.lower() in SUFFIXES:
                self.findings.fault("pictures that no concept names", name)


def is_concepts(path: Path) -> bool:
    """A folder that holds a list of concepts, or such a file (by any name that ends in .json)."""
    return (path / NAME).is_file() if path.is_dir() else path.suffix.lower() == ".json" and path.is_file()


def _within(inner: str, name: str) -> str:
    return name if inner == "." else f"{inner}/{name}"


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long a name, or a zero byte in it
        return False
