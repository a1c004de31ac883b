"""A captioned dataset on disk: Parquet with the pictures inside, a README.md that stock `load_dataset` reads, facts.json.

Whole or absent: built beside its place under another name, synced, renamed.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError, StorageError
from .features import CARD, FEATURES

FACTS = "facts.json"
SHARD_BYTES = 400_000_000
ROW_GROUP = 100
"""Rows that a reader has to hold at once."""


def write(folder: Path, table: pa.Table, facts: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Returns `folder`. One that holds the same already is left as it is; another subset is replaced only with `overwrite`.

    Raises StorageError when the folder holds something else, or cannot be written; then nothing has changed.
    """
    if set(str(folder.resolve())) & set("*?[]"):
        raise StorageError(
            "`load_dataset` takes * ? [ ] in a path for a pattern", where=folder, fix="name another folder", case=3
        )
    if occupied(folder):
        if (folder / FACTS).is_file() and _same(folder, facts):
            return folder
        if not (folder / FACTS).is_file() or not overwrite:
            ours = (folder / FACTS).is_file()
            what = "holds another subset" if ours else "exists and is not an empty folder"
            raise StorageError(
                what, where=folder, fix="say --overwrite, or name another folder" if ours else "name another folder", case=3
            )
    half = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _fill(half, table, facts)
        if folder.exists():
            old = folder.with_name(f".old-{folder.name}-{os.getpid()}")
            folder.replace(old)
            half.replace(folder)
            shutil.rmtree(old)
        else:
            half.replace(folder)
        _sync(folder.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=folder, fix="free space, or name another folder", case=3
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def read(folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the facts, as `write` was given them. Raises SourceError when a file is missing or damaged."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        table = parquet(folder)
    except (ValueError, OSError) as error:
        raise SourceError(f"cannot be read: {error}", where=folder, fix="make the subset again", case=11) from error
    if not isinstance(facts, dict) or "fingerprint" not in facts or table.column_names != list(FEATURES):
        raise SourceError("is not a subset that this package wrote", where=folder, fix="make the subset again", case=11)
    return table, facts


def parquet(folder: Path) -> pa.Table:
    """All Parquet files below a folder, in the order of their names, as one table in memory."""
    files = sorted(folder.rglob("*.parquet"))
    try:
        return pa.concat_tables([pq.read_table(file) for file in files])
    except pa.ArrowException as error:
        raise SourceError(f"its Parquet cannot be read: {error}", where=folder, fix="make or fetch it again", case=11) from error


def is_saved(folder: Path) -> bool:
    return (folder / FACTS).is_file() and (folder / "data").is_dir()


def occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _same(folder: Path, facts: Mapping[str, Any]) -> bool:
    try:
        return read(folder)[1] == facts
    except SourceError:
        return False


def _fill(half: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    shutil.rmtree(half, ignore_errors=True)
    (half / "data").mkdir(parents=True)
    shards = max(1, -(-table.nbytes // SHARD_BYTES))
    shards = shards if shards <= 8 else -(-shards // 8) * 8  # nodes share shards evenly
    rows = -(-table.num_rows // shards)
    for shard in range(shards):
        path = half / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"
        part = table.slice(shard * rows, rows)
        with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False, write_page_index=True) as writer:
            for start in range(0, part.num_rows, ROW_GROUP):
                writer.write_table(part.slice(start, ROW_GROUP))
        _sync(path)
    splits = f"  splits:\n  - {{name: train, num_examples: {table.num_rows}, num_bytes: {table.nbytes}}}\n"
    texts = {
        FACTS: json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        "README.md": f"---\n{CARD}{splits}---\n\n{_readme(facts)}",
    }
    for name, text in texts.items():
        (half / name).write_text(text, encoding="utf-8")
        _sync(half / name)
    _sync(half / "data")
    _sync(half)


def _readme(facts: Mapping[str, Any]) -> str:
    def listed(counts: Mapping[str, int]) -> str:
        return "\n".join(f"- {_plain(name)}: {count}" for name, count in counts.items()) or "- none"

    made = f"Made by\n\n    {_plain(facts['recipe'])}\n" if facts["recipe"] else "Made from a table in memory.\n"
    notes = "\n".join(f"- {_plain(note)}" for note in facts["notes"]) or "- none"
    return f"""# {facts["rows"]} captioned pictures

{made}
```python
from datasets import load_dataset

rows = load_dataset("this folder", split="train")  # image, text (one caption), captions (all of them), ...
```

Pictures by licence (each row names its own; annotations may have another):

{listed(facts["licenses"])}

Left out:

{listed(facts["left_out"])}

Notes:

{notes}
"""


def _plain(text: str) -> str:
    """Text of others in Markdown: no HTML, no code fence, one line."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("`", "'")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
