"""COCO captions as a builder of `datasets`: pictures stay where they are, rows come from the index, answers from the cache.

Everything that could change an answer is in the key of the cache: the content of the files of annotations, the choice, the folders
of pictures (any file that comes or goes), and this code.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from ..errors import ConfigError, SourceError
from . import addresses, annotations, captions, features, index_build, index_columns, licenses, live_rows, query, subset, wanted
from .coco import instances_of
from .features import FEATURES
from .index import open_index, split_of
from .live_rows import Part, Places, chosen, finished
from .subset import Subset
from .where import expanded

SHARD_ROWS = 4096
"""Most rows of a table, and so what is held at once: about 4 MB."""
SHARDS = 8
"""Least shards, and what their number is a multiple of: nodes and workers share them evenly."""
CODE = (addresses, annotations, captions, features, index_build, index_columns, licenses, live_rows, query, subset, wanted)
"""Modules that a row depends on."""


@dataclass(frozen=True)
class Shard:
    """Rows that are made together."""

    parts: tuple[Part, ...]
    places: Places

    def __len__(self) -> int:
        return len(self.places.place)


class CocoConfig(datasets.BuilderConfig):
    """`images`: the folder of the pictures, or the root that has val2014/ and so on; None for their addresses. `on_bad_image`: a
    picture that is not in the folder is an "error", or "skip" leaves it out and counts it. All fields of `Subset` besides."""

    def __init__(
        self,
        name: str = "default",
        version: Any = "1.0.0",
        data_dir: str | None = None,
        data_files: Any = None,
        description: str | None = None,
        images: str | os.PathLike[str] | None = None,
        on_bad_image: str = "error",
        **choosing: Any,
    ):
        super().__init__(name, version, data_dir, data_files, description)
        if on_bad_image not in ("error", "skip"):
            raise ConfigError(f"is 'error' or 'skip', not {on_bad_image!r}", where="on_bad_image", case=1)
        if images == "https" or (isinstance(images, str) and images.startswith(("http://", "https://"))):
            fix = "leave images out to have the addresses, or use hf_diffusion_kit.load_dataset, which fetches"
            raise ConfigError("is a folder here", where=f"images: {images}", fix=fix, case=1)
        self.images = None if images is None else str(expanded(images).absolute())
        self.on_bad_image = on_bad_image
        self.subset = Subset.of(**choosing)

    def parts(self) -> dict[str, tuple[Part, ...]]:
        """Split of the dataset -> the files that its rows come from. Raises SourceError."""
        if not self.data_files:
            fix = 'say data_files="captions_val2014.json", or use hf_diffusion_kit.load_dataset("coco-captions", ...)'
            raise ConfigError("needs data_files", where="coco_captions_subset", fix=fix, case=1)
        return {str(split): self._parts([Path(file) for file in files]) for split, files in self.data_files.items()}

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """By content: the same files under another time stamp are the same, changed ones under the same are not."""
        parts = {split: [part.mark() for part in parts] for split, parts in self.parts().items()}
        key = [parts, self.subset.told(), self.on_bad_image, None if custom_features is None else custom_features.to_dict()]
        return f"{self.name}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}"

    def _parts(self, files: list[Path]) -> tuple[Part, ...]:
        objects = {file for file in files if file.name.startswith("instances")}
        spoken = sorted(set(files) - objects)
        if not spoken:
            names = ", ".join(file.name for file in files)
            raise SourceError(f"are no captions ({names})", where="data_files", fix="name captions_*.json", case=7)
        return tuple(self._part(file, objects, alone=len(spoken) == 1) for file in spoken)

    def _part(self, file: Path, objects: set[Path], *, alone: bool) -> Part:
        """Objects are those that were named for this file, or lie beside it."""
        if "://" in str(file):
            raise SourceError("is not on this disk", where=file, fix="fetch the annotations first", case=7)
        split = split_of(file)
        named = sorted(entry for entry in objects if entry.stem.removeprefix("instances_") == split)
        if not named and alone and len(objects) == 1:
            named = list(objects)
        folder = None if self.images is None else Path(self.images)
        if folder is not None and (folder / split).is_dir():
            folder = folder / split
        return Part(open_index(file, named[0] if named else instances_of(file, self.subset)), folder)


class CocoCaptions(datasets.ArrowBasedBuilder):
    """Columns of features.py. `image` is the picture's path, or its address; `sha256` is null, for nobody has read the pixels.
    What was left out, and why, is `info.description`."""

    BUILDER_CONFIG_CLASS = CocoConfig

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        told: list[str] = []
        generators = []
        for split, parts in self.config.parts().items():
            places, sentences = chosen(parts, self.config.subset, skip=self.config.on_bad_image == "skip")
            told += sentences
            shards = [Shard(parts, places.cut(*bounds)) for bounds in _cuts(len(places.place))]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"shards": shards, "caption": self.config.subset}))
        self.info.description = "\n".join(told)
        return generators

    def _generate_tables(self, shards: Sequence[Shard], caption: Subset) -> Iterator[tuple[Key, pa.Table]]:
        for number, shard in enumerate(shards):
            yield Key(number, 0), finished(shard.parts, shard.places, caption)


def code_hash() -> str:
    """What `hash=` of a builder, and its entry among the packaged ones, are given: changed code gives fresh rows."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *(Path(str(module.__file__)) for module in CODE)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cuts(rows: int) -> list[tuple[int, int]]:
    """Equal stretches of at most SHARD_ROWS rows, their number a multiple of SHARDS (or the rows, where there are fewer)."""
    number = min(rows, -(-rows // (SHARD_ROWS * SHARDS)) * SHARDS)
    bounds = np.linspace(0, rows, number + 1).astype(int).tolist() if number else [0]
    return list(pairwise(bounds))
