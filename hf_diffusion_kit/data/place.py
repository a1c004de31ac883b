"""Where something will be written, looked at before the work: a place that cannot be written must not cost an hour first."""

import os
import stat
from pathlib import Path

from ..errors import StorageError

LONGEST_PID = 4_194_304
"""Of Linux. What is written lies beside its place first, under a longer name."""


def real(path: Path) -> Path:
    """Where links lead to, also where they lead in a circle, of which `resolve` makes an error of its own."""
    return Path(os.path.realpath(path)) if "\0" not in str(path) else path


def check_reachable(path: Path, fix: str) -> None:
    """Raises StorageError for a place that no disk has: links in a circle, a name that is too long, a folder that may not be entered."""
    try:
        to = real(path)
        for place in (path, path / "x", *([to.with_name(f".tmp-{to.name}-{LONGEST_PID}")] if to.name else [])):
            try:
                place.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot be written: {told}", where=path, fix=fix, case=3) from error


def check_writable(path: Path, fix: str) -> None:
    """Raises StorageError where neither a file nor a folder can be made; folders above it that are not there yet may be."""
    check_reachable(path, fix)
    above = real(path).parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if not stat.S_ISDIR(above.stat().st_mode):
        raise StorageError(f"cannot be written: {above.name} is a file", where=path, fix=fix, case=3)
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(f"cannot be written: the folder {above} may not be written to", where=path, fix=fix, case=3)
