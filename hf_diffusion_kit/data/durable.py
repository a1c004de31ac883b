"""What was written outlasts a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """A file, or a folder's list of names. Windows syncs no folders, and files only when they are open for writing."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
