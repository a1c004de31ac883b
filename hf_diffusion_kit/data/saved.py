"""A captioned dataset on disk: Parquet with the pictures inside, a README.md that stock `load_dataset` reads, facts.json, manifest.json.

Whole or absent: built beside its place under another name, synced, renamed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import MemoryMappedTable

from ..errors import KitError, SourceError, StorageError
from ..records import SCHEMA as SCHEMA_NUMBER
from ..records import SubsetRecord
from . import shards
from .beside import FACTS, texts
from .durable import sync
from .features import SCHEMA
from .fingerprint import Fingerprint
from .shards import AGAIN, Shard
from .spool import BATCH_ROWS, spooled

LATER = frozenset({"hub", "before"})
"""Fields of the record that a folder may lack, for it was written before there were any; it has none of them then."""
MANIFEST = "manifest.json"
"""Which choice, and of every shard: rows, bytes, sha256."""


def write(folder: Path, table: pa.Table, record: SubsetRecord, *, overwrite: bool = False) -> Path:
    """Returns `folder`. One that holds the same already is left as it is; another subset is replaced only with `overwrite`.

    Raises StorageError when the folder holds something else, or cannot be written; then nothing has changed.
    """
    if taken(folder) and _same(folder, record):
        return folder
    check_place(folder, overwrite=overwrite)
    place = Path(os.path.realpath(folder))  # where a link leads to; the link stays one
    half = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _fill(half, table, record)
        if place.exists():
            _replace(place, half)
        else:
            half.replace(place)
        sync(place.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=folder, fix="free space, or name another folder", case=3
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def taken(folder: Path) -> bool:
    """Whether a subset, this one or another, is there."""
    return (folder / FACTS).is_file()


def check_place(folder: Path, *, overwrite: bool = False) -> None:
    """Raises StorageError where a subset could not be written; asked before the work, too."""
    if set(str(folder.resolve())) & set("*?[]"):
        raise StorageError(
            "`load_dataset` takes * ? [ ] in a path for a pattern", where=folder, fix="name another folder", case=3
        )
    if occupied(folder) and not (taken(folder) and overwrite):
        what = "holds another subset" if taken(folder) else "exists and is not an empty folder"
        fix = "say --overwrite, or name another folder" if taken(folder) else "name another folder"
        raise StorageError(what, where=folder, fix=fix, case=3)
    if _stands_in(Path(os.path.realpath(folder))):
        raise StorageError("is the folder that you are in, and would be replaced", where=folder, fix="name one inside it", case=3)


def read(folder: Path) -> tuple[Path, SubsetRecord]:
    """A spool of the rows, and the record, as `write` was given them. Every file, picture and caption is compared with what was
    saved: raises SourceError that names the file that is missing or damaged."""
    record = facts(folder)
    return spooled(_verified(folder, record, manifest(folder)), SCHEMA), record


def facts(folder: Path) -> SubsetRecord:
    """Raises SourceError when it is not as this version writes it."""
    path = folder / FACTS
    raw = _json(path)
    known = {entry.name for entry in fields(SubsetRecord)}
    if not isinstance(raw, dict) or "fingerprint" not in raw:
        raise SourceError("is not a subset that this package wrote", where=folder, fix=AGAIN, case=11)
    if "schema" not in raw:
        raise SourceError("was made by an older version", where=folder, fix=AGAIN, case=11)
    if not isinstance(raw["schema"], int) or raw["schema"] > SCHEMA_NUMBER:
        raise SourceError("was made by a newer version", where=folder, fix="update hf-diffusion-kit", case=11)
    if wrong := sorted((raw.keys() ^ known) - LATER):
        raise SourceError(f"has {'no' if wrong[0] in known else 'an unknown'} field {wrong[0]!r}", where=path, fix=AGAIN, case=11)
    try:
        return msgspec.convert(raw, SubsetRecord)
    except msgspec.ValidationError as error:
        raise SourceError(f"is not as it was written: {error}", where=path, fix=AGAIN, case=11) from error


def manifest(folder: Path) -> list[Shard]:
    """The shards, in order. Raises SourceError when one is missing, or is not listed."""
    path = folder / MANIFEST
    raw = _json(path)
    try:
        told = msgspec.convert(raw["shards"], list[Shard])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise SourceError(f"is not as it was written: {error}", where=path, fix=AGAIN, case=11) from error
    there = {file.relative_to(folder).as_posix() for file in (folder / "data").glob("*.parquet")}
    if other := sorted(there ^ {shard.file for shard in told}):
        state = "is in the folder and not in the manifest" if other[0] in there else "is missing"
        raise SourceError(state, where=folder / other[0], fix=AGAIN, case=11)
    return told


def parquet(folder: Path, files: Sequence[Path] | None = None) -> MemoryMappedTable:
    """All Parquet files below a folder, or these of them, in the order of their names, as one table that `datasets` knows by its
    file; the fingerprint of one in memory would be made of all its pictures."""
    files = sorted(files or (file for file in folder.rglob("*.parquet") if file.name != "metadata.parquet"))
    try:
        schema = pq.read_schema(files[0])
        return MemoryMappedTable.from_file(str(spooled(_foreign(files, schema), schema)))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, KitError):
            raise
        told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SourceError(f"its Parquet cannot be read: {told}", where=folder, fix="make or fetch it again", case=11) from error


def is_saved(folder: Path) -> bool:
    return (folder / FACTS).is_file() and (folder / "data").is_dir()


def occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _stands_in(place: Path) -> bool:
    """Whether this process would be left in a folder that is no more, and so would the shell that started it."""
    try:
        return Path.cwd().is_relative_to(place)
    except OSError:  # it is no more already
        return False


def _replace(place: Path, half: Path) -> None:
    """What was there goes when the new is there, and comes back when that fails."""
    old = place.with_name(f".old-{place.name}-{os.getpid()}")
    place.replace(old)
    try:
        half.replace(place)
    except OSError:
        old.replace(place)
        raise
    shutil.rmtree(old)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        told, fix = error.strerror or error, "see that it may be read" if isinstance(error, PermissionError) else AGAIN
        raise SourceError(f"cannot be read: {told}", where=path, fix=fix, case=11) from error
    except ValueError as error:
        raise SourceError(f"cannot be read: {error}", where=path, fix=AGAIN, case=11) from error


def _same(folder: Path, record: SubsetRecord) -> bool:
    """Whatever versions made it."""
    try:
        if replace(facts(folder), versions={}) != replace(record, versions={}):
            return False
        for shard in manifest(folder):
            shards.check(folder, shard)
    except SourceError:
        return False
    return True


def _fill(half: Path, table: pa.Table, record: SubsetRecord) -> None:
    shutil.rmtree(half, ignore_errors=True)
    written = shards.write(table, half)
    spec = hashlib.sha256(json.dumps(record.choice, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
    listed = {"spec": spec, "fingerprint": record.fingerprint, "shards": [asdict(shard) for shard in written]}
    for name, content in {**texts(record, table), MANIFEST: json.dumps(listed, indent=2).encode() + b"\n"}.items():
        (half / name).parent.mkdir(parents=True, exist_ok=True)
        (half / name).write_bytes(content)
        sync(half / name)
    sync(half)


def _verified(folder: Path, record: SubsetRecord, listed: list[Shard]) -> Iterator[pa.RecordBatch]:
    mark, rows = Fingerprint(), 0
    for shard in listed:
        for batch in shards.batches(folder, shard):
            columns = [batch.column(name) for name in ("image", "sha256", "captions", "file_name")]
            for image, sha256, captions, name in zip(*columns, strict=True):
                content, told = image["bytes"], sha256.as_py()
                if told is not None and (not content.is_valid or hashlib.sha256(content.as_buffer()).hexdigest() != told):
                    where = folder / shard.file
                    raise SourceError(f"{name} has been changed since it was saved", where=where, fix=AGAIN, case=11)
                mark.add(told if told is not None else str(image["path"]), captions.as_py())
            rows += batch.num_rows
            yield batch
    if rows != record.rows or mark.hexdigest() != record.fingerprint:
        raise SourceError("rows have been changed since they were saved", where=folder, fix=AGAIN, case=11)


def _foreign(files: list[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:  # a buffer would hold the whole file
            if not file.schema_arrow.equals(schema):
                raise SourceError(f"has other columns than {files[0].name}", where=path, fix="read them one by one", case=11)
            for batch in file.iter_batches(BATCH_ROWS):
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
