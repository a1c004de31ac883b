"""What can go wrong, as a tree: catch `KitError` for all of it.

KitError
+ ConfigError      2  a setting is unknown, out of range, or contradicts another
+ SourceError      3  pictures, captions or annotations are not what they should be
+ ModelError       4  a base, an adapter or a file of weights cannot be used
| + FamilyError    4    the checkpoint is not of the family it was opened as
| + CheckpointError 4   a run's checkpoint is broken, or belongs to another run
+ StorageError     5  disk full, folder not writable, folder in use
+ HubError         6  network, token, rights, or the Hub refused
| + NetworkError   6    a plain download: no network, or a server that fails
+ DivergedError    7  training left the finite numbers
+ Stopped          130 / 143  a signal ended the run after its state was saved

The number is the process's exit code. One error is one line: `error[E-DATA-04] file: field: what is wrong. Fix: what to do.`
The case number points into the table of cases in CONTRIBUTING.md.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any


class KitError(Exception):
    """Base of every error this package raises on purpose.

    `message` says what is wrong and in which field, `where` names the file, folder or setting, `fix` says what to do.
    """

    exit_code = 2
    area = "KIT"

    def __init__(self, message: str, *, where: object = None, fix: str | None = None, case: int | None = None):
        self.message, self.where, self.fix, self.case = message, where, fix, case
        super().__init__(str(self))

    @property
    def code(self) -> str:
        return f"E-{self.area}" + (f"-{self.case:02d}" if self.case is not None else "")

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where is not None else self.message
        text = sentence(text) + (f" Fix: {sentence(self.fix)}" if self.fix else "")
        return " ".join(text.split())

    def line(self) -> str:
        """The one line that a command prints on stderr."""
        return f"error[{self.code}] {self}"


class ConfigError(KitError, ValueError):
    exit_code, area = 2, "CLI"


class SourceError(KitError, ValueError):
    exit_code, area = 3, "DATA"


class ModelError(KitError, ValueError):
    exit_code, area = 4, "MODEL"


class FamilyError(ModelError):
    pass


class CheckpointError(ModelError):
    area = "CKPT"


class StorageError(KitError, OSError):
    exit_code, area = 5, "DISK"


class HubError(KitError, RuntimeError):
    exit_code, area = 6, "PUSH"


class NetworkError(HubError):
    area = "NET"


class DivergedError(KitError, ArithmeticError):
    exit_code, area = 7, "TRAIN"


class Stopped(KitError):
    """A signal ended the run; everything up to `step` is in the checkpoint. Exit code 130 (SIGINT) or 143 (SIGTERM)."""

    area = "TRAIN"

    def __init__(self, message: str, *, exit_code: int, fix: str | None = None):
        super().__init__(message, fix=fix)
        self.exit_code = exit_code


def sentence(text: str) -> str:
    """With one full stop at its end, or the question mark that is there."""
    text = text.rstrip(". ")
    return text if text.endswith("?") else f"{text}."


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'rank'?` or the list of what there is: one wording for every failed look-up by name."""
    names = sorted(known)
    if not names:
        return "there is none"
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def unknown(kind: str, name: str, known: Iterable[str], *, where: object = None) -> ConfigError:
    return ConfigError(f"unknown {kind} {name!r}; {nearest(name, known)}", where=where, case=1)


def positive(where: str, **values: Any) -> None:
    """Raises ConfigError for the first value that is not a finite number above 0; None passes."""
    for name, value in values.items():
        if value is None:
            continue
        if not is_number(value):
            raise ConfigError(f"must be a number, got {value!r}", where=f"{where}: {name}", case=1)
        if not 0 < value < float("inf"):
            what = "must be finite" if value == float("inf") else "must be above 0"
            raise ConfigError(f"{what}, got {value}", where=f"{where}: {name}", case=1)


def share(where: str, **values: Any) -> None:
    """Raises ConfigError for the first value that does not lie in [0, 1]."""
    for name, value in values.items():
        if not is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"must lie between 0 and 1, got {value}", where=f"{where}: {name}", case=1)


def is_number(value: object) -> bool:
    return isinstance(value, Real)
