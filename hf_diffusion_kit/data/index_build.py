"""From COCO's JSON to an index on disk, in one pass over each file.

Memory: some numbers a picture; what is known of captions and objects goes to disk as it is read, and is sorted there. What is wrong
is counted on the way.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import CAPTIONS, stream
from .base import Findings
from .index_captions import Captions
from .index_columns import FILES, MANIFEST, facts_mark, file_mark
from .index_pictures import Pictures, split_of
from .index_things import Things

Watch = Callable[[memoryview], None]


def build(folder: Path, captions: Path, instances: Path | None, watch: tuple[Watch, Watch]) -> dict[str, Any]:
    """Fills `folder`; returns the facts, to which the caller adds the digest and hands to `finish`."""
    with tempfile.TemporaryDirectory(prefix=".waiting-", dir=folder, ignore_cleanup_errors=True) as waiting:
        return _build(folder, Path(waiting), captions, instances, watch)


def _build(folder: Path, waiting: Path, captions: Path, instances: Path | None, watch: tuple[Watch, Watch]) -> dict[str, Any]:
    findings = Findings()
    pictures, told = _read(folder, waiting, captions, watch[0])
    spoken = told.spoken(pictures, findings)
    things = Things(waiting)
    if instances is not None:
        things.read(instances, watch[1])
    licenses = pictures.licenses(findings)
    kept = spoken.kept
    ids, width, height = pictures.ids.all()[kept], pictures.width.read[kept], pictures.height.read[kept]
    arrays = {"kept": kept, "ids": ids, "width": width, "height": height, "caption_starts": spoken.starts}
    arrays["license"] = pictures.license_of(kept, licenses)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    things.write(folder, ids, width, height, findings)
    return {
        "split": split_of(captions),
        "pictures": len(kept),
        "areas": things.has_areas,
        "categories": [[name, above] for name, above in things.named()],
        "licenses": licenses,
        "faults": findings.faults,
        "notes": findings.notes,
    }


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """The manifest, last: without it an index is none."""
    files = {name: file_mark(folder / name) for name in FILES}
    told = {**facts, "files": files}
    (folder / MANIFEST).write_text(json.dumps({**told, "mark": facts_mark(told)}, ensure_ascii=False), encoding="utf-8")


def _read(folder: Path, waiting: Path, file: Path, watch: Watch) -> tuple[Pictures, Captions]:
    pictures, captions = Pictures(file, folder, waiting), Captions(folder, waiting)
    for name, part in stream(file, CAPTIONS, watch=watch):
        if name == "images":
            pictures.add(part)
        elif name == "annotations":
            captions.add(part)
        else:
            pictures.told |= {str(entry.id): (entry.name or "", entry.url or "") for entry in part}
    pictures.close()
    captions.texts.close()
    return pictures, captions
