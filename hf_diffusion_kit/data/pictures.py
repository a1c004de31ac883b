"""The one way from a file to RGB, whichever door the picture comes in by.

JPEG, PNG, WebP or BMP by content, never by name; at most 64 million pixels. EXIF turns are applied, transparency lies on white,
16-bit grey is scaled to 8, of an animation the first frame counts. Grey, palette and CMYK become RGB as Pillow does it; colour
profiles are kept in the file but not applied, as in every stock loader. How opaque a picture was stays in a chunk of the stored PNG
that no other reader knows, so that training can go by it.
"""

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import SourceError
from .base import Row
from .paths import inside
from .stripped import ALPHA, Unreadable, strip

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
    "cmyk": "pictures converted from CMYK",
    "palette": "pictures converted from a palette",
    "opaque": "pictures with an alpha channel that hides nothing, which is not used",
    "odd": "pictures converted from another mode than RGB",
}


REMARK_OF = {"1": "grey", "L": "grey", "LA": "grey", "P": "palette", "CMYK": "cmyk", "RGBA": "opaque", "RGBX": "opaque"}
"""Pillow's mode of a picture that hides nothing -> what is said of it."""


def open_rgb(source: Path | str | bytes) -> Image.Image:
    """The picture, upright, RGB, 8 bits a channel. Raises SourceError that says what the file really is."""
    content, where = (source, "picture") if isinstance(source, bytes) else (read(Path(source)), source)
    return _rgb(_open(content, where), where)


def open_grey(source: Path | str | bytes) -> Image.Image:
    """The picture as light and dark, upright, 8 bits; transparency lies on black. Raises SourceError as `open_rgb` does."""
    content, where = (source, "picture") if isinstance(source, bytes) else (read(Path(source)), source)
    return _rgb(_open(content, where), where, ground="black").convert("L")


def alpha_of(content: bytes, where: object = "picture") -> Image.Image | None:
    """How opaque a picture is, upright, 8 bits; None where all of it is. Reads pictures as they came, and as `store` keeps them."""
    image = _open(content, where)
    for name, data, *_ in getattr(image, "private_chunks", ()):
        if name == ALPHA:
            return _rgb(_open(data, where), where).convert("L")
    if image.mode.startswith("I") or not image.has_transparency_data:
        return None
    _rgb(image, where)  # decodes it, and says what is wrong with it
    return _alpha(image) if _see_through(image) else None


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
    elif image.mode in REMARK_OF:
        remarks.append(REMARK_OF[image.mode])
    elif image.mode != "RGB":
        remarks.append("odd")
    if "transparent" in remarks:
        return Stored(_png(rgb, _alpha(image)), *rgb.size, tuple(remarks))
    if "deep" in remarks:
        return Stored(_png(rgb), *rgb.size, tuple(remarks))
    try:
        kept = strip(content, str(image.format), turn)
    except Unreadable:
        kept = _png(rgb)
    return Stored(kept, *rgb.size, (*remarks, *["metadata"] * (kept != content)))


def read(path: Path) -> bytes:
    """Raises SourceError for what cannot be read, or is no file: a pipe would be waited for without end."""
    try:
        if stat.S_IFMT(path.stat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            return path.read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"cannot be read: {told}", where=path, fix="see that it is there and may be read", case=1) from error
    raise SourceError("is no file", where=path, fix="remove it, or put a file there", case=1)


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


def _rgb(image: Image.Image, where: object, ground: str = "white") -> Image.Image:
    """Raises SourceError when the picture cannot be decoded to its last row."""
    try:
        with _strict():
            image.load()
        turn = _orientation(image)
        if image.mode.startswith("I"):
            deep_HW = np.asarray(image).astype(np.float32)
            image = Image.fromarray(np.clip(np.round(deep_HW / 257), 0, 255).astype(np.uint8))
        elif _see_through(image):
            image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
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


def _alpha(image: Image.Image) -> Image.Image:
    """Of a picture that is loaded already; upright."""
    alpha, turn = image.convert("RGBA").getchannel("A"), _orientation(image)
    return alpha.transpose(TURNS[turn]) if turn in TURNS else alpha


def _png(image: Image.Image, alpha: Image.Image | None = None) -> bytes:
    buffer, beside = io.BytesIO(), PngImagePlugin.PngInfo()
    if alpha is not None:
        beside.add(ALPHA, _png(alpha))
    image.save(buffer, "PNG", pnginfo=beside)
    return buffer.getvalue()
