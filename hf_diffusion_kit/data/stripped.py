"""A picture's file without what it says of its maker and place (EXIF, GPS, XMP, IPTC, comments), its pixels untouched.

The segments that decide the pixels are kept as they are, so a file without such data comes out byte for byte the same. Of EXIF
only the orientation stays, in an EXIF block of our own that says nothing else.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from ..errors import SourceError

ALPHA = b"hfAL"
"""A chunk of our own in PNGs: how opaque the picture was before it was put on white, itself a grey PNG. Other readers pass it over."""
PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs", ALPHA}
WEBP_KEPT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""In JPEG's coded data: the next marker that is neither a stuffed byte nor a restart."""


class Unreadable(SourceError):
    """The file's outer structure is not understood; its pixels may still be."""


def strip(content: bytes, form: str, orientation: int = 1) -> bytes:
    """`form`: Pillow's name of the format. `orientation`: EXIF's 1 to 8. Raises Unreadable; BMP has nothing to strip."""
    try:
        if form in ("JPEG", "MPO"):
            return b"".join(_jpeg(content, orientation))
        if form == "PNG":
            return b"".join(_png(content, orientation))
        return _webp(content, orientation) if form == "WEBP" else content
    except (struct.error, IndexError) as error:
        raise Unreadable(f"its {form} structure is not understood ({error})", case=1) from error


def _tiff(orientation: int) -> bytes:
    """A TIFF block with one entry: tag 0x0112, one short."""
    return struct.pack(">2sHIH HHIHH I", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _jpeg(content: bytes, orientation: int) -> Iterator[bytes]:
    """Ends at the first end-of-image mark: what phones append (a second picture with its own EXIF, a film) is dropped."""
    yield content[:2]
    if orientation != 1:
        block = b"Exif\0\0" + _tiff(orientation)
        yield b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    at = 2
    while True:
        while content[at] == 0xFF and content[at + 1] == 0xFF:
            at += 1
        if content[at] != 0xFF:
            raise Unreadable(f"there is no JPEG marker at byte {at}", case=1)
        marker = content[at + 1]
        if marker == 0xD9:
            yield b"\xff\xd9"
            return
        (length,) = struct.unpack_from(">H", content, at + 2)
        segment = content[at : at + 2 + length]
        at += 2 + length
        if _jpeg_kept(marker, segment[4:]):
            yield segment
        if marker == 0xDA:
            following = MARKER.search(content, at)
            if following is None:
                raise Unreadable("the JPEG has no end", case=1)
            yield content[at : following.start()]
            at = following.start()


def _jpeg_kept(marker: int, body: bytes) -> bool:
    if 0xE0 <= marker <= 0xEF:
        colour = marker in (0xE0, 0xEE) or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
        return colour and not body.startswith(b"JFXX\0")
    return marker != 0xFE


def _png(content: bytes, orientation: int) -> Iterator[bytes]:
    yield content[:8]
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        if at + 12 + length > len(content):
            raise Unreadable("the PNG has no end", case=1)
        if kind in PNG_KEPT:
            yield content[at : at + 12 + length]
        if kind == b"IHDR" and orientation != 1:
            block = b"eXIf" + _tiff(orientation)
            yield struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
        at += 12 + length


def _webp(content: bytes, orientation: int) -> bytes:
    kept, at = [], 12
    end = 8 + struct.unpack_from("<I", content, 4)[0]
    if end > len(content):
        raise Unreadable("the WebP has no end", case=1)
    while at < end:
        kind, length = struct.unpack_from("<4sI", content, at)
        size = 8 + length + length % 2
        chunk = content[at : at + size]
        if kind == b"VP8X":
            flags = chunk[8] & ~0x0C | (0x08 if orientation != 1 else 0)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind in WEBP_KEPT:
            kept.append(chunk)
        at += size
    if orientation != 1:
        block = _tiff(orientation)
        kept.append(struct.pack("<4sI", b"EXIF", len(block)) + block)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
