"""A web server on this machine that fails in every way a server can, on demand. Its proper answers are those of S3: ETag, ranges,
404 for what it has not."""

import gzip
import hashlib
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Asked", bytes], None]
"""Answers one request in its own way; given the request and the content of the file that was asked for."""


class Faulty:
    """`with Faulty({"/a.jpg": content}) as server`. `faults[path]`: how the first requests of a path are answered, one entry each;
    `always[path]`: how all of them are."""

    def __init__(self, files: dict[str, bytes], context: ssl.SSLContext | None = None):
        self.files, self.context = dict(files), context
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """(path, headers) of each, in order."""
        self.secret = False
        """As if files were encrypted with a customer's key: their ETags are no MD5."""
        self.connections = 0
        self.most_at_once = 0
        self.ended = threading.Event()
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Faulty":
        owner = self

        class Handler(Asked):
            faulty = owner

        self.up = Quiet(("127.0.0.1", 0), Handler)
        if self.context is not None:
            self.up.socket = self.context.wrap_socket(self.up.socket, server_side=True)
        self.thread = threading.Thread(target=self.up.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self.ended.set()
        self.up.shutdown()
        self.up.server_close()
        self.thread.join()

    @property
    def origin(self) -> str:
        return f"127.0.0.1:{self.up.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.origin}"

    def counts(self) -> Counter[str]:
        return Counter(path for path, _ in self.requests)

    def entered(self, path: str, headers: dict[str, str]) -> Fault:
        with self._lock:
            self.requests.append((path, headers))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            left = self.faults.get(path)
            return left.pop(0) if left else self.always.get(path, proper)

    def left(self) -> None:
        with self._lock:
            self._now -= 1


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what this is for."""


class Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.faulty.connections += 1

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        fault = self.faulty.entered(path, {name.lower(): value for name, value in self.headers.items()})
        try:
            fault(self, self.faulty.files.get(path, b""))
        finally:
            self.faulty.left()

    def version_string(self) -> str:
        return "AmazonS3"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"", *, close: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def proper(asked: Asked, content: bytes) -> None:
    if asked.path.partition("?")[0] not in asked.faulty.files:
        body = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"
        return asked.answer(404, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)
    told = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
    same = asked.headers.get("If-Range", etag(content)) == etag(content)
    headers = {"ETag": etag(content), "Content-Type": "image/jpeg", "Accept-Ranges": "bytes"}
    headers |= {"x-amz-server-side-encryption": "aws:kms"} if asked.faulty.secret else {}
    if not told or not same:
        return asked.answer(200, headers | {"Content-Length": str(len(content))}, content)
    start = int(told[1])
    if start >= len(content):
        return asked.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
    place = f"bytes {start}-{len(content) - 1}/{len(content)}"
    rest = content[start:]
    return asked.answer(206, headers | {"Content-Range": place, "Content-Length": str(len(rest))}, rest)


def plain(content: bytes | None = None, **headers: str) -> Fault:
    """200 with these headers beside the usual ones (`Content_Length="3"` replaces one, "" leaves one out); then the connection ends."""

    def fault(asked: Asked, stored: bytes) -> None:
        body = stored if content is None else content
        told = {"ETag": etag(stored), "Content-Type": "image/jpeg", "Content-Length": str(len(body))}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        asked.answer(200, {name: value for name, value in told.items() if value}, body, close=True)

    return fault


def status(number: int, body: bytes = b"", **headers: str) -> Fault:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked, content: asked.answer(number, {"Content-Length": str(len(body)), **told}, body)


def reset(asked: Asked, content: bytes) -> None:
    """RST instead of an answer."""
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hung_up(asked, content)


def hung_up(asked: Asked, content: bytes) -> None:
    asked.close_connection = True


def cut(after: int) -> Fault:
    """All is announced; so many bytes (of what is left, where a range was asked for) come, and the connection ends."""

    def fault(asked: Asked, content: bytes) -> None:
        written = asked.wfile
        asked.wfile = _Short(written, after)  # type: ignore[assignment]
        proper(asked, content)
        asked.wfile = written
        asked.close_connection = True

    return fault


class _Short:
    def __init__(self, file: Any, most: int):
        self.file, self.most, self.headers = file, most, True

    def write(self, data: bytes) -> int:
        self.file.write(data if self.headers else data[: self.most])
        self.headers = False
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def stall(after: int) -> Fault:
    """So many bytes, then silence with the connection open."""

    def fault(asked: Asked, content: bytes) -> None:
        cut(after)(asked, content)
        asked.faulty.ended.wait(5)

    return fault


def silent(asked: Asked, content: bytes) -> None:
    asked.faulty.ended.wait(5)
    asked.close_connection = True


def _for_ever(asked: Asked, piece: bytes, pause: float) -> None:
    asked.close_connection = True
    for _ in range(2000):
        asked.wfile.write(piece)
        if asked.faulty.ended.wait(pause):
            return


def drip(asked: Asked, content: bytes) -> None:
    """A byte now and then: never quite silent."""
    asked.answer(200, {"ETag": etag(content), "Content-Length": str(len(content) or 1)}, close=True)
    _for_ever(asked, b"\xff", 0.02)


def drip_headers(asked: Asked, content: bytes) -> None:
    asked.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _for_ever(asked, b"x", 0.02)


def cut_zero(asked: Asked, content: bytes) -> None:
    """Ends after the first digit of a size, which is 0."""
    chunked(content[:30000], end=False)(asked, content)
    asked.wfile.write(b"0")


def drip_chunks(asked: Asked, content: bytes) -> None:
    """Digits of the size of a chunk that never comes."""
    asked.answer(200, {"ETag": etag(content), "Transfer-Encoding": "chunked"}, close=True)
    _for_ever(asked, b"0", 0.02)


def endless_trailers(asked: Asked, content: bytes) -> None:
    chunked(end=False)(asked, content)
    asked.close_connection = True
    asked.wfile.write(b"0\r\n")
    _for_ever(asked, b"X-More: and more\r\n" * 100, 0.005)


def for_ever_continuing(asked: Asked, content: bytes) -> None:
    _for_ever(asked, b"HTTP/1.1 100 Continue\r\n\r\n", 0.005)


def endless(asked: Asked, content: bytes) -> None:
    asked.answer(200, {"ETag": etag(content)}, close=True)
    _for_ever(asked, b"\xff\xd8" * 30000, 0)


def chunked(content: bytes | None = None, *, end: bool = True, times: int = 1) -> Fault:
    def fault(asked: Asked, stored: bytes) -> None:
        body = stored if content is None else content
        asked.answer(200, {"ETag": etag(stored), "Transfer-Encoding": "chunked"}, close=not end)
        for start in range(0, len(body) * times, 10000):
            piece = body[start % len(body) :][:10000]
            asked.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            asked.wfile.write(b"0\r\n\r\n")

    return fault


def zipped(*, whole: bool = True, lie: bool = False, bomb: bool = False) -> Fault:
    """gzip, although it was not asked for."""

    def fault(asked: Asked, content: bytes) -> None:
        body = content if lie else gzip.compress(bytes(20_000_000) if bomb else content, 6)
        plain(body if whole else body[: len(body) // 2], Content_Encoding="gzip")(asked, content)

    return fault


def garbage(asked: Asked, content: bytes) -> None:
    asked.wfile.write(b"220 mail.example ESMTP ready\r\n")
    asked.close_connection = True


def many_headers(asked: Asked, content: bytes) -> None:
    asked.answer(200, {f"X-{n}": "x" * 100 for n in range(300)}, content, close=True)


def other_part(asked: Asked, content: bytes) -> None:
    """206 from a place that was not asked for."""
    headers = {"ETag": etag(content), "Content-Range": f"bytes 7-{len(content) - 1}/{len(content)}"}
    asked.answer(206, headers | {"Content-Length": str(len(content) - 7)}, content[7:], close=True)


def no_ranges(asked: Asked, content: bytes) -> None:
    """A server that knows no Range."""
    plain()(asked, content)


def whatever_version(asked: Asked, content: bytes) -> None:
    """A server that heeds Range and not If-Range."""
    del asked.headers["If-Range"]
    proper(asked, content)


def half_headers(asked: Asked, content: bytes) -> None:
    asked.wfile.write(b"HTTP/1.1 200 OK\r\nServer: Amaz")
    asked.close_connection = True


def redirect(to: str, number: int = 302) -> Fault:
    return status(number, Location=to)


HTML = b"<!DOCTYPE html><html><body>Please log in to the hotel's network</body></html>"
page = plain(HTML, Content_Type="text/html; charset=utf-8", ETag="")
page_in_disguise = plain(HTML, ETag="")
