"""Names of files that come from elsewhere: they lead to a file inside the folder, or nowhere."""

import unicodedata
from pathlib import Path, PurePosixPath

from ..errors import SourceError


def plain_name(name: str, *, where: object) -> str:
    """`name` if it is a relative path inside its folder. Raises SourceError for `..`, an absolute path, a URL, a drive."""
    bad = (
        not name
        or name.startswith(("/", "~"))
        or "\\" in name
        or "::" in name
        or "\0" in name
        or (":" in name.split("/")[0])
        or ".." in PurePosixPath(name).parts
    )
    if bad:
        what = f"{name[:80]!r} is not the name of a file inside the folder" if name else "a file name is empty"
        raise SourceError(what, where=where, fix="use a relative path with / between its parts, without `..`", case=6)
    return name


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, which may not be a link out of it. Raises SourceError, with the near name where there is one."""
    path = folder / plain_name(name, where=folder)
    try:
        found = path.is_file()
    except PermissionError as error:
        fix = "see that the folder may be entered"
        raise SourceError(f"cannot be read: {error.strerror}", where=path, fix=fix, case=9) from error
    except OSError:  # a name longer than the file system takes
        found = False
    if not found and path.is_symlink():
        raise SourceError("is a link that leads nowhere", where=path, fix="copy the file into the folder", case=9)
    if not found:
        near = near_name(folder, name)
        if near and unicodedata.normalize("NFC", near) == unicodedata.normalize("NFC", name):
            return inside(folder, near)  # the same name to any eye: composed here, decomposed there
        hint = f"; did you mean {near!r}?" if near else ""
        raise SourceError(f"there is no such file{hint}", where=path, fix="put it there, or mend the name", case=6 if near else 9)
    if not any(path.resolve().is_relative_to(home) for home in (folder.resolve(), *_blobs(folder))):
        raise SourceError("is a link that leads out of the folder", where=path, fix="copy the file into the folder", case=6)
    return path


def _blobs(folder: Path) -> list[Path]:
    """Where the files of a Hub snapshot lie: `datasets--user--name/snapshots/<commit>/` is made of links into `../../blobs/`."""
    for home in folder.resolve().parents:
        if home.name.startswith(("datasets--", "models--", "spaces--")) and (home / "snapshots").is_dir():
            return [(home / "blobs").resolve()]
    return []


def near_name(folder: Path, name: str) -> str | None:
    """The only file in the same place whose name differs in case or Unicode form alone."""
    parent, told = folder / PurePosixPath(name).parent, PurePosixPath(name).name
    try:
        near = [path.name for path in parent.iterdir() if folded(path.name) == folded(told) and path.name != told]
    except OSError:  # it is not there, no folder, or may not be read
        return None
    return (PurePosixPath(name).parent / near[0]).as_posix() if len(near) == 1 else None


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
