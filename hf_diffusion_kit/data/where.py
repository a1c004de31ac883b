"""Places on this machine: what `~` means, and where this package keeps what it can make again (below HF_HOME, as the ecosystem does)."""

import atexit
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..errors import SourceError, StorageError


def expanded(told: str | os.PathLike[str]) -> Path:
    """With `~` filled in. Raises SourceError where it names nobody."""
    try:
        return Path(told).expanduser()
    except RuntimeError as error:
        raise SourceError("nobody has that home folder", where=told, fix="write the path in full", case=9) from error


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
        folder = _temporary(Path(tempfile.gettempdir())) / Path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"can be written neither here nor in the temporary folder: {error.strerror or error}"
        raise StorageError(what, where=home, fix="set HF_HOME to a folder that may be written", case=3) from error
    return folder


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
