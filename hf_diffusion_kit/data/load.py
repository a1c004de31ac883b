"""From a source to a `Captioned`: read, choose, decode every picture, count what was left out."""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
from tqdm import tqdm

from ..errors import ConfigError, HubError, SourceError, positive
from . import saved
from .base import Row, Source, some
from .captioned import Captioned, dataset_of, fingerprint, table_of
from .captions import choose, pick_key
from .coco import Coco
from .folder import Folder
from .pictures import REMARKS, Stored, store
from .table import Table

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
BATCH = 64
OnBad = Literal["error", "skip"]


def load_captioned(
    source: str | Path,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    split: str | None = None,
    category: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    prompt: str | None = None,
    ignore_captions: bool = False,
    caption_column: str | None = None,
    strict: bool = False,
    on_bad_image: OnBad = "error",
    progress: bool = False,
) -> Captioned:
    """Captioned pictures, each decoded in full.

    `source`: `"coco"` (with `annotations` and `images`, see `Coco`), a folder (your own pictures, a saved subset, Parquet), or the
    id of a dataset on the Hub. `category`: all of them must be in the picture. `count` pictures are drawn by `seed`: the choice
    depends on the pictures' ids alone. `prompt`: one caption for all. `strict`: whatever would be left out through a fault is an
    error. `on_bad_image`: a picture that is missing or broken is an error, or is skipped and counted.

    Raises SourceError for data that are not as they should be, ConfigError for arguments that do not go together.
    """
    positive("load_captioned", count=count)
    if on_bad_image not in ("error", "skip"):
        raise ConfigError(f"is 'error' or 'skip', not {on_bad_image!r}", where="on_bad_image", case=1)
    chosen = Choice(count, seed, strict, on_bad_image, progress)
    told = [category] if isinstance(category, str) else list(category or ())
    if source == "coco":
        if annotations is None or images is None:
            raise ConfigError("needs annotations and images", where="coco", fix="name the folder of each", case=1)
        if prompt or ignore_captions or caption_column:
            raise ConfigError(
                "has captions of its own; prompt, ignore_captions and caption_column are for folders", where="coco", case=1
            )
        return gather(Coco(Path(annotations), Path(images), told, split), chosen)
    if annotations or images or told:
        raise ConfigError('annotations, images and category belong to source "coco"', where=source, case=1)
    options: dict[str, Any] = {"prompt": prompt, "ignore_captions": ignore_captions, "caption_column": caption_column}
    path = Path(source).expanduser()
    if path.is_dir():
        if saved.is_saved(path) and count is None and not any(options.values()):
            return Captioned.open(path)
        if saved.is_saved(path):
            return gather(Table(Captioned.open(path).dataset, path.resolve().name, **options), chosen)
        if next(path.rglob("*.parquet"), None):
            return gather(Table(datasets.Dataset(saved.parquet(path)), path.resolve().name, **options), chosen)
        return gather(Folder(path, **options), chosen)
    if path.exists():
        raise SourceError("is a file", where=path, fix="name the folder that holds the pictures", case=9)
    if not HUB_ID.fullmatch(str(source)):
        raise SourceError("there is no such folder", where=path, case=9)
    return gather(Table(from_hub(str(source), split or "train"), str(source), **options), chosen)


def as_captioned(data: Captioned | datasets.Dataset | str | Path) -> Captioned:
    """Whatever holds captioned pictures: a `Captioned`, a `datasets.Dataset`, a folder, a Hub id. Raises SourceError."""
    if isinstance(data, Captioned):
        return data
    if isinstance(data, (str, Path)):
        return load_captioned(data)
    if isinstance(data, datasets.DatasetDict):
        if "train" not in data:
            raise SourceError(f"has no split train, only {', '.join(data)}", where="dataset", fix="give one split", case=9)
        data = data["train"]
    if not isinstance(data, datasets.Dataset):
        what = f"is a {type(data).__name__}, not a datasets.Dataset"
        raise SourceError(
            what, where="dataset", fix="for a stream, take rows first: Dataset.from_list(list(stream.take(100)))", case=9
        )
    return gather(Table(data), Choice())


@dataclass(frozen=True)
class Choice:
    count: int | None = None
    seed: int = 0
    strict: bool = False
    on_bad_image: OnBad = "error"
    progress: bool = False

    def words(self) -> list[str]:
        drawn = ["--count", str(self.count), "--seed", str(self.seed)] if self.count is not None else []
        return [*drawn, *(["--on-bad-image", "skip"] if self.on_bad_image == "skip" else [])]


def gather(source: Source, choice: Choice) -> Captioned:
    rows = list(source.rows())
    findings = source.findings
    if choice.strict and findings.faults:
        reason, names = next(iter(findings.faults.items()))
        raise SourceError(f"{reason}: {some(names)}", where=source.name, fix="mend them, or do without strict", case=9)
    if not rows:
        why = "; ".join(f"{reason}: {number}" for reason, number in findings.counts().items())
        raise SourceError(
            f"not one picture is left ({why or 'there was none'})", where=source.name, fix="choose less narrowly", case=10
        )
    if choice.count is not None:
        rows.sort(key=lambda row: pick_key(choice.seed, row.image_id))
        if choice.count > len(rows):
            what = f"{choice.count} pictures are asked for and {len(rows)} are there"
            raise SourceError(what, where=source.name, fix=f"ask for at most {len(rows)}", case=10)
    taken = Taken()
    table = table_of(_batches(source, rows, choice, taken))
    if choice.count is not None:
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
    wanted = choice.count or len(rows)
    batch: list[dict[str, Any]] = []
    done = 0
    with tqdm(total=wanted, desc="pictures", unit="picture", disable=not choice.progress) as bar:
        for number, row in enumerate(rows):
            if done == wanted or (choice.on_bad_image == "error" and number == wanted):
                break
            try:
                picture = store(source.read(row), row.path or row.file_name)
            except SourceError as error:
                taken.bad[row.file_name] = error
                continue
            batch.append(_record(row, picture, taken))
            done += 1
            bar.update()
            if len(batch) == BATCH:
                yield batch
                batch = []
    if taken.bad and (choice.on_bad_image == "error" or not done):
        raise _refused(source, list(taken.bad.values()), min(wanted, len(rows)))
    if done < wanted and choice.count is not None:
        what = f"{choice.count} pictures are asked for and {done} can be read"
        raise SourceError(what, where=source.name, fix=f"ask for at most {done}", case=10)
    if batch:
        yield batch


def _record(row: Row, picture: Stored, taken: Taken) -> dict[str, Any]:
    sha256 = hashlib.sha256(picture.content).hexdigest()
    taken.add(row, picture, sha256)
    return {
        "image": {"bytes": picture.content, "path": row.file_name},
        "text": choose(row.captions, "first", seed=0, epoch=0, image_id=row.image_id),
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


def from_hub(name: str, split: str) -> datasets.Dataset:
    try:
        return datasets.load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, no such split, loading scripts
        what = f"is neither a folder here nor a dataset that the Hub gives: {type(error).__name__}: {error}"
        raise HubError(what, where=name, fix="check the name; see that you are online", case=5) from error
