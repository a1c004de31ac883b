"""What is learnt while the pictures of a subset go by: counted as they pass, so that none has to be kept."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from .base import Row, some
from .captions import beyond
from .fingerprint import Fingerprint
from .pictures import REMARKS

WORDS = {**REMARKS, "other": "pictures of another size than their annotations state"}


@dataclass
class Tally:
    seen: int = 0
    """Rows that were looked at, those included that were not taken."""
    rows: int = 0
    captions: int = 0
    bytes: int = 0
    bad: dict[str, SourceError] = field(default_factory=dict)
    """Name -> what is wrong with it. An error names the whole path, and so is shown but never kept."""
    remarks: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    splits: set[str] = field(default_factory=set)
    mark: Fingerprint = field(default_factory=Fingerprint)

    def add(self, row: Row, picture: str) -> None:
        """`picture`: its sha256, or its address where it was not read."""
        self.rows += 1
        self.captions += len(row.captions)
        self.licenses[row.license or "not stated"] += 1
        self.categories.update(dict.fromkeys(row.categories, 1))
        self.splits |= {row.split} - {""}
        self.mark.add(picture, row.captions)

    def remark(self, remarks: tuple[str, ...], size: tuple[int, int], row: Row) -> None:
        self.remarks.update(remarks)
        stated = {row.width, row.height} - {0}
        self.remarks["other"] += bool(stated) and stated != set(size)

    def sentences(self, table: pa.Table, policy: str = "first") -> list[str]:
        """`policy`: which caption stands in `text`."""
        same = [" = ".join(names) for names in twins(table)]
        counted = [f"{WORDS[remark]}: {number}" for remark, number in self.remarks.items() if number]
        numbers = (number.as_py() for number in pc.list_value_length(table.column("captions")))
        copies = [f"pictures that are the same, byte for byte: {some(same)}"] if same else []
        return [*counted, *copies, *beyond(policy, numbers)]


def twins(table: pa.Table) -> list[list[str]]:
    """Names of pictures that have one sha256, in the order of the rows."""
    counts = pc.value_counts(table.column("sha256"))
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").drop_null()
    if not len(several):
        return []
    found = table.select(["sha256", "file_name"]).filter(pc.is_in(table.column("sha256"), several))
    names: dict[str, list[str]] = {}
    for sha256, name in zip(found.column("sha256").to_pylist(), found.column("file_name").to_pylist(), strict=True):
        names.setdefault(sha256, []).append(name)
    return list(names.values())
