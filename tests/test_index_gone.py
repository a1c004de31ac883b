"""An index that is removed or damaged while it is open is one line that says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hf_diffusion_kit.data.base import Findings
from hf_diffusion_kit.data.index import open_index
from hf_diffusion_kit.data.index_columns import FILES, Index
from hf_diffusion_kit.data.query import query
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.errors import StorageError
from pictured import coco


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def files_of(folder: Path) -> tuple[Path, Path]:
    notes = coco(folder) / "annotations"
    return notes / "captions_val2014.json", notes / "instances_val2014.json"


ASKED: dict[str, Callable[[Index], object]] = {
    "length": len,
    "names": lambda index: index.names,
    "findings": lambda index: index.findings(),
    "numbers": lambda index: index.column("width", np.arange(6)),
    "texts": lambda index: index.column("captions", np.arange(6)),
    "rows": lambda index: list(index.rows(np.arange(6), None)),
    "query": lambda index: query(index, Subset(category=("dog",)), Findings()),
}


@pytest.mark.parametrize("asked", ASKED)
def test_an_index_that_is_gone_says_to_ask_again(asked: str, tmp_path: Path) -> None:
    """Somebody empties the cache while a stream, or a worker, has an index open."""
    files = files_of(tmp_path)
    index = open_index(*files)
    shutil.rmtree(index.folder)
    with pytest.raises(StorageError, match=r"removed, or damaged, while it was in use\. Fix: ask again: it is made anew\."):
        ASKED[asked](index)
    assert ASKED[asked](open_index(*files)) is not None
    assert ASKED[asked](index) is not None  # the same content has the same folder


def test_an_index_that_is_cut_while_it_is_open_is_one_line(tmp_path: Path) -> None:
    index = open_index(*files_of(tmp_path))
    for name in FILES:
        (index.folder / name).write_bytes(b"")
    for name in ("width", "captions", "image_id"):
        with pytest.raises(StorageError, match="ask again"):
            index.column(name, np.arange(6))
