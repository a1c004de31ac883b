"""Reads, chooses and decodes: a source's rows become a `Captioned`, and whatever is left out is counted."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm import tqdm

from ..errors import SourceError
from .base import Row, Source, some
from .captioned import Captioned, dataset_of, fingerprint, table_of
from .captions import choose, pick_key
from .pictures import REMARKS, Stored, store
from .subset import Subset
from .wanted import of_size

BATCH = 64
OnBad = Literal["error", "skip"]


@dataclass(frozen=True)
class Choice:
    subset: Subset
    strict: bool = False
    on_bad_image: OnBad = "error"
    progress: bool = False

    def words(self) -> list[str]:
        return [*self.subset.words(), *(["--on-bad-image", "skip"] if self.on_bad_image == "skip" else [])]


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
    taken = Taken()
    table = table_of(_batches(source, rows, choice, taken))
    if count is not None:
        findings.left_out["pictures beyond the count"] = len(rows) - table.num_rows - len(taken.bad)
    for name in taken.bad:
        findings.fault("pictures that cannot be read", name)
    words = source.words()
    mark = fingerprint(table)
    return Captioned(
        dataset_of(table, mark),
        source=source.name,
        recipe=shlex.join(["hfdk", "subset", *words, *choice.words(), "--out", "subset"]) if words else None,
        licenses=dict(taken.licenses.most_common()),
        left_out={reason: number for reason, number in findings.counts().items() if number},
        notes=(*findings.sentences(), *taken.sentences()),
        fingerprint=mark,
    )


@dataclass
class Taken:
    """What is learnt while the pictures are decoded."""

    names: dict[str, list[str]] = field(default_factory=dict)
    """sha256 -> names of the pictures that are it."""
    bad: dict[str, SourceError] = field(default_factory=dict)
    """Name -> what is wrong with it. An error names the whole path, and so is shown but never kept."""
    remarks: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, picture: Stored, sha256: str) -> None:
        self.names.setdefault(sha256, []).append(row.file_name)
        self.licenses[row.license or "not stated"] += 1
        self.remarks.update(picture.remarks)
        stated = {row.width, row.height} - {0}
        self.remarks["other"] += bool(stated) and stated != {picture.width, picture.height}

    def sentences(self) -> list[str]:
        words = {**REMARKS, "other": "pictures of another size than their annotations state"}
        same = [" = ".join(names) for names in self.names.values() if len(names) > 1]
        counted = [f"{words[remark]}: {number}" for remark, number in self.remarks.items() if number]
        return [*counted, *([f"pictures that are the same, byte for byte: {some(same)}"] if same else [])]


def _batches(source: Source, rows: list[Row], choice: Choice, taken: Taken) -> Iterator[list[dict[str, Any]]]:
    """Decodes the rows in order until enough are taken. All bad ones are named in one error, unless they are skipped."""
    count = choice.subset.count
    wanted = count or len(rows)
    batch: list[dict[str, Any]] = []
    done = start = 0
    with tqdm(total=wanted, desc="pictures", unit="picture", disable=not choice.progress) as bar:
        while done < wanted and start < len(rows) and not (choice.on_bad_image == "error" and taken.bad):
            part = rows[start : start + wanted - done]
            start += len(part)
            for row, content in source.contents(part):
                try:
                    if isinstance(content, SourceError):
                        raise content
                    picture = store(content, row.path or row.file_name)
                except SourceError as error:
                    taken.bad[row.file_name] = error
                    continue
                if reason := of_size(picture.width, picture.height, choice.subset):
                    source.findings.left_out[reason] += 1
                    continue
                batch.append(_record(row, picture, taken, choice.subset))
                done += 1
                bar.update()
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    if taken.bad and (choice.on_bad_image == "error" or not done):
        raise _refused(source, list(taken.bad.values()), min(wanted, len(rows)))
    if done < wanted and count is not None:
        what = f"{count} pictures are asked for and {done} can be read"
        raise SourceError(what, where=source.name, fix=f"ask for at most {done}", case=10)
    if batch:
        yield batch


def _record(row: Row, picture: Stored, taken: Taken, subset: Subset) -> dict[str, Any]:
    sha256 = hashlib.sha256(picture.content).hexdigest()
    taken.add(row, picture, sha256)
    return {
        "image": {"bytes": picture.content, "path": row.file_name},
        "text": choose(row.captions, subset.caption, seed=subset.seed, epoch=0, image_id=row.image_id),
        "captions": list(row.captions),
        "image_id": row.image_id,
        "file_name": row.file_name,
        "width": picture.width,
        "height": picture.height,
        "categories": list(row.categories),
        "license": row.license,
        "license_url": row.license_url,
        "flickr_url": row.flickr_url,
        "coco_url": row.coco_url,
        "sha256": sha256,
    }


def _refused(source: Source, bad: list[SourceError], wanted: int) -> SourceError:
    if len(bad) == 1:
        return bad[0]
    hint = "; is this the folder of another split or year?" if len(bad) == wanted and source.name == "coco" else ""
    first = "; ".join(str(error).partition(" Fix:")[0] for error in bad[:3])
    what = f"{len(bad)} of {wanted} pictures cannot be used: {first}{' ...' if len(bad) > 3 else ''}{hint}"
    return SourceError(
        what, where=source.name, fix="hfdk check names all of them; --on-bad-image skip goes on without them", case=bad[0].case
    )
