"""COCO's archives of annotations: which split lies in which, what they must be, and taking single files out of them."""

import hashlib
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import SourceError, StorageError, nearest
from ..web.part import alone, writing

LARGEST = 2**31
"""Bytes of a file of annotations at most; the largest of COCO has 0.5 GB."""
PIECE = 2**20
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for an archive that is damaged, encrypted or packed in a way it does not know."""


@dataclass(frozen=True)
class Archive:
    path: str
    """Below the endpoint."""
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


OF_2014 = Archive(
    "annotations/annotations_trainval2014.zip",
    252_872_794,
    "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
)
OF_2017 = Archive(
    "annotations/annotations_trainval2017.zip",
    252_907_541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)
ARCHIVES = {"train2014": OF_2014, "val2014": OF_2014, "train2017": OF_2017, "val2017": OF_2017}
"""Split -> where its annotations are."""
WITHOUT_CAPTIONS = ("test2014", "test2015", "test2017", "unlabeled2017")
"""Splits whose captions COCO keeps to itself, or that have none."""


def archive_of(split: str, archives: dict[str, Archive]) -> Archive:
    """Raises SourceError for a split that is not known, or has no captions."""
    if split in archives:
        return archives[split]
    if split in WITHOUT_CAPTIONS:
        raise SourceError("COCO publishes no captions of it", where=split, fix=f"take {' or '.join(archives)}", case=7)
    raise SourceError(f"is no split of COCO; {nearest(split, archives)}", where=split or "split", case=7)


def take_out(archive: Path, name: str, to: Path) -> tuple[int, str]:
    """Writes `annotations/<name>` of the archive to `to`, whole or not at all; its size and sha256. Where it goes is not said by the
    archive. Raises SourceError, StorageError."""
    half = to.with_name(to.name + ".part")
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    with alone(to, lambda: True):
        try:
            with zipfile.ZipFile(archive) as zipped, zipped.open(_member(zipped, name)) as packed:
                size, sha256 = _written(packed, half)
            with writing(to):
                half.replace(to)
        except StorageError:
            raise
        except DAMAGED as error:
            raise SourceError(f"is damaged: {error}", where=archive, fix="delete it, and it is fetched anew", case=12) from error
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise SourceError(what, where=archive, fix="run again: it is fetched anew if it is gone", case=12) from error
        finally:
            with suppress(OSError):
                half.unlink(missing_ok=True)
    return size, sha256


def _member(zipped: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [info for info in zipped.infolist() if info.filename == f"annotations/{name}"]
    if len(found) != 1:
        raise zipfile.BadZipFile(f"it has {len(found) or 'no'} annotations/{name}")
    if found[0].file_size > LARGEST:
        raise zipfile.BadZipFile(f"annotations/{name} has {found[0].file_size:,} bytes")
    return found[0]


def _written(packed: IO[bytes], half: Path) -> tuple[int, str]:
    """zipfile checks the CRC at the end, and gives no more than the size that is stated."""
    mark, size = hashlib.sha256(), 0
    with writing(half):
        file = half.open("wb")
    with file:
        while piece := packed.read(PIECE):
            mark.update(piece)
            size += len(piece)
            with writing(half):
                file.write(piece)
        with writing(half):
            file.flush()
            os.fsync(file.fileno())
    return size, mark.hexdigest()
