"""MNIST's own file format, IDX: a magic number, the sizes, then bytes (LeCun et al. 1998)."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import SourceError

IMAGES, LABELS = 2051, 2049
"""The magic numbers: 0x00000803 = bytes in three dimensions (pictures), 0x00000801 = bytes in one (labels)."""

STEMS = {"train": "train", "test": "t10k"}


def read_folder(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(pictures_NHW uint8 with light ink on black, labels_N uint8) of a folder that holds MNIST's files, plain or .gz."""
    stem = STEMS[split]
    pictures_path, labels_path = (_find(folder, f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    pictures_NHW, labels_N = read(pictures_path, IMAGES), read(labels_path, LABELS)
    if len(pictures_NHW) != len(labels_N):
        raise SourceError(
            f"has {len(labels_N)} labels for {len(pictures_NHW)} pictures", where=labels_path, fix="take both of one release"
        )
    if len(labels_N) and labels_N.max() > 9:
        raise SourceError(f"holds the label {labels_N.max()}; digits are 0 to 9", where=labels_path)
    return pictures_NHW, labels_N


def read(path: Path, magic: int) -> np.ndarray:
    """One IDX file as an array of uint8; the magic number and the length are checked."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot be read: {error}", where=path, fix="download the file again") from error
    dims = 3 if magic == IMAGES else 1
    header = 4 * (1 + dims)
    if len(raw) < header:
        raise SourceError(f"is cut short: {len(raw)} bytes are less than its header", where=path, fix="download the file again")
    found, *shape = struct.unpack(f">{1 + dims}i", raw[:header])
    if found != magic:
        raise SourceError(
            f"is no IDX file of this kind: magic number {found}, expected {magic}", where=path, fix="check the file's name"
        )
    if min(shape) < 0 or len(raw) - header != int(np.prod(shape, dtype=np.int64)):
        raise SourceError(
            f"holds {len(raw) - header} bytes where its header promises {shape}", where=path, fix="download the file again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    # MNIST's files are met under two names: train-images-idx3-ubyte and, where a program unpacked them, train-images.idx3-ubyte.
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise SourceError(f"holds no {name} (plain or .gz)", where=folder, fix="name the folder that holds MNIST's four files")
