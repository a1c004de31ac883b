"""COCO's two files of annotations as typed records, a window at a time: memory does not grow with the file.

Lin et al. 2014; Chen et al. 2015. What is not needed (polygons) is stepped over without being built. Years differ in the order of
keys, mirrors leave out `info` and `licenses`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ..errors import SourceError
from .pictures import what_is

Id = int | str
WINDOW = 1_000_000
"""Bytes that are looked at together."""


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


class Object(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    area: float | None = None
    iscrowd: int | bool | None = 0


class Category(msgspec.Struct, gc=False):
    id: Id
    name: str
    supercategory: str | None = None


CAPTIONS: dict[str, type] = {"images": Image, "annotations": Caption, "licenses": License}
"""captions_*.json: which arrays are read, and as what."""
INSTANCES: dict[str, type] = {"annotations": Object, "categories": Category}
"""instances_*.json."""
OPTIONAL = ("licenses",)

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
SPACE = re.compile(rb"[ \t\r\n]*")
BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
BYTE = re.compile(r"\(byte (\d+)\)")


def stream(
    path: Path, kinds: Mapping[str, type], *, window: int = WINDOW, watch: Callable[[memoryview], None] = lambda block: None
) -> Iterator[tuple[str, list[Any]]]:
    """(name of the array, some of its records) until the file ends; each array that is wanted comes at least once.

    `watch` sees every byte of the file, in order. Raises SourceError with the place: `annotations[17].caption`, or a byte. A byte
    order mark is accepted.
    """
    try:
        with path.open("rb", buffering=0) as file:
            yield from _Walk(path, file, kinds, window, watch).arrays()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, fix="name the file of annotations", case=7) from error


class _Walk:
    """Once through one file. `store[at:end]` is the window, `base` the offset in the file of its first byte."""

    def __init__(
        self, path: Path, file: BinaryIO, kinds: Mapping[str, type], window: int, watch: Callable[[memoryview], None]
    ) -> None:
        self.path, self.file, self.window, self.watch = path, file, window, watch
        self.decoders = {name: msgspec.json.Decoder(list[kind]) for name, kind in kinds.items()}  # type: ignore[valid-type]
        self.other: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
        self.captions = kinds is CAPTIONS
        self.store = bytearray(window + 65_536)
        self.at = self.end = 1  # one byte before the place is ours to write on
        self.base, self.ended = -1, False

    def arrays(self) -> Iterator[tuple[str, list[Any]]]:
        self._begin()
        seen: set[str] = set()
        while self._next() != b"}" or seen:
            name = self._name()
            if name in self.decoders and self._next() != b"n":  # null is an array that is not there
                seen.add(name)
                if self._next() != b"[":
                    raise self._wrong(f"{name}: expected array", self._offset)
                yield name, []
                yield from ((name, part) for part in self._array(name))
            else:
                self._step_over()
            if self._next() == b"}":
                break
            if self._next() != b",":
                raise self._wrong("it is JSON is malformed: expected ',' or '}'", self._offset)
            self.at += 1
        self.at += 1
        if self._next():
            raise self._wrong("it is JSON is malformed: trailing characters", self._offset)
        if missing := [name for name in self.decoders if name not in seen and name not in OPTIONAL]:
            raise self._error(f"top level: object missing required field {missing[0]}")

    def _begin(self) -> None:
        self._more(512)
        head = bytes(self.store[self.at : self.end])
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise SourceError("is UTF-16 from its first byte on", where=self.path, fix="save it as UTF-8", case=7)
        self.at += 3 if head.startswith(b"\xef\xbb\xbf") else 0
        if (sign := self._next()) == b"[":
            raise self._error("top level: expected object, got array")
        if sign != b"{":
            what, fix = what_is(head[:512])
            what = what if "no picture" not in what else "is no JSON, from its first byte on"
            fix = fix if "JPEG" not in str(fix) else "name a COCO file of annotations"
            raise SourceError(what, where=self.path, fix=fix, case=7)
        self.at += 1

    def _name(self) -> str:
        """The key before the next value, and past its colon."""
        if self._next() != b'"':
            raise self._wrong("it is JSON is malformed: expected a key", self._offset)
        while (found := STRING.match(self.store, self.at, self.end)) is None:
            self._grow()
        key, self.at = bytes(found[0]), found.end()
        if self._next() != b":":
            raise self._wrong("it is JSON is malformed: expected ':'", self._offset)
        self.at += 1
        try:
            return msgspec.json.decode(key, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._wrong("it is JSON is malformed: a key is no text", self._offset) from error

    def _array(self, name: str) -> Iterator[list[Any]]:
        """Records of the array that begins here. A window is cut between two records: a cut inside a text or a nested value leaves
        something open, so that decoding succeeds for a right cut only, and then the array's content has been checked in full."""
        self.at += 1
        decoder, count = self.decoders.get(name, self.other), 0
        while True:
            self._more(self.window)
            end = self.end
            while (cut := self._cut(end)) is not None:
                part, closed = self._decode(decoder, cut[0], name, count)
                if part is not None:
                    yield part
                    count += len(part)
                    if closed is not None:
                        self.at = closed
                        return
                    self.at = cut[1]
                    break
                end = cut[0] - 1
            else:  # no place to cut: the array ends in this window, or the window is too small
                part, closed = self._decode(decoder, None, name, count)
                if part is not None:
                    yield part
                    self.at = self.end if closed is None else closed
                    return
                self._grow()

    def _cut(self, end: int) -> tuple[int, int] | None:
        """Past the last `}` before `end` that `, {` follows, and the place of that `{`."""
        while (place := self.store.rfind(b"}", self.at, end)) >= 0:
            if found := BETWEEN.match(self.store, place, self.end):
                return place + 1, found.end()
            end = place
        return None

    def _decode(
        self, decoder: "msgspec.json.Decoder[list[Any]]", cut: int | None, name: str, count: int
    ) -> tuple[list[Any] | None, int | None]:
        """The records before `cut`, and the place behind the array if it ended there; (None, None) where the cut was wrong. The
        brackets are written into the window, which is large, and taken out again."""
        first, last = self.at - 1, self.end if cut is None else cut + 1
        self.store[first] = ord("[")
        kept = self.store[last - 1]
        if cut is not None:
            self.store[cut] = ord("]")
        text = memoryview(self.store)[first:last]
        try:
            return decoder.decode(text), None
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), name, count) from error
        except msgspec.DecodeError as error:
            place = BYTE.search(str(error))
            byte = int(place[1]) if place else len(text)
            if "trailing characters" in str(error):  # the array ends in this window; msgspec counts one further here
                return decoder.decode(text[: byte - 1]), first + byte - 1
            if byte >= len(text) - 1:
                return None, None
            raise self._wrong(f"it is {BYTE.sub('', str(error)).strip()}", self.base + first + byte) from error
        except UnicodeDecodeError as error:
            raise self._not_utf8(bytes(text[1:])) from error
        except RecursionError as error:
            raise self._error("is nested too deeply for a COCO file", "fetch the file again") from error
        finally:
            self.store[last - 1] = kept

    def _step_over(self) -> None:
        """A value that nobody wants: an array of objects window by window, anything else as a whole."""
        if self._next() == b"[":
            for _ in self._array(""):
                pass
            return
        while True:
            try:
                msgspec.json.decode(memoryview(self.store)[self.at : self.end], type=msgspec.Raw)
                if not self.ended:  # a number that the window cuts looks whole
                    self._grow()
                    continue
                self.at = self.end
            except msgspec.DecodeError as error:
                if "trailing characters" in str(error):
                    self.at += int(BYTE.findall(str(error))[0]) - 1
                elif self.ended and "truncated" not in str(error):
                    raise self._wrong(f"it is {BYTE.sub('', str(error)).strip()}", self._offset) from error
                else:
                    self._grow()
                    continue
            except RecursionError as error:
                raise self._error("is nested too deeply for a COCO file", "fetch the file again") from error
            return

    @property
    def _offset(self) -> int:
        """Of the present place in the file."""
        return self.base + self.at

    def _next(self) -> bytes:
        """The next byte that is no white space, which is not taken; nothing at the end of the file."""
        while True:
            if found := SPACE.match(self.store, self.at, self.end):
                self.at = found.end()
            if self.at < self.end or self.ended:
                return bytes(self.store[self.at : min(self.at + 1, self.end)])
            self._more(1)

    def _more(self, wanted: int) -> None:
        """At least `wanted` bytes from the present place on, unless the file ends."""
        if self.ended or self.end - self.at >= wanted:
            return
        held = self.end - self.at
        room = self.store if len(self.store) >= wanted + 1 else bytearray(wanted + 65_536)
        room[1 : 1 + held] = self.store[self.at : self.end]
        self.base += self.at - 1
        self.store, self.at, self.end = room, 1, 1 + held
        with memoryview(self.store) as view:
            while self.end - self.at < wanted and not self.ended:
                got = self.file.readinto(view[self.end :])  # type: ignore[attr-defined]
                self.watch(view[self.end : self.end + got])
                self.end += got
                self.ended = not got

    def _grow(self) -> None:
        """Twice as much, for a value that is larger than the window. Raises SourceError at the end of the file."""
        if self.ended:
            raise self._error(f"the JSON is cut short at byte {self.base + self.end}", "fetch the file again")
        self._more(2 * max(self.end - self.at, self.window))

    def _wrong(self, what: str, byte: int) -> SourceError:
        if self.at >= self.end and self.ended:
            return self._error(f"the JSON is cut short at byte {byte}", "fetch the file again")
        return self._error(f"{what} (byte {byte})", "fetch the file again")

    def _error(self, what: str, fix: str | None = None) -> SourceError:
        return SourceError(what, where=self.path, fix=fix or self._fix(what), case=7)

    def _invalid(self, text: str, name: str, count: int) -> SourceError:
        """msgspec's `Expected `int` - at `$[0].w`` -> `images[1017].w: expected int`."""
        found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?\$\[(\d+)\](.*)`)?", text, re.DOTALL)
        what, place, rest = (found[1], found[2], found[3]) if found else (text, None, None)
        where = f"{name}[{count + int(place)}]{rest or ''}" if place is not None else name
        return self._error(f"{where}: {what[:1].lower()}{what[1:].replace('`', '')}")

    def _not_utf8(self, content: bytes) -> SourceError:
        try:
            content.decode("utf-8")
            byte = self._offset
        except UnicodeDecodeError as error:
            byte = self._offset + error.start
        return self._error(f"is not UTF-8 at byte {byte}", "save it as UTF-8")

    def _fix(self, what: str) -> str:
        if "field caption" in what:
            return "this looks like objects, not captions: name captions_*.json"
        if "got array" in what:
            return "a COCO file is one object that has `images` and `annotations`"
        wanted = "images, annotations with image_id and caption"
        return f"mend that place; a file of this kind has {wanted if self.captions else 'annotations with image_id and category_id, categories'}"
