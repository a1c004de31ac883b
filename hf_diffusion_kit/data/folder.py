"""One's own folder of pictures: captions in metadata.jsonl or .csv, in files beside the pictures, or one prompt for all."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SourceError, nearest
from .base import Findings, Row, some
from .captions import tidy
from .columns import FILE_COLUMNS, caption_columns, captions_of, find
from .metadata import NAMES, lines
from .paths import folded, plain_name
from .pictures import OTHER_SUFFIXES, SUFFIXES, read, read_rows
from .subset import Subset
from .wanted import wanted

SIDECARS = ("{stem}.txt", "{name}.txt", "{stem}.caption", "{name}.caption")
"""Files beside a picture that hold its captions, one a line: a.txt, a.jpg.txt, a.caption, a.jpg.caption."""
ORDER = "metadata.jsonl, metadata.csv, files beside the pictures (.txt, .caption), one prompt for all"
Captions = Mapping[str, list[str]]


@dataclass
class Folder:
    """All JPEG, PNG, WebP and BMP pictures below `path`, sorted by name.

    Captions come from the first of ORDER that is there. Others that are there as well are an error, as is a prompt for pictures
    that have captions: what somebody wrote is used or said to be ignored.
    """

    path: Path
    prompt: str | None = None
    """One caption for all (DreamBooth's instance prompt), for pictures without captions."""
    ignore_captions: bool = False
    """Use the prompt (or the first kind of caption) although others exist."""
    caption_column: str | None = None
    """Column of the metadata; None takes the one that is known by name."""
    findings: Findings = field(default_factory=Findings)
    name = "folder"

    def rows(self, subset: Subset) -> Iterator[Row]:
        return wanted(self._rows(), subset, self.findings)

    def _rows(self) -> Iterator[Row]:
        pictures = self._pictures()
        captions, described = self._captions(pictures)
        unspoken = set(pictures)
        for name, texts in captions.items():
            unspoken.discard(name)
            told = [text for text in texts if tidy(text)]
            for _ in range(len(texts) - len(told)):
                self.findings.fault("blank captions", name)
            if not told:
                self.findings.fault("pictures without a caption", name)
        for name in sorted(unspoken):
            self.findings.fault("pictures without a caption", name)
        self.findings.notes.append(f"captions come from {described}")
        for name in sorted(pictures):
            if texts := [text for text in captions.get(name, []) if tidy(text)]:
                yield Row(image_id=name, file_name=name, folder=self.path, captions=tuple(texts))

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
        return read_rows(rows)

    def words(self) -> list[str]:
        prompt = ["--prompt", self.prompt] if self.prompt else []
        ignore = ["--ignore-captions"] if self.ignore_captions else []
        column = ["--caption-column", self.caption_column] if self.caption_column else []
        return ["folder", self.path.resolve().name, *prompt, *ignore, *column]

    def pictures(self) -> list[str]:
        """Names of the pictures, for who wants to look at them whatever is wrong with their captions."""
        return sorted(self._pictures())

    def _pictures(self) -> dict[str, Path]:
        """NFC name relative to the folder -> file. Hidden files and folders are passed over, as is `__MACOSX`."""
        if not self.path.is_dir():
            raise SourceError("there is no such folder", where=self.path, case=9)
        found: dict[str, Path] = {}
        for path in sorted(self.path.rglob("*")):
            inner = path.relative_to(self.path)
            if any(part.startswith((".", "__MACOSX")) for part in inner.parts) or not path.is_file():
                continue
            name = unicodedata.normalize("NFC", inner.as_posix())
            if path.suffix.lower() in SUFFIXES:
                found[name] = path
            elif path.suffix.lower() in OTHER_SUFFIXES:
                self.findings.fault("files that are not JPEG, PNG, WebP or BMP", name)
        if not found:
            others = self.findings.faults.get("files that are not JPEG, PNG, WebP or BMP")
            what = f"holds no picture that can be read, only {some(others)}" if others else "holds no picture"
            raise SourceError(what, where=self.path, fix="put JPEG, PNG, WebP or BMP files there", case=10)
        self._one_set(found)
        return found

    def _one_set(self, pictures: Mapping[str, Path]) -> None:
        """A COCO folder, or one with train and validation beside each other, is not one set of pictures."""
        if any((self.path / "annotations").glob("captions_*.json")):
            fix = f"hfdk subset coco --annotations {self.path / 'annotations'} --images {self.path}"
            raise SourceError("is a COCO folder; its captions are in annotations/", where=self.path, fix=fix, case=9)
        tops = {name.split("/")[0] for name in pictures if "/" in name}
        held_out = tops & {"val", "valid", "validation", "test"}
        if "train" in tops and held_out and not any((self.path / name).exists() for name in NAMES):
            what = f"holds several sets: train, {', '.join(sorted(held_out))}"
            raise SourceError(what, where=self.path, fix=f"name one of them: {self.path / 'train'}", case=9)

    def _captions(self, pictures: Mapping[str, Path]) -> tuple[Captions, str]:
        """Picture -> captions, and in words where they come from."""
        files = [file for kind in NAMES for file in sorted(self.path.rglob(kind))]
        beside = self._beside(pictures)
        kinds = sorted({file.name for file in files}, key=NAMES.index) + (["files beside the pictures"] if beside else [])
        if self.prompt is not None:
            if not tidy(self.prompt):
                raise SourceError("the prompt is blank", where="prompt", case=8)
            self._unused(kinds, "the prompt")
            return {name: [self.prompt] for name in pictures}, "the prompt, the same for all"
        self._unused(kinds[1:], kinds[0] if kinds else "")
        if not kinds:
            raise self._no_captions()
        if kinds[0] == "files beside the pictures":
            if several := sum(len(texts) > 1 for texts in beside.values()):
                self.findings.notes.append(f"{several} caption files hold several lines; each line is one caption")
            return beside, "files beside the pictures"
        return self._from_metadata([file for file in files if file.name == kinds[0]], pictures), kinds[0]

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

    def _no_captions(self) -> SourceError:
        tables = [
            path.name for path in self.path.iterdir() if path.is_file() and path.suffix.startswith((".json", ".csv", ".tsv"))
        ]
        hint = next(
            (f"found {name}, {near}" for name in sorted(tables) if (near := nearest(name, NAMES)).startswith("did")), None
        )
        what = f"has pictures and no captions; {hint}" if hint else "has pictures and no captions"
        fix = "rename it" if hint else f"give captions in one of: {ORDER}"
        return SourceError(what, where=self.path, fix=fix, case=9)

    def _beside(self, pictures: Mapping[str, Path]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        used: set[Path] = set()
        for name, path in pictures.items():
            texts: dict[Path, list[str]] = {}
            for pattern in SIDECARS:
                file = path.with_name(pattern.format(stem=path.stem, name=path.name))
                if file.is_file():
                    texts[file] = _text_lines(file)
            if len({tuple(map(tidy, told)) for told in texts.values()}) > 1:
                names = " and ".join(file.name for file in texts)
                raise SourceError(f"{names} hold different captions", where=path, fix="keep one of them", case=9)
            used |= texts.keys()
            if texts:
                found[name] = next(iter(texts.values()))
        if found:
            stems = {
                str(file.relative_to(self.path))
                for kind in ("*.txt", "*.caption")
                for file in self.path.rglob(kind)
                if file not in used
            }
            for name in sorted(stems):
                self.findings.fault("caption files without a picture", name)
        return found

    def _from_metadata(self, files: list[Path], pictures: Mapping[str, Path]) -> Captions:
        captions: dict[str, list[str]] = {}
        near = {folded(name): name for name in pictures}
        for file in files:
            seen: set[tuple[str, ...]] = set()
            for line in lines(file):
                where = f"{file}: line {line.number}"
                columns = caption_columns(line.record, self.caption_column, where=where)
                told = line.record[find("file name", line.record, FILE_COLUMNS, where=where)]
                if not isinstance(told, str):
                    raise SourceError(f"the file name is {told!r}", where=where, fix="name the picture's file", case=9)
                inner = (file.parent.relative_to(self.path) / plain_name(told, where=where)).as_posix()
                name = unicodedata.normalize("NFC", inner)
                texts = captions_of(line.record, columns, where=where)
                if name not in pictures:
                    if folded(name) in near:
                        what = f"there is no {told!r}; did you mean {near[folded(name)]!r}?"
                        raise SourceError(what, where=where, fix="write the name as the file has it", case=6)
                    self.findings.fault("captions without a picture", f"{name} (line {line.number})")
                elif (name, *texts) in seen:
                    self.findings.fault("metadata rows that say the same again", f"line {line.number}")
                else:
                    seen.add((name, *texts))
                    captions.setdefault(name, []).extend(texts)
        return captions


def _text_lines(file: Path) -> list[str]:
    try:
        text = read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8 at byte {error.start}", where=file, fix="save it as UTF-8", case=7) from error
    return [line for line in text.splitlines() if tidy(line)] or [""]
