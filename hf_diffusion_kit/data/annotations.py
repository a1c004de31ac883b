"""COCO's two files of annotations, read into typed records; what is not needed (polygons) is skipped without being built.

Lin et al. 2014; Chen et al. 2015. Years differ in the order of keys, mirrors leave out `info` and `licenses`.
"""

import mmap
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from ..errors import SourceError
from .pictures import what_is

Id = int | str


class Image(msgspec.Struct, gc=False):
    id: Id
    file_name: str
    width: float = 0
    height: float = 0
    license: Id | None = None
    coco_url: str | None = None
    flickr_url: str | None = None


class Caption(msgspec.Struct, gc=False):
    image_id: Id
    caption: str | None
    id: Id = 0


class License(msgspec.Struct, gc=False):
    id: Id
    name: str | None = None
    url: str | None = None


class Captions(msgspec.Struct, gc=False):
    """captions_*.json."""

    images: list[Image]
    annotations: list[Caption]
    licenses: list[License] | None = None


class Object(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id


class Category(msgspec.Struct, gc=False):
    id: Id
    name: str


class Instances(msgspec.Struct, gc=False):
    """instances_*.json."""

    annotations: list[Object]
    categories: list[Category]


File = TypeVar("File", Captions, Instances)


def read(path: Path, kind: type[File]) -> File:
    """Raises SourceError with the place in the file: `annotations[17].caption`, or a byte. A byte order mark is accepted."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            # Mapped, not read: the largest file has 370 MB, of which two thirds are polygons that are skipped.
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, fix="name the file of annotations", case=7) from error
    head = bytes(content[:16])
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError("is UTF-16 from its first byte on", where=path, fix="save it as UTF-8", case=7)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        what, fix = what_is(bytes(content[:512]))
        what = what if "no picture" not in what else "is no JSON, from its first byte on"
        raise SourceError(what, where=path, fix=fix if "JPEG" not in str(fix) else "name a COCO file of annotations", case=7)
    body = content[3:] if head.startswith(b"\xef\xbb\xbf") else content
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise SourceError(_place(str(error)), where=path, fix=_fix(str(error), kind), case=7) from error
    except msgspec.DecodeError as error:
        text = f"the JSON is cut short at byte {size}" if "truncated" in str(error) else f"it is {error}"
        raise SourceError(text, where=path, fix="fetch the file again", case=7) from error
    except UnicodeDecodeError as error:
        at = _not_utf8(body)
        raise SourceError(f"is not UTF-8 at byte {at}", where=path, fix="save it as UTF-8", case=7) from error
    except RecursionError as error:
        raise SourceError("is nested too deeply for a COCO file", where=path, fix="fetch the file again", case=7) from error


def _place(text: str) -> str:
    """msgspec's `Expected `int` - at `$.images[0].w`` -> `images[0].w: expected int`."""
    found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?", text, re.DOTALL)
    what, place = (found[1], found[2]) if found else (text, None)
    return f"{place or 'top level'}: {what[:1].lower()}{what[1:].replace('`', '')}"


def _fix(text: str, kind: type[Captions] | type[Instances]) -> str:
    if "field `caption`" in text:
        return "this looks like objects, not captions: name captions_*.json"
    if "`array`" in text and " - at" not in text:
        return "a COCO file is one object that has `images` and `annotations`"
    wanted = (
        "images, annotations with image_id and caption"
        if kind is Captions
        else "annotations with image_id and category_id, categories"
    )
    return f"mend that place; a file of this kind has {wanted}"


def _not_utf8(body: memoryview) -> int:
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0
