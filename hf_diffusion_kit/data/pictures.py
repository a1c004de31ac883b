"""The one way from a file to RGB, whichever door the picture comes in by.

JPEG, PNG, WebP or BMP by content, never by name; at most 64 million pixels. EXIF turns are applied, transparency lies on white,
16-bit grey is scaled to 8, of an animation the first frame counts. Grey, palette and CMYK become RGB as Pillow does it; colour
profiles are kept in the file but not applied, as in every stock loader.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import SourceError
from .base import Row
from .paths import inside
from .stripped import Unreadable, strip

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
OTHER_SUFFIXES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".psd", ".svg", ".eps", ".jp2", ".jxl", ".jfif")
"""Files that somebody may take for a picture of the set; they are counted, not read."""
MAX_PIXELS = 64_000_000
SMALLEST = 8
"""Pixels of the shorter side; nothing can be learnt from less."""
ORIENTATION = 0x0112
_T = Image.Transpose
TURNS = {
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}
"""EXIF orientation -> what sets the picture upright."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error)
"""What Pillow raises over a damaged file."""
AGAIN = "fetch it again"
SIGNS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself", "git lfs pull"),
    (b"%!PS", "an EPS drawing", None),
    (b"\xc5\xd0\xd3\xc6", "an EPS drawing", None),
    (b"%PDF", "a PDF", None),
    (b"8BPS", "a Photoshop file", None),
    (b"II*\0", "a TIFF", None),
    (b"MM\0*", "a TIFF", None),
    (b"GIF8", "a GIF", None),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\xff\xd8", "a JPEG whose header is damaged", AGAIN),
    (b"\x89PNG", "a PNG whose header is damaged", AGAIN),
    (b"RIFF", "a WebP whose header is damaged, or another RIFF file", AGAIN),
    (b"BM", "a BMP whose header is damaged", AGAIN),
    (b"{", "JSON", None),
)


@dataclass(frozen=True)
class Stored:
    """A picture that was decoded in full, as it goes into a dataset."""

    content: bytes
    """The file without private metadata; a PNG made anew where stock loaders would not show the same pixels."""
    width: int
    """Pixels, upright."""
    height: int
    remarks: tuple[str, ...]
    """What is unusual about it, in the words of REMARKS."""


REMARKS = {
    "turned": "pictures that EXIF turns upright",
    "metadata": "pictures with EXIF, GPS or comments, which are not kept",
    "transparent": "pictures with transparency, which is put on white",
    "deep": "pictures of 16 bits, which are scaled to 8",
    "animated": "animations, of which the first frame counts",
    "grey": "grey pictures",
}


def open_rgb(source: Path | str | bytes) -> Image.Image:
    """The picture, upright, RGB, 8 bits a channel. Raises SourceError that says what the file really is."""
    content, where = (source, "picture") if isinstance(source, bytes) else (read(Path(source)), source)
    return _rgb(_open(content, where), where)


def store(content: bytes, where: object) -> Stored:
    """Decodes a picture in full and makes it fit to be kept. Raises SourceError that says what the file really is."""
    image = _open(content, where)
    if min(image.size) < SMALLEST:
        raise SourceError(f"has {image.width}x{image.height} pixels; each side needs {SMALLEST}", where=where, case=4)
    animated = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    rgb = _rgb(image, where)
    turn = _orientation(image)
    remarks = ["turned"] * (turn != 1) + ["animated"] * animated
    if image.mode.startswith("I"):
        remarks.append("deep")
    elif _see_through(image):
        remarks.append("transparent")
    elif image.mode in ("1", "L", "LA"):
        remarks.append("grey")
    if "deep" in remarks or "transparent" in remarks:
        return Stored(_png(rgb), *rgb.size, tuple(remarks))
    try:
        kept = strip(content, str(image.format), turn)
    except Unreadable:
        kept = _png(rgb)
    return Stored(kept, *rgb.size, (*remarks, *["metadata"] * (kept != content)))


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"cannot be read: {told}", where=path, fix="see that it is there and may be read", case=1) from error


def read_rows(rows: Iterable[Row]) -> Iterator[tuple[Row, bytes | SourceError]]:
    """The files of pictures on disk, which may not lie outside their folder."""
    for row in rows:
        try:
            if row.folder is None:
                raise SourceError("has no folder", where=row.file_name, case=9)
            yield row, read(inside(row.folder, row.file_name))
        except SourceError as error:
            yield row, error


def what_is(content: bytes) -> tuple[str, str | None]:
    """What a file that is no picture really is, and what to do."""
    head = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not content:
        return "is empty (0 bytes)", AGAIN
    if not content.strip(b"\0"):
        return f"holds {len(content)} zero bytes and nothing else", AGAIN
    lower = head.lower()
    if lower.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, perhaps a server's answer saved under a picture's name", AGAIN
    if lower.startswith((b"<svg", b"<?xml")):
        return "is an SVG or XML file", "convert it to PNG"
    if content[4:8] == b"ftyp":
        kind = "an AVIF picture" if content[8:12] in (b"avif", b"avis") else "a HEIC picture or a film"
        return f"is {kind}", "convert it to JPEG or PNG"
    for sign, kind, fix in SIGNS:
        if head.startswith(sign):
            return f"is {kind}", fix or "convert it to JPEG or PNG"
    return f"is no picture that is known here (it begins with {content[:8].hex(' ')})", "convert it to JPEG or PNG"


def _open(content: bytes, where: object) -> Image.Image:
    try:
        with _strict():
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SourceError(f"is too large: {error}", where=where, fix="make it smaller", case=1) from error
    except BROKEN as error:  # UnidentifiedImageError is an OSError
        what, fix = what_is(content)
        raise SourceError(what, where=where, fix=fix, case=5 if content else 1) from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height} pixels"
        raise SourceError(
            f"has {size}; {MAX_PIXELS // 1_000_000} million are allowed", where=where, fix="make it smaller", case=1
        )
    return image


@contextmanager
def _strict() -> Iterator[None]:
    """A picture of absurd size is an error; what Pillow says of corrupt EXIF is not heard, for EXIF is dropped anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _orientation(image: Image.Image) -> int:
    """Of a picture that is loaded already: Pillow would load a PNG here, and its damage would pass for damaged EXIF."""
    try:
        with _strict():
            turn = image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        return 1
    return turn if turn in TURNS else 1


def _rgb(image: Image.Image, where: object) -> Image.Image:
    """Raises SourceError when the picture cannot be decoded to its last row."""
    try:
        with _strict():
            image.load()
        turn = _orientation(image)
        if image.mode.startswith("I"):
            deep_HW = np.asarray(image).astype(np.float32)
            image = Image.fromarray(np.clip(np.round(deep_HW / 257), 0, 255).astype(np.uint8))
        elif _see_through(image):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("RGB")
        image.info = {}
        return image.transpose(TURNS[turn]) if turn in TURNS else image
    except BROKEN as error:
        short = "truncated" in str(error).lower() or "unexpected end" in str(error).lower()
        what = "is cut short: the file ends before the picture does" if short else f"is damaged: {error}"
        raise SourceError(what, where=where, fix=AGAIN, case=1) from error


def _see_through(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(lowest != 255)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
