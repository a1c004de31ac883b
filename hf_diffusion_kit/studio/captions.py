"""A folder's captions as the loader reads them, and their way back to where they came from."""

import hashlib
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..data.base import Findings, some
from ..data.captions import tidy
from ..data.concepts import NAME as CONCEPTS
from ..data.concepts import is_concepts
from ..data.durable import sync
from ..data.folder import BESIDE, SIDECARS, Folder
from ..data.metadata import NAMES
from ..data.paths import plain_name
from ..data.saved import is_saved
from ..data.scan import pictures_of, scan, splits_of
from ..data.subset import Subset
from ..errors import SourceError, StorageError
from .tables import Place, Table

FIRST_STATE = ".captions-before"
"""Folder in the set's, hidden from every loader: each file of captions as it was before the first change."""
TABLE, PARQUET = "metadata.jsonl", "metadata.parquet"


class Stale(SourceError):
    """The files are no longer what the page was made from."""


@dataclass(frozen=True)
class State:
    """What lies there now."""

    captions: dict[str, tuple[str, ...]]
    """Picture -> its captions, as they were written; none for one that has none."""
    kind: str
    """Where they come from: metadata.jsonl, metadata.csv, metadata.parquet, files beside the pictures; empty where there are none yet."""
    sources: dict[str, str]
    """Picture -> the file or files that its captions come from, or will go to."""
    notes: tuple[str, ...]
    digest: str
    """Of the captions' files and the pictures' names: two tabs that show the same have the same."""
    pictures: dict[str, Path] = field(repr=False)
    tables: dict[str, Table] = field(repr=False)
    """Name below the folder -> what it says."""
    files: dict[str, Path] = field(repr=False)


@dataclass(frozen=True)
class Shelf:
    folder: Path
    split: str | None = None
    column: str | None = None

    def read(self) -> State:
        """Raises SourceError for what the loader would not read either, and for what holds no captions of its own."""
        if is_saved(self.folder):
            fix = "edit the folder that it was made from, and make it again"
            raise SourceError("is a saved subset, whose rows are sealed", where=self.folder, fix=fix, case=9)
        if self.folder.is_dir() and is_concepts(self.folder):
            raise SourceError(f"has its captions in {CONCEPTS}", where=self.folder, fix="write them there", case=9)
        files = scan(self.folder, Findings())
        source = Folder(self.folder, split=self.split, caption_column=self.column)
        pictures = pictures_of(files, self.folder, Findings())
        if not splits_of(pictures) and not self._any_captions(files, pictures):
            found, kind = {}, ""
        else:
            found = {row.file_name: row.captions for row in source.rows(Subset())}
            kinds = [name for name in NAMES if any(PurePosixPath(one).name == name for one in source.read)]
            kind = kinds[0] if kinds else BESIDE
        chosen = {name: path for name, path in pictures.items() if self.split is None or name.startswith(f"{self.split}/")}
        tables = (
            {} if kind in (BESIDE, "", PARQUET) else {name: self._table(name, path).read() for name, path in source.read.items()}
        )
        digest = hashlib.sha256(repr((kind, sorted(chosen))).encode("utf-8", "surrogatepass"))
        for name, path in sorted(source.read.items()):
            digest.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
        state = State(
            {name: found.get(name, ()) for name in chosen},
            kind,
            {},
            tuple(source.findings.sentences())
            if kind
            else ("there are no captions yet; they will be written to metadata.jsonl",),
            digest.hexdigest(),
            chosen,
            tables,
            files,
        )
        state.sources.update({name: self._source(state, name) for name in chosen})
        return state

    def _any_captions(self, files: Mapping[str, Path], pictures: Mapping[str, Path]) -> bool:
        beside = (told for name in pictures for told in sidecars(name) if told in files)
        return any(path.name in NAMES for path in files.values()) or next(beside, None) is not None

    def _table(self, name: str, path: Path) -> Table:
        inside = name.removesuffix(path.name)
        return Table(path, inside, self.column)

    def _source(self, state: State, name: str) -> str:
        if state.kind == BESIDE:
            return " and ".join(there(state, name) or [new_sidecar(state, name)])
        if state.kind == PARQUET:
            return PARQUET
        told = [file for file, table in state.tables.items() if places_of(table, name)]
        return " and ".join(told) or home_of(state, name)

    def save(self, edits: Mapping[str, Sequence[str]], digest: str) -> list[str]:
        """Picture -> its captions anew: first one for each that it had (blank: it goes), then more. Returns the names of the files that
        were written. Raises Stale when the files have changed since `digest`, SourceError for what cannot be written as it was typed;
        then nothing has changed."""
        state = self.read()
        if state.digest != digest:
            fix = "copy what you typed, load the page again, and put it in there"
            raise Stale(
                "its captions or pictures have been changed elsewhere since this page read them", where=self.folder, fix=fix
            )
        if unknown := [name for name in edits if name not in state.captions]:
            raise SourceError(f"holds no picture {unknown[0][:80]!r}", where=self.folder, case=9)
        for name, texts in edits.items():
            check(name, texts, state)
        contents = self._beside(state, edits) if state.kind == BESIDE else self._metadata(state, edits)
        return write(self.folder, contents)

    def _beside(self, state: State, edits: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
        """File -> what it says then. One that two pictures share must be given the same by both."""
        wanted: dict[str, tuple[str, tuple[str, ...]]] = {}
        touched: dict[str, None] = {}
        for name, old in state.captions.items():
            texts = tuple(text for text in edits.get(name, old) if tidy(text))
            files = there(state, name) or ([new_sidecar(state, name)] if texts else [])
            for file in files:
                other, said = wanted.setdefault(file, (name, texts))
                if said != texts:
                    what = f"holds the captions of {other} and of {name}, which would differ"
                    raise SourceError(what, where=file, fix="give both the same, or each a file of its own", case=9)
                if texts != old:
                    touched[file] = None
        return {file: "".join(f"{text}\n" for text in wanted[file][1]).encode() for file in touched}

    def _metadata(self, state: State, edits: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
        if state.kind == PARQUET:
            fix = "write them as metadata.jsonl, and take metadata.parquet out of the folder"
            raise SourceError("captions in Parquet are shown and not written", where=self.folder / PARQUET, fix=fix, case=9)
        for name, new in edits.items():
            old, start = state.captions[name], 0
            mine = [(table, places) for table in state.tables.values() if (places := places_of(table, name))]
            for number, (table, places) in enumerate(mine, 1):
                end = start + len(table.spoken(places))
                table.put(places, old[start:end], new[start:] if number == len(mine) else new[start:end])
                start = end
            if not mine and (texts := [text for text in new if tidy(text)]):
                home = home_of(state, name)
                table = state.tables.setdefault(home, self._table(home, self.folder / home))
                table.add(name.removeprefix(table.inside), texts)
        return {name: table.written() for name, table in state.tables.items() if table.changed or table.added}


def sidecars(name: str) -> list[str]:
    stem = name.removesuffix(PurePosixPath(name).suffix)
    return list(dict.fromkeys(pattern.format(stem=stem, name=name) for pattern in SIDECARS))


def there(state: State, name: str) -> list[str]:
    return [told for told in sidecars(name) if told in state.files]


def new_sidecar(state: State, name: str) -> str:
    """a.txt, or a.jpg.txt where there is an a.png as well."""
    stem, full = sidecars(name)[:2]
    shared = [other for other in state.pictures if other != name and sidecars(other)[0] == stem]
    return full if shared else stem


def places_of(table: Table, name: str) -> list[Place]:
    """A picture's lines."""
    if not table.by_name:
        for place in table.places:
            told = plain_name(place.record[place.named], where=place.where)
            full = unicodedata.normalize("NFC", PurePosixPath(table.inside, told).as_posix())
            table.by_name.setdefault(full, []).append(place)
    return table.by_name.get(name, [])


def home_of(state: State, name: str) -> str:
    """The table that a picture's first caption goes to: the nearest above it."""
    near = [file for file, table in state.tables.items() if name.startswith(table.inside)]
    return max(near, key=len, default=TABLE)


def check(name: str, texts: Sequence[str], state: State) -> None:
    """Raises SourceError for what could not be read back as it was typed."""
    if len(texts) < len(state.captions[name]):
        raise SourceError("fewer captions than there are; a blank one goes", where=name, case=8)
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SourceError("is no text that a file can hold", where=name, fix="type it again", case=8) from error
        if state.kind == BESIDE and len(text.splitlines()) > 1:
            fix = "make it one line, or add a caption"
            raise SourceError(
                "a line break would make two captions of it: each line of the file is one", where=name, fix=fix, case=8
            )


def write(folder: Path, contents: Mapping[str, bytes]) -> list[str]:
    """All or, when the disk is full, none; the first state of each file is kept."""
    halves: dict[Path, Path] = {}
    try:
        for name, content in contents.items():
            path = folder / name
            if path.is_symlink():
                raise StorageError("is a link, which is not written through", where=path, fix="copy the folder first", case=3)
            if path.exists():
                keep(path, folder / FIRST_STATE / name)
            half = path.with_name(f".{path.name}.part")
            halves[half] = path
            half.write_bytes(content)
            if path.exists():
                shutil.copymode(path, half)
            sync(half)
        for half, path in halves.items():
            half.replace(path)
        for place in {path.parent for path in halves.values()}:
            sync(place)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot be written: {error.strerror}", where=error.filename, fix="free space", case=3) from error
    finally:
        for half in halves:
            half.unlink(missing_ok=True)
    return list(contents)


def keep(path: Path, kept: Path) -> None:
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_name(f".{kept.name}.part")
        shutil.copy2(path, half)
        sync(half)
        half.replace(kept)


def told(names: Sequence[str]) -> str:
    return f"written: {some(list(names))}" if names else "nothing was different"
