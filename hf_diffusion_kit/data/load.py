"""`load_captioned` and `as_captioned`: whatever holds captioned pictures becomes a `Captioned`."""

import re
from pathlib import Path
from typing import Any

import datasets

from ..errors import ConfigError, HubError, SourceError
from . import saved
from .captioned import Captioned
from .coco import Coco
from .folder import Folder
from .gather import Choice, OnBad, gather
from .subset import Subset
from .table import Table

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_captioned(
    source: str | Path,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    split: str | None = None,
    prompt: str | None = None,
    ignore_captions: bool = False,
    caption_column: str | None = None,
    strict: bool = False,
    on_bad_image: OnBad = "error",
    progress: bool = False,
    subset: Subset | None = None,
    **choosing: Any,
) -> Captioned:
    """Captioned pictures, each decoded in full.

    `source`: `"coco"` (with `annotations` and `images`, see `Coco`), a folder (your own pictures, a saved subset, Parquet), or the
    id of a dataset on the Hub. `choosing`: the fields of `Subset` (category="dog", count=100, seed=0, license="commercial" ...), or
    `subset` itself. `prompt`: one caption for all. `strict`: whatever would be left out through a fault is an error.
    `on_bad_image`: a picture that is missing or broken is an error, or is skipped and counted.

    Raises SourceError for data that are not as they should be, ConfigError for arguments that do not go together.
    """
    if on_bad_image not in ("error", "skip"):
        raise ConfigError(f"is 'error' or 'skip', not {on_bad_image!r}", where="on_bad_image", case=1)
    if subset is not None and choosing:
        raise ConfigError(f"is given beside {min(choosing)}", where="subset", fix="give one of the two", case=1)
    wanted = Subset.of(**choosing) if subset is None else subset
    chosen = Choice(wanted, strict, on_bad_image, progress)
    if source == "coco":
        if annotations is None or images is None:
            raise ConfigError("needs annotations and images", where="coco", fix="name the folder of each", case=1)
        if prompt or ignore_captions or caption_column:
            raise ConfigError(
                "has captions of its own; prompt, ignore_captions and caption_column are for folders", where="coco", case=1
            )
        return gather(Coco(Path(annotations), Path(images), split), chosen)
    if annotations or images:
        raise ConfigError('annotations and images belong to source "coco"', where=source, case=1)
    options: dict[str, Any] = {"prompt": prompt, "ignore_captions": ignore_captions, "caption_column": caption_column}
    path = Path(source).expanduser()
    if path.is_dir():
        if saved.is_saved(path) and wanted == Subset() and not any(options.values()):
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
    return gather(Table(data), Choice(Subset()))


def from_hub(name: str, split: str) -> datasets.Dataset:
    try:
        return datasets.load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, no such split, loading scripts
        what = f"is neither a folder here nor a dataset that the Hub gives: {type(error).__name__}: {error}"
        raise HubError(what, where=name, fix="check the name; see that you are online", case=5) from error
