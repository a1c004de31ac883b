"""Places on this machine: what `~` means, what a mistyped path may have meant, and where this package keeps what it can make again
(below HF_HOME, as the ecosystem does)."""

import atexit
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from ..errors import SourceError, StorageError

LOG = logging.getLogger(__name__)
LONGEST = 255
"""Bytes of the name of a file, on all common disks."""
LONGEST_PATH = 4095
NEAR = 0.7
"""How alike two names must be (0 to 1, as `difflib` counts) for one to be a slip of the other."""


def expanded(told: str | os.PathLike[str]) -> Path:
    """With `~` filled in. Raises SourceError where it names nobody, for a name that no disk can have, and what may not be read."""
    try:
        path = Path(told).expanduser()
    except RuntimeError as error:
        raise SourceError("nobody has that home folder", where=told, fix="write the path in full", case=9) from error
    lengths = [len(part.encode("utf-8", "surrogatepass")) for part in path.parts]
    if max(lengths, default=0) > LONGEST or sum(lengths) + len(lengths) > LONGEST_PATH:
        raise SourceError("has too long a name", where=f"{str(told)[:80]}...", fix="name the folder that is meant", case=9)
    if _is_locked(path):
        fix = "see that it, and the folders above it, may be read and entered"
        raise SourceError("may not be read", where=path, fix=fix, case=9)
    return path


def _is_locked(path: Path) -> bool:
    try:
        return path.is_dir() and not os.access(path, os.R_OK | os.X_OK)
    except PermissionError:  # of a folder above it
        return True


def meant(told: Path) -> str:
    """`; did you mean 'photos/dogs'?` for a path that is not there, or what its folder holds; empty where nothing is near."""
    told = Path(str(told).replace("\\", "/"))
    here = Path(told.anchor)
    for part in told.relative_to(told.anchor).parts:
        if part == ".." or _is_there(here / part):
            here = here / part
            continue
        names = [name for name in _entries(here) if name != part]  # a link that leads nowhere is there, and is not what is meant
        folded = {name.casefold(): name for name in names}
        near = [folded[part.casefold()]] if part.casefold() in folded else get_close_matches(part, names, n=1, cutoff=NEAR)
        if not near:
            holds = here == told.parent and here != Path() and names
            return f"; {here} holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if holds else ""
        here = here / near[0]
    return f"; did you mean {str(here)!r}?"


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name
        return False


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def cache_folder(*parts: str) -> Path:
    """`$HF_HOME/hf_diffusion_kit/parts...`, made if it is not there. Where that may not be written (a read-only home), a folder of
    this user below the system's temporary one. Raises StorageError where neither can be had."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    try:
        folder = Path(home).expanduser() / "hf_diffusion_kit" / Path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # read-only, or `~` of nobody
        pass
    try:
        above = _temporary(Path(tempfile.gettempdir()))
        folder = above / Path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"can be written neither here nor in the temporary folder: {error.strerror or error}"
        raise StorageError(what, where=home, fix="set HF_HOME to a folder that may be written", case=3) from error
    _note(str(home), above)
    return folder


@cache
def _note(home: str, instead: Path) -> None:
    """Once in a process."""
    LOG.warning("%s may not be written: what can be made again is kept in %s (set HF_HOME to another folder)", home, instead)


def _temporary(above: Path) -> Path:
    """A folder that is this user's alone: everybody may write beside it, so one of that name may be somebody else's trap."""
    folder = above / f"hf_diffusion_kit-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    return folder if _is_ours(folder) else _for_this_process(above)


def _is_ours(folder: Path) -> bool:
    told = folder.lstat()
    if not stat.S_ISDIR(told.st_mode):
        return False
    return os.name == "nt" or (told.st_uid == os.getuid() and stat.S_IMODE(told.st_mode) == 0o700)


@cache
def _for_this_process(above: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hf_diffusion_kit-", dir=above))
    atexit.register(_remove, os.getpid(), folder)
    return folder


def _remove(process: int, folder: Path) -> None:
    """Not by a child that was forked and has inherited the wish."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
