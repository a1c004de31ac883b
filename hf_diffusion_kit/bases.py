"""What a run starts from: an embedded base by its name, a folder, or a Hub id pinned to one commit."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from . import digits
from .errors import ConfigError
from .records import Pinned, file_sha256

EMBEDDED_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class Base:
    location: str | Path
    """What `from_pretrained` is given."""
    revision: str | None
    """Commit on the Hub, so that a run of many hours and its resume see one and the same model."""
    pinned: Pinned
    embedded: bool = False
    """Whether it came with the package: digits at 32 pixels, which want little guidance and few steps."""

    @property
    def identity(self) -> str:
        """Changes whenever the weights do."""
        told = repr((self.pinned.id, self.pinned.revision, sorted(self.pinned.sha256.items())))
        return hashlib.sha256(told.encode()).hexdigest()


def resolve(name: str, *, revision: str | None = None, license_id: str | None = None) -> Base:
    """Embedded name, folder or Hub id -> what exactly it is. Asks the Hub only for a Hub id.

    `license_id` states the licence where the base's own card does not. Raises ConfigError, ModelError or HubError.
    """
    if name in digits.BASES:
        folder = digits.path(name)
        return Base(folder, None, Pinned(name, None, EMBEDDED_LICENSE, weights_of(folder)), embedded=True)
    folder = at_home(name, where="base")
    if folder.is_dir():
        return Base(folder, None, Pinned(folder.resolve().name, None, license_id, weights_of(folder)))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(digits.BASES)
        raise ConfigError(
            "is no folder, and no Hub id such as user/name", where=f"base: {name}", fix=f"or name one of: {known}", case=1
        )
    from .hub.pin import pin

    pinned = pin(name, revision=revision)
    if license_id and not pinned.license:
        pinned = Pinned(pinned.id, pinned.revision, license_id, pinned.sha256, pinned.on_hub)
    return Base(name, pinned.revision, pinned)


def at_home(told: str, *, where: str) -> Path:
    """A setting's path with `~` filled in. Raises ConfigError where it names nobody, and where it cannot be looked at."""
    try:
        path = Path(told).expanduser()
        path.exists()
        return path
    except RuntimeError as error:
        raise ConfigError(
            "nobody has that home folder", where=f"{where}: {told}", fix="write the path in full", case=1
        ) from error
    except OSError as error:  # too long a name, a folder that may not be entered
        raise ConfigError(f"cannot be looked at: {error.strerror}", where=f"{where}: {told[:80]}", case=1) from error


def weights_of(folder: Path) -> dict[str, str]:
    """Every file of weights below a folder -> sha256."""
    files = sorted(folder.rglob("*.safetensors"))
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
