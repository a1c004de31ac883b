"""What a server says of a body, and reading it: never more than was asked for, never for ever, and cut ones are known as such."""

import http.client
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .lines import Answer, Response
from .part import Part
from .trouble import Wrong

PIECE = 65536
SLOWEST = 1024
"""Bytes a second, over the time of a stall, below which a server only keeps a connection busy."""


class Cut(Exception):
    """The body ended, or came to a stop, before it was whole."""


@dataclass(frozen=True)
class Body:
    response: Response
    length: int | None
    """Bytes of this answer as they are sent; None when the server does not say."""
    packed: bool
    """By gzip or deflate, although that was not asked for; cannot be gone on with."""

    @classmethod
    def of(cls, answer: Answer) -> "Body":
        """Raises Wrong for an HTML page (a proxy or a log-in page answered instead) and for a packing that is not known here."""
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            raise Wrong("the server sent an HTML page instead of the file")
        packing = answer.headers.get("Content-Encoding", "").strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Wrong(f"arrives packed by {packing[:20]!r}, which was not asked for")
        return cls(answer.body, answer.body.length, packing not in ("", "identity"))


def validator(answer: Answer) -> str:
    """With what the server knows this version again: a strong ETag, or a date; empty where it gives none."""
    etag = answer.headers.get("ETag", "").strip()
    if etag.startswith('"') and etag.isascii():
        return etag
    return answer.headers.get("Last-Modified", "").strip()


def stated_md5(answer: Answer) -> str:
    """The ETag of a simple upload to S3 is the MD5 of the file (unless it is encrypted with a customer's key); empty for others."""
    etag = answer.headers.get("ETag", "").strip().strip('"')
    encrypted = answer.headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    encrypted |= "x-amz-server-side-encryption-customer-algorithm" in answer.headers
    simple = answer.headers.get("Server", "") == "AmazonS3" and not encrypted
    return etag if simple and re.fullmatch(r"[0-9a-f]{32}", etag) else ""


def resumed(answer: Answer, part: Part) -> bool:
    """Whether a 206 goes on exactly where the part ends, with the same version."""
    told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    if not part.have or told is None or int(told[1]) != part.have:
        return False
    etag = answer.headers.get("ETag", "").strip()
    return not etag or not part.validator.startswith('"') or etag == part.validator


def read_body(
    body: Body, part: Part, most: int, stall: float, told: Callable[[int], object], alive: Callable[[], object]
) -> None:
    """Adds the body to the part; `alive` is told of every piece. Raises Cut for one that is not whole, Wrong for one that is too long
    or not packed as it says."""
    came, window, began = 0, 0, time.monotonic()
    unpack: Any = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if body.packed else None
    while True:
        try:
            piece = body.response.read1(PIECE)
        except http.client.IncompleteRead as error:
            raise Cut(f"the connection was cut after {came} bytes") from error
        alive()
        if not piece:
            break
        came, window = came + len(piece), window + len(piece)
        _add(piece, unpack, part, most, told)
        if (now := time.monotonic()) - began > stall:
            if window < SLOWEST * (now - began):
                raise Cut(f"only {window} bytes came in {now - began:.0f} seconds")
            window, began = 0, now
    if body.response.chunked and not body.response.line_ended:
        raise Cut(f"the connection was cut after {came} bytes")
    if body.length is not None and came < body.length:
        raise Cut(f"the connection was cut after {came} of {body.length} bytes")
    if unpack is not None and not unpack.eof:
        _add(b"", unpack, part, most, told)  # what it has not handed out yet
    if unpack is not None and not unpack.eof:
        raise Cut(f"the connection was cut after {came} bytes")


def _add(piece: bytes, unpack: Any, part: Part, most: int, told: Callable[[int], object]) -> None:
    while True:
        try:
            content = unpack.decompress(piece, PIECE) if unpack is not None else piece
        except zlib.error as error:
            raise Wrong("is not packed as the server says") from error
        if part.have + len(content) > most:
            raise Wrong(f"does not end: more than {most} bytes", final=True)
        part.add(content)
        told(len(content))
        piece = unpack.unconsumed_tail if unpack is not None else b""
        if not piece:
            return
