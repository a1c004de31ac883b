"""What stands in a table's column of pictures -> the file of the picture."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from PIL import Image, ImageOps

from ..errors import SourceError
from .passing import TROUBLE, said
from .pictures import BROKEN, read

HUB = "hf://"
AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B")
"""Modes of a picture in memory that a PNG keeps (`I` as 16 bits, which is what such pictures have)."""
FETCH = "fetch the pictures first (img2dataset does it for many), or give a table that holds them"


def content_of(value: Any, *, where: str, within: tuple[Path, ...] | None) -> bytes:
    """Bytes, a path, an address on the Hub, or a picture in memory. Nothing is fetched from anywhere else.

    `within`: folders in which a path must lie, for the table may be somebody else's; None for any. Raises SourceError.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        raise SourceError("has no picture", where=where, case=9)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, list):
        raise SourceError(f"holds {len(value)} pictures in one row", where=where, fix="give a table of one picture a row", case=9)
    if isinstance(value, Image.Image):
        return _png(value, where)
    if not isinstance(value, str):
        raise SourceError(f"is a {type(value).__name__}, not a picture", where=where, case=9)
    if "::" in value or value.startswith(HUB):
        return _of_the_hub(value, where)
    if "://" in value:
        raise SourceError(f"has only an address ({value[:60]})", where=where, fix=FETCH, case=9)
    path = Path(value)
    if within is not None and not any(path.resolve().is_relative_to(folder.resolve()) for folder in within):
        what = f"names a file of this machine ({path.name}) that did not come with the table"
        raise SourceError(what, where=where, fix="do not use this table, or make it your own first", case=6)
    return read(path)


def mark_of(value: Any) -> bytes:
    """Differs for values that hold different files; empty where that cannot be told without reading more."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | str):
        return hashlib.sha256(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")).digest()
    return b""


def remark_of(value: Any) -> str | None:
    """What `content_of` does to a picture in memory that its file will not tell any more."""
    told = isinstance(value, Image.Image) and value.mode not in AS_PNG
    return f"pictures converted from {value.mode}" if told else None


def _png(image: Image.Image, where: str) -> bytes:
    """A picture in memory, without loss: `datasets` would make a new JPEG of one that was a JPEG."""
    buffer = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        kept = upright if upright.mode in AS_PNG else upright.convert("RGB")
        kept = kept.convert("I;16") if kept.mode == "I" else kept
        kept.save(buffer, "PNG", compress_level=1)
    except BROKEN as error:
        raise SourceError(f"cannot be decoded: {error}", where=where, fix="give the files as they are", case=9) from error
    return buffer.getvalue()


def _of_the_hub(address: str, where: str) -> bytes:
    """`hf://datasets/user/name@commit/a.jpg`, or a member of an archive there: `zip://a.jpg::hf://...`."""
    if not address.rpartition("::")[2].startswith(HUB):
        raise SourceError(f"has only an address ({address[:60]})", where=where, fix=FETCH, case=9)
    try:
        with fsspec.open(address, "rb") as file:
            return bytes(file.read())
    except TROUBLE as error:
        raise SourceError(f"cannot be fetched: {said(error)}", where=where, fix="try again", case=9) from error
