"""`load_dataset`: stock `datasets.load_dataset`, and beside it the name `coco-captions`, over the public API of `datasets` alone."""

import logging
import re
import sys
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.data_files import DataFilesDict, DataFilesList

from ..errors import ConfigError, KitError, SourceError, StorageError, nearest
from .addresses import SECURE
from .base import Findings
from .builder import CocoCaptions, code_hash
from .coco import caption_files
from .downloads import Downloads
from .gather import OnBad, Pixels
from .index import open_index, split_of
from .load import ONLY, is_web, load_captioned
from .passing import Rows, said
from .registered import NAME as REGISTERED
from .subset import Subset
from .where import expanded

NAME = "coco-captions"
LOG = logging.getLogger(__name__)
OWN = (
    "annotations",
    "images",
    "split",
    "streaming",
    "num_proc",
    "cache_dir",
    "subset",
    "on_bad_image",
    "pixels",
    "download_mode",
)


def load_dataset(path: str, *rest: Any, **options: Any) -> Any:
    """`load_dataset("coco-captions", ...)` is `coco_captions(...)` below; any other name goes to stock `datasets.load_dataset`.

    So `from hf_diffusion_kit import load_dataset` can stand wherever `from datasets import load_dataset` stands.
    """
    if path == NAME:
        return coco_captions(*rest, **options)
    meant = ConfigError(f"unknown dataset {path!r}; did you mean {NAME!r}?", where="load_dataset", case=1)
    if re.sub(r"[\W_]", "", str(path).casefold()) == re.sub(r"\W", "", NAME) and not Path(path).exists():
        raise meant  # at once: the Hub is asked for half a minute where there is no network
    try:
        return datasets.load_dataset(path, *rest, **options)
    except OSError as error:  # not found, or the Hub cannot be reached
        if path == REGISTERED:
            fix = "call hf_diffusion_kit.register() first"
            raise ConfigError(f"{path!r} is not known to datasets", where="load_dataset", fix=fix, case=1) from error
        if "/" not in path and get_close_matches(path, [NAME], cutoff=0.75):
            raise meant from error
        raise


def coco_captions(
    name: str | None = None,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
    subset: Subset | None = None,
    on_bad_image: OnBad = "error",
    pixels: Pixels | None = None,
    download_mode: Any = None,
    **choosing: Any,
) -> Rows:
    """COCO's captions as a `datasets.Dataset`, or as an `IterableDataset` with `streaming`. Columns of data/features.py.

    `annotations`: the folder of captions_*.json and instances_*.json, or one such file; None fetches the official ones of the split.
    `images`: the folder of the pictures, or the root that has val2014/ and so on; None gives their addresses, which stock `datasets`
    fetches when a picture is looked at; `https` (or the address of a mirror) fetches the chosen ones now, as `hfdk subset` does.
    `pixels`: "embedded" reads every picture now, so that the rows are those that `hfdk subset` writes, "none" gives addresses
    whatever `images` is, None leaves the pictures where they are.
    `name`, or `split`: `val2014` ...; without it every split whose pictures are there, all in one `train`. `split` may also be
    `train` or a part of it: `train[:10%]`. `choosing`: the fields of `Subset` (category="dog", count=100 ...), or `subset` itself.
    `on_bad_image`: a picture that is not in the folder is an error, or "skip" leaves it out. Pictures are not opened here: one that
    is broken shows when it is looked at, and `sha256` is null. `load_captioned` decodes each.

    What was left out is said on stderr (where progress bars are shown) and kept in `info.description`.
    Raises SourceError, ConfigError, StorageError.
    """
    wanted = _subset(subset, choosing)
    if pixels not in (None, *ONLY["pixels"]):
        raise ConfigError(f"is {' or '.join(map(repr, ONLY['pixels']))}, not {pixels!r}", where="pixels", case=1)
    part = split if split is not None and re.fullmatch(r"train(\[.*\])?(\+.*)?", split) else None
    if name is not None and split is not None and part is None and name != split:
        raise ConfigError(f"{split!r} and {name!r} are two splits", where=NAME, fix="name one", case=1)
    source = name or (None if part else split)
    if pixels == "embedded" or (pixels is None and is_web(images)):
        told = {"num_proc": num_proc, "cache_dir": cache_dir, "download_mode": download_mode}
        if unused := next((option for option, value in told.items() if value is not None), None):
            what = "is not used where pictures are read now"
            raise ConfigError(what, where=unused, fix='leave it out, or say pixels="none"', case=1)
        return _read_now(annotations, images, source, wanted, on_bad_image, part, streaming)
    findings = Findings()
    mirror = str(images) if is_web(images) and images != "https" else SECURE
    images = None if is_web(images) else images
    if annotations is None:
        if source is None:
            fix = "name the folder or file of COCO's captions, or the split whose official ones are to be fetched"
            raise ConfigError("needs annotations", where=NAME, fix=fix, case=1)
        downloads = Downloads(mirror, progress=datasets.is_progress_bar_enabled(), findings=findings)
        annotations = downloads.annotations(source)
    files, notes = _files(expanded(annotations), images, source)
    images = None if pixels == "none" else images
    try:
        builder = CocoCaptions(
            cache_dir=None if cache_dir is None else str(cache_dir),
            dataset_name=NAME.replace("-", "_"),
            hash=code_hash(),
            data_files=_data_files(files),
            images=images,
            on_bad_image=on_bad_image,
            **{entry.name: getattr(wanted, entry.name) for entry in fields(Subset)},
        )
        data = _rows(builder, part or "train", streaming, num_proc, download_mode)
    except KitError:
        raise
    except datasets.exceptions.DatasetGenerationError as error:
        raise _ours(error) from error
    except OSError as error:
        fix = "free space, or name another cache_dir"
        raise StorageError(f"the rows cannot be written: {said(error)}", where=NAME, fix=fix, case=3) from error
    _tell([*builder.info.description.splitlines(), *notes, *findings.notes])
    return data


def _read_now(
    annotations: str | Path | None,
    images: str | Path | None,
    source: str | None,
    wanted: Subset,
    on_bad_image: OnBad,
    part: str | None,
    streaming: bool,
) -> Rows:
    """Every picture fetched or read, and decoded: what `load_captioned` gives."""
    if part not in (None, "train"):
        raise ConfigError("cannot be cut out of pictures that are read now", where=f"split: {part}", fix="say count=...", case=1)
    progress = datasets.is_progress_bar_enabled()
    more: dict[str, Any] = {"subset": wanted, "on_bad_image": on_bad_image, "progress": progress}
    data = load_captioned("coco", annotations=annotations, images=images, split=source, **more)
    left = [f"{reason}: {number}" for reason, number in data.left_out.items()]
    _tell([f"{len(data)} pictures of {', '.join(data.record.splits)}", *left, *data.notes])
    return data.dataset.to_iterable_dataset() if streaming else data.dataset


def _rows(builder: CocoCaptions, part: str, streaming: bool, num_proc: int | None, download_mode: Any) -> Rows:
    if not streaming:
        builder.download_and_prepare(num_proc=num_proc, download_mode=download_mode)
    elif part != "train":
        fix = "say stream.take(n) or stream.skip(n), or leave streaming out"
        raise ConfigError("a stream cannot be cut by split", where=f"split: {part}", fix=fix, case=1)
    try:
        return builder.as_streaming_dataset(split=part) if streaming else builder.as_dataset(split=part)
    except (ValueError, AssertionError) as error:
        if isinstance(error, KitError):
            raise
        raise ConfigError(f"cannot be cut out: {said(error)}", where=f"split: {part}", fix="say train[:100]", case=1) from error


def _subset(subset: Subset | None, choosing: dict[str, Any]) -> Subset:
    known = [entry.name for entry in fields(Subset)]
    for name in choosing:
        if name not in known:
            raise ConfigError(f"unknown argument {name!r}; {nearest(name, [*known, *OWN])}", where=NAME, case=1)
    if subset is not None and choosing:
        raise ConfigError(f"is given beside {min(choosing)}", where="subset", fix="give one of the two", case=1)
    return Subset.of(**choosing) if subset is None else subset


def _files(annotations: Path, images: str | Path | None, split: str | None) -> tuple[list[Path], list[str]]:
    """The captions of the splits that are wanted and whose pictures are there, and a note on those that are not read."""
    found = {split_of(file): file for file in caption_files(annotations)}
    folder = None if images is None else expanded(images)
    wanted = split or (folder.resolve().name if folder is not None and folder.resolve().name in found else None)
    if wanted is not None:
        if wanted not in found:
            raise SourceError(f"has no captions of {wanted!r}; {nearest(wanted, found)}", where=annotations, case=7)
        return [found[wanted]], []
    if folder is None or len(found) == 1:
        return list(found.values()), []
    used = [name for name in found if (folder / name).is_dir()] or [name for name, file in found.items() if _any(file, folder)]
    used = used or list(found)
    left = sorted(found.keys() - set(used))
    return [found[name] for name in used], [f"the captions of {name} were not read: its pictures are not there" for name in left]


def _any(file: Path, folder: Path) -> bool:
    """Whether one of the pictures that the file lists is in the folder."""
    try:
        there = {path.name for path in folder.iterdir()}
    except OSError:
        return False
    index = open_index(file)
    return any(name in there for name in index.column("file_name", np.arange(len(index))))


def _data_files(files: list[Path]) -> DataFilesDict:
    """As they are: `datasets` takes `[` and `*` in a name for a pattern."""
    names = [str(file.absolute()) for file in files]
    return DataFilesDict({"train": DataFilesList(names, origin_metadata=[("",)] * len(names))})


def _ours(error: BaseException) -> KitError:
    """The reason beneath a chain of `An error occurred while generating the dataset`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KitError):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, KitError) else SourceError(f"the rows cannot be made: {said(error)}", where=NAME, case=9)


def _tell(lines: list[str]) -> None:
    if datasets.is_progress_bar_enabled():
        print(f"{NAME}: " + "; ".join(lines), file=sys.stderr)
    else:
        LOG.info("; ".join(lines))
