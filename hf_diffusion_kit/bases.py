"""What a run starts from: an embedded base by its name, a folder, or a Hub id pinned to one commit."""

import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from . import digits
from .errors import ConfigError, ModelError
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


def resolve(name: str, *, revision: str | None = None, license_id: str | None = None, config: str | None = None) -> Base:
    """Embedded name, folder, checkpoint of one file or Hub id -> what exactly it is. Asks the Hub only for a Hub id.

    `config`: for a file, the base whose configurations and tokenizers go with it. `license_id` states the licence where the base's own card
    does not. Raises ConfigError, ModelError or HubError.
    """
    if name in digits.BASES:
        folder = digits.path(name)
        return Base(folder, None, Pinned(name, None, EMBEDDED_LICENSE, weights_of(folder)), embedded=True)
    folder = at_home(name, where="base")
    if folder.is_dir():
        return Base(folder, None, Pinned(folder.resolve().name, None, license_id, weights_of(folder)))
    if folder.suffix in (".safetensors", ".ckpt", ".pt") and folder.is_file():
        return of_one_file(folder, license_id, config)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(digits.BASES)
        raise ConfigError(
            "is no folder, and no Hub id such as user/name", where=f"base: {name}", fix=f"or name one of: {known}", case=1
        )
    from .hub.pin import pin

    pinned = pin(name, revision=revision)
    if license_id and not pinned.license:
        pinned = replace(pinned, license=license_id)
    return Base(name, pinned.revision, pinned)


def of_one_file(file: Path, license_id: str | None, config: str | None) -> Base:
    """A checkpoint of one file, unpacked once; where it lies is decided by its content and by what it was unpacked with."""
    if file.suffix != ".safetensors":
        fix = "convert it to .safetensors where you trust it, or find it as such"
        raise ModelError("is a pickle, which can run code when it is opened", where=file, fix=fix, case=6)
    from .data.where import cache_folder
    from .families.unpacked import unpack

    sha256 = file_sha256(file)
    mark = hashlib.sha256(f"{sha256} {config}".encode()).hexdigest()[:16]
    folder = cache_folder("bases") / mark
    if not folder.is_dir():
        half = folder.with_name(f".{mark}.{os.getpid()}")
        shutil.rmtree(half, ignore_errors=True)
        try:
            unpack(file, half, config=config)
            half.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return Base(folder, None, Pinned(file.name, None, license_id, {file.name: sha256}))


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
