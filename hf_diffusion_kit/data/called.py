"""What a folder is called in recipes, names of rows and notes: the last part of its path, and not even that where it tells of its owner."""

from pathlib import Path

from ..hub.secrets import machine_names, patterns
from .base import Findings


def called(folder: Path, findings: Findings, instead: str = "pictures") -> str:
    """The folder's own name, without its path. Where publishing would refuse that (it is the name of this user or machine, or holds
    a token), it is `instead`, and the findings say so."""
    try:
        return harmless(folder.resolve().name, findings, instead)
    except (OSError, ValueError):  # no folder can be called so
        return harmless("", findings, instead)


def harmless(name: str, findings: Findings, instead: str = "pictures") -> str:
    """The same of a name alone."""
    if name and not _tells(name):
        return name
    note = f"the name of a folder tells of this machine or its user and is not kept; it is called {instead!r} instead"
    if note not in findings.notes:
        findings.notes.append(note)
    return instead


def _tells(name: str) -> bool:
    written = name.encode("utf-8", "surrogatepass")
    return any(pattern.search(written) for pattern in patterns(machine_names(), Path()).values())
