"""Which pictures are wanted, and which caption stands in `text`: a frozen, hashable spec beneath every way in."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_origin

from ..errors import ConfigError, nearest, positive, share
from .captions import check_policy

KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
NAMES = ("category", "any_category", "not_category", "supercategory", "license")
LARGEST = 2**63 - 1
"""Of a whole number: what JSON, TOML and Arrow hold."""


@dataclass(frozen=True)
class Conditions:
    """Every condition must hold. One name may be given where a tuple stands; order and case of names do not matter.

    Raises ConfigError for a value out of range or a pattern that is none.
    """

    category: tuple[str, ...] = ()
    """All of them are in the picture."""
    any_category: tuple[str, ...] = ()
    """At least one of them is."""
    not_category: tuple[str, ...] = ()
    """None of them is."""
    supercategory: tuple[str, ...] = ()
    """Something of each is in the picture: `animal`, `food` ... (COCO's twelve, or the file's own)."""
    min_area: float = 0.0
    """Least share of the picture, 0 to 1, that one object of each wanted category covers (of any category, where none is asked for). COCO
    only."""
    crowd: bool = True
    """Whether an object that is marked as a crowd counts as being there. COCO only."""
    min_side: int | None = None
    """Pixels of the shorter side, as the annotations state them (as the picture has them, elsewhere)."""
    min_aspect: float | None = None
    """Width divided by height: 1 is a square, below 1 upright."""
    max_aspect: float | None = None
    license: tuple[str, ...] = ()
    """Licence numbers of the file (`4`), names, or the words `commercial`, `modifiable`, `redistributable`. Several numbers or
    names are alternatives; each word must hold."""
    min_words: int | None = None
    """Words of a caption; captions outside the limits do not count, a picture without any left is left out."""
    max_words: int | None = None
    match: str | None = None
    """Regular expression that must be found in one of the captions, whatever the case."""
    count: int | None = None
    """How many pictures, drawn by `seed`; None for all, in the order of their numbers."""
    seed: int = 0
    """The choice depends on it and on the pictures' ids alone, not on files, disks or who else is there."""

    def __post_init__(self) -> None:
        for name in NAMES:
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        _of_its_kind(self)
        positive("subset", count=self.count, min_side=self.min_side, min_aspect=self.min_aspect, max_aspect=self.max_aspect)
        positive("subset", min_words=self.min_words, max_words=self.max_words)
        share("subset", min_area=self.min_area)
        for low, high in (("min_words", "max_words"), ("min_aspect", "max_aspect")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"{least} is above {high} {most}", where=f"subset: {low}", case=1)
        for name in ("category", "any_category"):
            if both := {*getattr(self, name)} & {*self.not_category}:
                what = f"{min(both)!r} is excluded and stands in {name} too"
                raise ConfigError(what, where="subset: not_category", fix="leave it out of one of the two", case=1)
        if self.match is not None:
            try:
                with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of what may once be read in another way
                    re.compile(self.match, re.IGNORECASE)
            except (re.error, RecursionError, OverflowError) as error:
                what = f"{self.match[:80]!r} is no regular expression: {error}"
                raise ConfigError(what, where="subset: match", case=1) from error


@dataclass(frozen=True)
class Subset(Conditions):
    """The conditions, and what stands in the column `text`."""

    caption: str = "first"
    """Which caption stands in `text`: first, random, longest, shortest, nth:2 (from 1), all (one after another)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_policy(self.caption)

    @classmethod
    def of(cls, **choosing: Any) -> "Subset":
        """From keywords; an unknown one names the nearest. None leaves a default as it is."""
        known = [entry.name for entry in fields(cls)]
        for name in choosing:
            if name not in known:
                raise ConfigError(f"unknown argument {name!r}; {nearest(name, known)}", where="subset", case=1)
        return cls(**{name: value for name, value in choosing.items() if value is not None})

    def told(self) -> dict[str, Any]:
        """What is not as by default, as plain JSON values."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        default = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(Subset()).items()}
        told = {name: value for name, value in plain.items() if value != default[name]}
        return told if self.count is None else {**told, "seed": self.seed}

    def words(self) -> list[str]:
        """The same as flags of `hfdk subset`."""
        words: list[str] = []
        for name, value in self.told().items():
            if name == "crowd":
                words.append("--no-crowd")
            else:
                words += flag(name.replace("_", "-"), *(value if isinstance(value, list) else [value]))
        return words

    @property
    def digest(self) -> str:
        """Equal for equal choices, in every process."""
        return hashlib.sha256(json.dumps(self.told(), sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    @property
    def of_objects(self) -> Sequence[str]:
        """Settings that only annotations of objects can answer."""
        names = ("category", "any_category", "not_category", "supercategory", "min_area", "crowd")
        return [name for name in names if name in self.told()]


def flag(name: str, *values: object) -> list[str]:
    """A flag and its values as words of a command. `--match -x` would be taken for two flags, so that is `--match=-x`."""
    told = [str(value) for value in values]
    if any(value.startswith("-") for value in told):
        return [f"--{name}={value}" for value in told]
    return [f"--{name}", *told]


def place(name: str) -> str:
    """A folder's name as a word of a command: one that begins like a flag is none."""
    return f"./{name}" if name.startswith("-") else name


def _names(field: str, told: Any) -> tuple[str, ...]:
    """One name, or several in any order, as a sorted tuple. Raises ConfigError for what is no name."""
    several = isinstance(told, Iterable) and not isinstance(told, str | bytes | Mapping)
    names = set()
    for entry in () if told is None else told if several else (told,):
        entry = entry.item() if hasattr(entry, "item") else entry
        if not isinstance(entry, str | int) or isinstance(entry, bool) or not str(entry).strip():
            what = "a name is empty" if entry == "" or str(entry).isspace() else f"must be a name or several, got {entry!r}"
            raise ConfigError(what, where=f"subset: {field}", case=1)
        names.add(str(entry).casefold())
    return tuple(sorted(names))


def _of_its_kind(spec: Conditions) -> None:
    """Raises ConfigError for the first value that is not of its field's type. Numbers of numpy become Python's, which JSON knows."""
    for entry in fields(spec):
        value = getattr(spec, entry.name)
        kind: Any = next(iter(get_args(entry.type)), entry.type)  # of `int | None` it is int
        if get_origin(entry.type) is tuple or (value is None and entry.default is None):
            continue
        if hasattr(value, "item"):
            value = value.item()
            object.__setattr__(spec, entry.name, value)
        if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"must be {KINDS[kind]}, got {value!r}", where=f"subset: {entry.name}", case=1)
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(f"is too large; at most {LARGEST}", where=f"subset: {entry.name}", case=1)
        if kind is float:  # 1 and 1.0 are one choice
            object.__setattr__(spec, entry.name, float(value))
        if kind in (int, float) and abs(value) > LARGEST and value != float("inf"):
            raise ConfigError(f"is too large; at most {LARGEST}", where=f"subset: {entry.name}", case=1)
