"""What lies in a folder of pictures: every file by its name, once, whatever the system calls it."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ..errors import SourceError
from .base import Findings, some
from .pictures import OTHER_SUFFIXES, SUFFIXES

HIDDEN = (".", "__MACOSX")
SPLIT = re.compile(r"(train|val|valid|validation|test|dev|eval)([-_]?\d{4})?", re.IGNORECASE)
"""A folder of this name holds one split: train, val, test2017 ..."""
OTHER = "files that are not JPEG, PNG, WebP or BMP"


def scan(folder: Path, findings: Findings) -> dict[str, Path]:
    """NFC name relative to the folder -> file, sorted. Hidden files are passed over; folders that are links are not followed, and named.

    Raises SourceError when the folder is not there or cannot be read, or when two names are one to the eye.
    """
    if not folder.is_dir():
        raise SourceError("there is no such folder", where=folder, case=9)
    found: dict[str, Path] = {}
    for place, inner, files in os.walk(folder, onerror=_refused):
        here = Path(place)
        inner[:] = sorted(name for name in inner if not name.startswith(HIDDEN))
        for name in (name for name in inner if (here / name).is_symlink()):
            findings.fault("folders that are links, which are not followed", _name(here / name, folder))
        for file in sorted(name for name in files if not name.startswith(HIDDEN)):
            path = here / file
            name = _name(path, folder)
            if not name.isascii() and name.encode("utf-8", "replace").decode() != name:
                findings.fault("files whose names are not UTF-8", ascii(name))
            elif name in found:
                what = f"two files are called {name!r}, in two Unicode forms"
                raise SourceError(what, where=folder, fix="rename one of them", case=6)
            else:
                found[name] = path
    return dict(sorted(found.items()))


def pictures_of(files: Mapping[str, Path], folder: Path, findings: Findings) -> dict[str, Path]:
    """Those that can be read by their names; others that somebody may take for pictures are counted. Raises SourceError for none."""
    found = {name: path for name, path in files.items() if path.suffix.lower() in SUFFIXES}
    for name, path in files.items():
        if path.suffix.lower() in OTHER_SUFFIXES:
            findings.fault(OTHER, name)
    if not found:
        others = findings.faults.get(OTHER)
        what = f"holds no picture that can be read, only {some(others)}" if others else "holds no picture"
        raise SourceError(what, where=folder, fix="put JPEG, PNG, WebP or BMP files there", case=10)
    return found


def splits_of(names: Iterable[str]) -> list[str]:
    """Folders at the top that are splits by their names, where there are several; train first."""
    tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    found = sorted((top for top in tops if SPLIT.fullmatch(top)), key=lambda top: (not top.lower().startswith("train"), top))
    return found if len(found) > 1 else []


def _name(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


def _refused(error: OSError) -> None:
    raise SourceError(f"cannot be read: {error.strerror}", where=error.filename, fix="see that it may be read", case=9) from error
