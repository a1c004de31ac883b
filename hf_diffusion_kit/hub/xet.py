"""Xet, the storage that default clients use for every large file: how its two binary formats are read.

A file is cut into chunks by its content; chunks travel packed in *xorbs*; a *shard* says which chunks of which xorbs make a file.
Format: https://huggingface.co/docs/xet (xorb, shard, CAS API). The chunks are kept packed as they came;
a plain download unpacks them.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .blobs import Blobs, FileContent

RECORD = 48
"""Every record of a shard has this many bytes."""
HAS_CHECKS, HAS_SHA256 = 1 << 31, 1 << 30
"""Flags of a file in a shard: a check record after each term; one record with the file's sha256 at the end."""


class BadXet(Exception):
    """Bytes that are not the xorb or shard they should be."""


@dataclass(frozen=True)
class Term:
    """A run of chunks [first, last) of one xorb; a file is a list of these."""

    xorb: str
    first: int
    last: int
    size: int
    """Bytes, unpacked."""


@dataclass(frozen=True)
class Chunk:
    start: int
    """Where its header begins in the xorb."""
    packed: int
    """Bytes after the 8-byte header."""
    scheme: int
    """0 as it is, 1 LZ4, 2 LZ4 over bytes grouped by their place in each 4."""
    size: int
    """Bytes, unpacked."""

    @property
    def end(self) -> int:
        return self.start + 8 + self.packed


@dataclass(frozen=True)
class XetContent:
    """A file that exists as chunks of xorbs only."""

    blobs: Blobs
    size: int
    terms: tuple[Term, ...]

    def read(self, start: int, end: int) -> Iterator[bytes]:
        place = 0
        for term in self.terms:
            if place + term.size <= start or place >= end:
                place += term.size
                continue
            xorb = self.blobs.content("xorbs", term.xorb)
            for chunk in chunks_of(xorb)[term.first : term.last]:
                if place + chunk.size > start and place < end:
                    yield unpack(xorb, chunk)[max(0, start - place) : end - place]
                place += chunk.size

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.read(0, self.size):
            digest.update(piece)
        return digest.hexdigest()


def name_of(raw: bytes) -> str:
    """A 32-byte hash as Xet writes it: four little-endian numbers."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", raw))


def chunks_of(xorb: FileContent) -> list[Chunk]:
    """The chunk headers of a xorb, in order. A trailing index, which some clients send, is not needed."""
    found, place = [], 0
    with xorb.path.open("rb") as file:
        while place + 8 <= xorb.size:
            file.seek(place)
            head = file.read(8)
            if head[0] != 0:  # the only version there is; the index begins with a letter
                break
            chunk = Chunk(place, int.from_bytes(head[1:4], "little"), head[4], int.from_bytes(head[5:8], "little"))
            if chunk.end > xorb.size or chunk.scheme > 2:
                raise BadXet(f"the chunk at byte {place} does not fit")
            found.append(chunk)
            place = chunk.end
    return found


def unpack(xorb: FileContent, chunk: Chunk) -> bytes:
    packed = b"".join(xorb.read(chunk.start + 8, chunk.end))
    if chunk.scheme == 0:
        return packed
    import pyarrow  # comes with `datasets`; the one LZ4 reader that is installed anyway

    try:
        data = pyarrow.Codec("lz4").decompress(packed, chunk.size, asbytes=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadXet(f"the chunk at byte {chunk.start} cannot be unpacked") from error
    return data if chunk.scheme == 1 else ungroup(data)


def ungroup(data: bytes) -> bytes:
    """All first bytes of each four, then all second … -> the order they had."""
    plain, place = bytearray(len(data)), 0
    for lane in range(4):
        count = len(range(lane, len(data), 4))
        plain[lane::4] = data[place : place + count]
        place += count
    return bytes(plain)


@dataclass(frozen=True)
class XetFile:
    """One file as a shard describes it."""

    hash: str
    sha256: str | None
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(term.size for term in self.terms)


def files_of_shard(shard: bytes) -> list[XetFile]:
    """The first section of a shard; what follows (chunks of the xorbs) serves deduplication across users and is not used."""
    if len(shard) < 2 * RECORD or shard[:14] != b"HFRepoMetaData":
        raise BadXet("this is no shard")
    files, place = [], RECORD
    while place + RECORD <= len(shard) and shard[place : place + 32] != b"\xff" * 32:
        file_hash, flags, count = name_of(shard[place : place + 32]), *struct.unpack_from("<II", shard, place + 32)
        place += RECORD
        if place + count * RECORD > len(shard):
            raise BadXet("the shard is cut short")
        terms = []
        for _ in range(count):
            size, first, last = struct.unpack_from("<III", shard, place + 36)
            terms.append(Term(name_of(shard[place : place + 32]), first, last, size))
            place += RECORD
        place += count * RECORD if flags & HAS_CHECKS else 0
        sha256 = None
        if flags & HAS_SHA256:
            sha256 = name_of(shard[place : place + 32])
            place += RECORD
        files.append(XetFile(file_hash, sha256, tuple(terms)))
    return files


def check_terms(blobs: Blobs, terms: tuple[Term, ...]) -> None:
    """Raises BadXet when a term names a xorb that is not here, or chunks that do not add up to its size."""
    for term in terms:
        if not blobs.has("xorbs", term.xorb):
            raise BadXet(f"xorb {term.xorb} was never uploaded")
        chunks = chunks_of(blobs.content("xorbs", term.xorb))[term.first : term.last]
        if sum(chunk.size for chunk in chunks) != term.size:
            raise BadXet(f"chunks {term.first}..{term.last} of xorb {term.xorb} are not {term.size} bytes")


def reconstruction(content: XetContent, start: int, end: int, address: dict[str, str]) -> dict[str, Any]:
    """The recipe a client follows: which chunks (terms) and which bytes of which xorb hold them. `address` is xorb -> url."""
    terms: list[dict[str, Any]] = []
    spans: dict[str, list[tuple[int, int]]] = {}
    place, skip = 0, 0
    for term in content.terms:
        if place + term.size > start and place < end:
            if not terms:
                skip = start - place
            terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": {"start": term.first, "end": term.last}})
            spans.setdefault(term.xorb, []).append((term.first, term.last))
        place += term.size
    fetch = {}
    for xorb, asked in spans.items():
        chunks = chunks_of(content.blobs.content("xorbs", xorb))
        fetch[xorb] = [
            {
                "range": {"start": first, "end": last},
                "url": address[xorb],
                "url_range": {"start": chunks[first].start, "end": chunks[last - 1].end - 1},
            }
            for first, last in merged(asked)
        ]
    return {"offset_into_first_range": skip, "terms": terms, "fetch_info": fetch}


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same chunks without overlap: a client takes the first range that begins right, also when it is too short."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
