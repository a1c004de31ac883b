"""Reads, chooses and decodes: a source's rows become a `Captioned`, and whatever is left out is counted."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import pyarrow as pa
from tqdm import tqdm

from ..errors import SourceError
from ..records import SubsetRecord
from .addresses import secure
from .base import Row, Source, bare, some
from .captioned import Captioned, dataset_of
from .captions import choose, pick_key
from .features import SCHEMA
from .pictures import store
from .spool import BATCH_BYTES, BATCH_ROWS, spooled
from .subset import Subset
from .table import Table
from .tally import Tally
from .wanted import of_size

OnBad = Literal["error", "skip"]
Pixels = Literal["embedded", "none"]
Record = dict[str, Any]
"""One row of the columns of features.py."""
VERSIONS = ("hf-diffusion-kit", "datasets", "pyarrow", "Pillow")
"""What decides which bytes come out."""
ADDRESSES = (
    "rows have the addresses of the pictures; stock `datasets` fetches one when it is looked at (pip install aiohttp requests)"
)


@dataclass(frozen=True)
class Choice:
    subset: Subset
    strict: bool = False
    on_bad_image: OnBad = "error"
    progress: bool = False
    pixels: Pixels = "embedded"
    """`none`: no picture is read; rows have the addresses."""

    def words(self) -> list[str]:
        skip = ["--on-bad-image", "skip"] if self.on_bad_image == "skip" else []
        return [*self.subset.words(), *(["--pixels", "none"] if self.pixels == "none" else []), *skip]


def gather(source: Source, choice: Choice) -> Captioned:
    count = choice.subset.count
    rows = list(source.rows(choice.subset))
    findings = source.findings
    if choice.strict and findings.faults:
        reason, names = next(iter(findings.faults.items()))
        raise SourceError(f"{reason}: {some(names)}", where=source.name, fix="mend them, or do without strict", case=9)
    if not rows:
        why = "; ".join(f"{reason}: {number}" for reason, number in findings.counts().items())
        raise SourceError(
            f"not one picture is left ({why or 'there was none'})", where=source.name, fix="choose less narrowly", case=10
        )
    if count is not None:
        rows.sort(key=lambda row: pick_key(choice.subset.seed, row.image_id))
        if count > len(rows):
            what = f"{count} pictures are asked for and {len(rows)} are there"
            raise SourceError(what, where=source.name, fix=f"ask for at most {len(rows)}", case=10)
    tally = Tally()
    spool = spooled(_batches(_records(source, rows, choice, tally)), SCHEMA)
    dataset = dataset_of(spool, tally.mark.hexdigest())
    if count is not None:
        findings.left_out["pictures beyond the count"] = len(rows) - tally.seen
    for name in tally.bad:
        findings.fault("pictures without an address" if choice.pixels == "none" else "pictures that cannot be read", name)
    if choice.pixels == "none":
        findings.notes.append(ADDRESSES)
    words = source.words()
    hub, before = (source.hub, source.before) if isinstance(source, Table) else (None, None)
    out = "chosen" if words[:2] == ["folder", "subset"] else "subset"  # what a recipe reads it does not write over
    record = SubsetRecord(
        source=source.name,
        rows=tally.rows,
        captions=tally.captions,
        fingerprint=tally.mark.hexdigest(),
        recipe=shlex.join(["hfdk", "subset", *words, *choice.words(), "--out", out]) if words else None,
        choice=choice.subset.told(),
        files=source.files(),
        splits=sorted(tally.splits),
        pixels=choice.pixels,
        bytes=tally.bytes,
        categories=dict(tally.categories.most_common()),
        licenses=dict(tally.licenses.most_common()),
        left_out={reason: number for reason, number in findings.counts().items() if number},
        notes=(*findings.sentences(), *tally.sentences(dataset.data.table, choice.subset.caption)),
        versions={name.lower().replace("-", "_"): version(name) for name in VERSIONS},
        hub=hub,
        before=before,
    )
    return Captioned(dataset, record)


def _batches(records: Iterator[Record]) -> Iterator[pa.RecordBatch]:
    batch: list[Record] = []
    held = 0
    for record in records:
        batch.append(record)
        held += len(record["image"]["bytes"] or b"")
        if len(batch) == BATCH_ROWS or held >= BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(batch, schema=SCHEMA)
            batch, held = [], 0
    if batch:
        yield pa.RecordBatch.from_pylist(batch, schema=SCHEMA)


def _records(source: Source, rows: list[Row], choice: Choice, tally: Tally) -> Iterator[Record]:
    """The rows in order until enough are taken. All bad ones are named in one error, unless they are skipped."""
    count, made = choice.subset.count, _addressed if choice.pixels == "none" else _decoded
    wanted = count or len(rows)
    done = start = 0
    with tqdm(total=wanted, desc="pictures", unit="picture", disable=not choice.progress) as bar:
        while done < wanted and start < len(rows) and not (choice.on_bad_image == "error" and tally.bad):
            part = rows[start : start + wanted - done]
            start += len(part)
            tally.seen = start
            for record in made(source, part, choice, tally):
                yield record
                done += 1
                bar.update()
    if tally.bad and (choice.on_bad_image == "error" or not done):
        raise _refused(source, choice, list(tally.bad.values()), min(wanted, len(rows)))
    if done < wanted and count is not None:
        what = f"{count} pictures are asked for and {done} can be read"
        raise SourceError(what, where=source.name, fix=f"ask for at most {done}", case=10)


def _decoded(source: Source, rows: list[Row], choice: Choice, tally: Tally) -> Iterator[Record]:
    """Every picture decoded in full, its file stripped of what is private."""
    for row, content in source.contents(rows):
        try:
            if isinstance(content, SourceError):
                raise content
            picture = store(content, row.path or row.file_name)
        except SourceError as error:
            tally.bad[row.file_name] = bare(error)
            continue
        if reason := of_size(picture.width, picture.height, choice.subset):
            source.findings.left_out[reason] += 1
            continue
        sha256 = hashlib.sha256(picture.content).hexdigest()
        tally.add(row, sha256)
        tally.remark(picture.remarks, (picture.width, picture.height), row)
        tally.bytes += len(picture.content)
        image = {"bytes": picture.content, "path": row.file_name}
        yield _record(row, choice.subset, image=image, width=picture.width, height=picture.height, sha256=sha256)


def _addressed(source: Source, rows: list[Row], choice: Choice, tally: Tally) -> Iterator[Record]:
    """Nothing is read: the address stands for the picture, its size is what the annotations state, or unknown."""
    for row in rows:
        address = secure(row.coco_url)
        if address is None:
            what = f"has no address ({row.coco_url!r})" if row.coco_url else "has no address"
            tally.bad[row.file_name] = SourceError(what, where=row.file_name, fix="embed the pixels", case=9)
            continue
        tally.add(row, address)
        image = {"bytes": None, "path": address}
        yield _record(row, choice.subset, image=image, width=row.width or None, height=row.height or None, sha256=None)


def _record(row: Row, subset: Subset, **known: Any) -> Record:
    return {
        "text": choose(row.captions, subset.caption, seed=subset.seed, epoch=0, image_id=row.image_id),
        "captions": list(row.captions),
        "image_id": row.image_id,
        "file_name": row.file_name,
        "categories": list(row.categories),
        "license": row.license,
        "license_url": row.license_url,
        "flickr_url": row.flickr_url,
        "coco_url": row.coco_url,
        **known,
    }


def _refused(source: Source, choice: Choice, bad: list[SourceError], wanted: int) -> SourceError:
    """All bad pictures in one line, with what mends all of them where that is one thing, and only what would help here."""
    if len(bad) == 1:
        return bad[0]
    told = list(dict.fromkeys(error.fix for error in bad))
    ways = [told[0]] if len(told) == 1 and told[0] else []
    if choice.pixels == "embedded" and not (isinstance(source, Table) and source.hub):
        ways.append("hfdk check names all of them")
    if choice.on_bad_image == "error":
        ways.append("--on-bad-image skip goes on without them")
    hint = "; is this the folder of another split or year?" if len(bad) == wanted and source.name == "coco" else ""
    first = "; ".join(str(error).partition(" Fix:")[0] for error in bad[:3])
    what = f"{len(bad)} of {wanted} pictures cannot be used: {first}{' ...' if len(bad) > 3 else ''}{hint}"
    return SourceError(what, where=source.name, fix="; ".join(ways) or None, case=bad[0].case)
