"""One's own folder of pictures: captions in a table of metadata, in files beside the pictures, or one prompt for all."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import SourceError, nearest
from ..records import file_sha256
from .base import Findings, Row, as_one
from .called import called
from .captions import tidy
from .columns import FILE_COLUMNS, caption_columns, captions_of, find, known_captions
from .file_words import FIELD, captions_from_names, shown
from .metadata import NAMES, Dropped, Line, lines
from .paths import folded, plain_name
from .pictures import read, read_rows
from .scan import pictures_of, scan, splits_of
from .subset import Subset, flag, place
from .wanted import wanted

SIDECARS = ("{stem}.txt", "{name}.txt", "{stem}.caption", "{name}.caption")
"""Files beside a picture that hold its captions, one a line: a.txt, a.jpg.txt, a.caption, a.jpg.caption."""
BESIDE = "files beside the pictures"
ORDER = f"{', '.join(NAMES)}, {BESIDE} (.txt, .caption), one prompt for all"
"""Where captions are looked for: the first that is there is used, and said in the notes. (concepts_list.json comes before all of
them: it says which folders are meant, see concepts.py.)"""
DROPPED = "lines cut short that were left out, as asked (repair)"
Captions = Mapping[str, list[str]]


@dataclass
class Folder:
    """All JPEG, PNG, WebP and BMP pictures below `path`, sorted by name.

    Captions come from the first of ORDER that is there. Others that are there as well are an error, as is a prompt for pictures
    that have captions: what somebody wrote is used or said to be ignored.
    """

    path: Path
    prompt: str | None = None
    """One caption for all (DreamBooth's instance prompt), for pictures without captions; `{file_name}` in it is the words of each
    picture's name."""
    ignore_captions: bool = False
    """Use the prompt (or the first kind of caption) although others exist."""
    caption_column: str | None = None
    """Column of the metadata; None takes the one that is known by name."""
    split: str | None = None
    """Which one, of a folder that has train/, val/ ... beside each other."""
    repair: bool = False
    """Leave out a last line of metadata that is cut short, and say so. The file stays as it is."""
    findings: Findings = field(default_factory=Findings)
    read: dict[str, Path] = field(default_factory=dict, repr=False)
    """Files of captions that `rows` has used, by their names below `path`."""
    columns: dict[str, None] = field(default_factory=dict, repr=False)
    """Those of the metadata that captions were read from, in the order in which they were met."""
    name = "folder"

    def rows(self, subset: Subset) -> Iterator[Row]:
        return wanted(self._rows(), subset, self.findings)

    def _rows(self) -> Iterator[Row]:
        files = scan(self.path, self.findings)
        pictures = self._one_set(pictures_of(files, self.path, self.findings))
        captions, described = self._captions(files, pictures)
        spoken: dict[str, tuple[str, ...]] = {}
        for name, texts in captions.items():
            spoken[name] = tuple(text for text in texts if tidy(text))
            for _ in range(len(texts) - len(spoken[name])):
                self.findings.fault("blank captions", name)
        for name in pictures:
            if not spoken.get(name):
                self.findings.fault("pictures without a caption", name)
        self.findings.notes.append(f"captions come from {described}; looked for in this order: {ORDER}")
        for name in pictures:
            if spoken.get(name):
                yield Row(image_id=name, file_name=name, folder=self.path, captions=spoken[name])

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        return read_rows(rows)

    def files(self) -> dict[str, str]:
        told = {name: file_sha256(path) for name, path in sorted(self.read.items())}
        beside = {name: told.pop(name) for name in list(told) if PurePosixPath(name).name not in NAMES}
        return told | as_one(beside, BESIDE)

    def words(self) -> list[str]:
        words = ["folder", place(called(self.path, self.findings))]
        for name, value in (("prompt", self.prompt), ("caption-column", self.caption_column), ("split", self.split)):
            words += flag(name, value) if value else []
        return words + ["--ignore-captions"] * self.ignore_captions + ["--repair"] * self.repair

    def splits(self) -> list[str]:
        """Of a folder that holds several sets: train, val ... Raises SourceError when it holds no picture."""
        return splits_of(pictures_of(scan(self.path, Findings()), self.path, Findings()))

    def _one_set(self, pictures: dict[str, Path]) -> dict[str, Path]:
        """A COCO folder, or one with train and validation beside each other, is not one set of pictures."""
        if any((self.path / "annotations").glob("captions_*.json")):
            fix = f"hfdk subset coco --annotations {self.path / 'annotations'} --images {self.path}"
            raise SourceError("is a COCO folder; its captions are in annotations/", where=self.path, fix=fix, case=9)
        found = splits_of(pictures)
        if self.split is None:
            if found:
                fix = f"say which: split={found[0]!r} (--split {found[0]}), or name {self.path / found[0]}"
                raise SourceError(f"holds several sets: {', '.join(found)}", where=self.path, fix=fix, case=9)
            return pictures
        if self.split not in found:
            hint = nearest(self.split, found) if found else "it is one set"
            raise SourceError(f"has no split {self.split!r}; {hint}", where=self.path, fix="name one that is there", case=9)
        chosen = {name: path for name, path in pictures.items() if self._in_split(name)}
        self.findings.left_out["pictures of other splits"] += len(pictures) - len(chosen)
        return chosen

    def _in_split(self, name: str) -> bool:
        return self.split is None or name.startswith(f"{self.split}/")

    def _captions(self, files: Mapping[str, Path], pictures: Mapping[str, Path]) -> tuple[Captions, str]:
        """Picture -> captions, and in words where they come from."""
        tables = [path for name, path in files.items() if path.name in NAMES and ("/" not in name or self._in_split(name))]
        beside = self._beside(files, pictures)
        kinds = sorted({file.name for file in tables}, key=NAMES.index) + ([BESIDE] if beside else [])
        if self.prompt is not None:
            self.read.clear()
            if not tidy(self.prompt) or self.prompt.encode("utf-8", "replace").decode() != self.prompt:
                what = "is not UTF-8" if tidy(self.prompt) else "is blank"
                raise SourceError(f"the prompt {what}", where="prompt", fix="write what the pictures show", case=8)
            self._unused(kinds, "the prompt")
            if FIELD in self.prompt:
                captions = captions_from_names(self.prompt, pictures)
                self.findings.notes.append(shown(captions))
                return captions, "the prompt, with the words of each file's name"
            return {name: [self.prompt] for name in pictures}, "the prompt, the same for all"
        self._unused(kinds[1:], kinds[0] if kinds else "")
        if kinds and kinds[0] != BESIDE:
            self.read.clear()  # files beside the pictures that are there too, and ignored as asked
        if not kinds:
            raise self._no_captions(files)
        if kinds[0] == BESIDE:
            if several := sum(len(texts) > 1 for texts in beside.values()):
                self.findings.notes.append(f"{several} caption files hold several lines; each line is one caption")
            return beside, BESIDE
        found = self._from_metadata([file for file in tables if file.name == kinds[0]], files, pictures)
        if self.caption_column is None and self.columns:
            names = " and ".join(map(repr, self.columns))
            self.findings.notes.append(f"captions are read from the column{'s' * (len(self.columns) > 1)} {names} of {kinds[0]}")
        return found, kinds[0]

    def _unused(self, kinds: list[str], used: str) -> None:
        if not kinds:
            return
        if not self.ignore_captions:
            raise SourceError(
                f"has captions that would not be used: {', '.join(kinds)} (used: {used})",
                where=self.path,
                fix="remove what is not meant, or say ignore_captions=True (--ignore-captions)",
                case=9,
            )
        self.findings.notes.append(f"captions that exist were ignored as asked: {', '.join(kinds)}")

    def _no_captions(self, files: Iterable[str]) -> SourceError:
        """Says which file may have been meant for metadata."""
        tables = [name for name in files if "/" not in name and "." in name and _table_like(name)]
        near = [(name, hint) for name in tables if (hint := nearest(name, NAMES)).startswith("did")]
        what, fix = "has pictures and no captions", f"give captions in one of: {ORDER}"
        if near:
            what, fix = f"{what}; found {near[0][0]}, {near[0][1]}", "rename it"
        elif tables:
            what = f"{what}; {', '.join(tables[:3])} is not a name that is known here"
        return SourceError(what, where=self.path, fix=fix, case=9)

    def _beside(self, files: Mapping[str, Path], pictures: Mapping[str, Path]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        used: set[str] = set()
        for name in pictures:
            stem = name.removesuffix(PurePosixPath(name).suffix)
            there = [told for pattern in SIDECARS if (told := pattern.format(stem=stem, name=name)) in files]
            texts = {told: _text_lines(files[told]) for told in there}
            if len({tuple(map(tidy, told)) for told in texts.values()}) > 1:
                names = " and ".join(PurePosixPath(told).name for told in texts)
                raise SourceError(f"{names} hold different captions", where=files[there[0]], fix="keep one of them", case=9)
            used |= texts.keys()
            self.read |= {told: files[told] for told in texts}
            if texts:
                found[name] = next(iter(texts.values()))
        if found:
            for name in files:
                if name.lower().endswith((".txt", ".caption")) and name not in used and self._in_split(name):
                    self.findings.fault("caption files without a picture", name)
        return found

    def _from_metadata(self, tables: Sequence[Path], files: Mapping[str, Path], pictures: Mapping[str, Path]) -> Captions:
        captions: dict[str, list[str]] = {}
        near = {folded(name): name for name in pictures}
        for table in tables:
            inside = table.parent.relative_to(self.path)
            self.read[(inside / table.name).as_posix()] = table
            seen: set[tuple[str, ...]] = set()
            shapes: dict[tuple[str, ...], tuple[str, list[str]]] = {}
            names: dict[str, str] = {}
            for line in lines(table, self._dropped(table) if self.repair else None):
                shape = tuple(line.record)
                if shape not in shapes:
                    shapes[shape] = self._shape(line, spoken=any(texts for _, texts in shapes.values()))
                named, columns = shapes[shape]
                self.columns |= dict.fromkeys(columns)
                told = line.record[named]
                if not isinstance(told, str):
                    what = f"the file name is {repr(told)[:80]}"
                    raise SourceError(what, where=line.where, fix="name the picture's file", case=9)
                if told not in names:
                    names[told] = unicodedata.normalize("NFC", (inside / plain_name(told, where=line.where)).as_posix())
                name = names[told]
                texts = captions_of(line.record, columns, where=line.where) if columns else [""]
                if not self._in_split(name):
                    self.findings.left_out["captions of other splits"] += 1
                elif name not in pictures:
                    if folded(name) in near:
                        what = f"there is no {told!r}; did you mean {near[folded(name)]!r}?"
                        raise SourceError(what, where=line.where, fix="write the name as the file has it", case=6)
                    kind = "captions of files that are not read as pictures" if name in files else "captions without a picture"
                    self.findings.fault(kind, f"{name} ({line.place})")
                elif (name, *texts) in seen:
                    self.findings.fault("metadata rows that say the same again", line.place)
                else:
                    seen.add((name, *texts))
                    captions.setdefault(name, []).extend(texts)
        return captions

    def _shape(self, line: Line, *, spoken: bool) -> tuple[str, list[str]]:
        """The column of the name, and those of the captions: none where other rows have some, and this one is silent."""
        named = find("file name", line.record, FILE_COLUMNS, where=line.where)
        here = self.caption_column in line.record if self.caption_column else known_captions(line.record)
        return named, [] if spoken and not here else caption_columns(line.record, self.caption_column, where=line.where)

    def _dropped(self, table: Path) -> Dropped:
        return lambda told: self.findings.fault(DROPPED, f"{table.relative_to(self.path)}: {told}")


def _table_like(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix.startswith((".json", ".csv", ".tsv", ".parquet", ".xlsx"))


def _text_lines(file: Path) -> list[str]:
    try:
        text = read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8 at byte {error.start}", where=file, fix="save it as UTF-8", case=7) from error
    return [line for line in text.splitlines() if tidy(line)] or [""]
