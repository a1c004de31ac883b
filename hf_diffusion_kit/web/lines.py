"""Connections: to the numbers that were checked and no others, with the certificate of the name that was asked for, kept open for the
next file of the same server."""

import errno
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import certifi

from .address import Lookup, Rules, Target, follow, look_up, numbers, refused, target

CONNECTING = 10.0
"""Seconds for a connection to come about; a server that is there answers within one."""
MOVED = frozenset({301, 302, 303, 307, 308})
REDIRECTS = 3
DRAINED = 65536
"""Bytes of an unwanted answer that are read so that its connection can be used again."""


class Reader(io.BufferedReader):
    """Remembers the last line, by which a cut among headers or between chunks is known; `http.client` takes it for their end."""

    last: bytes = b""

    def readline(self, limit: int | None = -1, /) -> bytes:
        self.last = super().readline(limit)
        return self.last


class Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.reader = self.fp = Reader(sock.makefile("rb", buffering=0))

    def begin(self) -> None:
        """Raises IncompleteRead for headers without an end."""
        super().begin()
        if not self.line_ended:
            raise http.client.IncompleteRead(b"")

    @property
    def line_ended(self) -> bool:
        """Whether the last line that was read is the empty one, after which headers and chunked bodies end."""
        return self.reader.last in (b"\r\n", b"\n")


class Line(http.client.HTTPConnection):
    """One connection. `http.client` follows no redirect, uses no proxy and unpacks nothing by itself."""

    response_class = Response

    def __init__(self, found: Target, found_numbers: list[str], context: ssl.SSLContext | None, seconds: float):
        super().__init__(found.host, found.port, timeout=seconds)
        self.found, self.numbers, self.context = found, found_numbers, context
        self.raw: socket.socket | None = None
        self.used = False
        self.moved = time.monotonic()
        """When it last came a step further."""

    def alive(self) -> None:
        self.moved = time.monotonic()

    def connect(self) -> None:
        """Raises OSError with the trouble of the last number."""
        trouble = OSError(f"{self.found.host} leads nowhere")
        for number in self.numbers:
            try:
                self.sock = self.raw = socket.create_connection((number, self.found.port), timeout=CONNECTING)
                break
            except TimeoutError:
                trouble = OSError(errno.EHOSTUNREACH, f"nothing from {number} in {CONNECTING:.0f} seconds")
            except OSError as error:
                trouble = error
        else:
            raise trouble
        self.alive()
        self.raw.settimeout(self.timeout)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def secure(self) -> None:
        """Raises SSLError, for a certificate that is not of the name that was asked for too."""
        if self.context is not None and self.raw is not None:
            secured = self.context.wrap_socket(self.raw, server_hostname=self.found.host, do_handshake_on_connect=False)
            self.sock = self.raw = secured
            secured.do_handshake()

    def cut(self) -> None:
        """From another thread: whoever reads here stops."""
        if (raw := self.raw) is not None:
            with suppress(OSError):
                socket.socket.shutdown(raw, socket.SHUT_RDWR)

    def hang_up(self) -> None:
        self.close()
        if self.raw is not None:
            self.raw.close()


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    """Looked up whatever the case."""
    body: Response
    alive: Callable[[], None]
    """To be called for every piece that is read; else the connection is given up after a while."""


@dataclass
class Lines:
    rules: Rules
    seconds: float
    """Without a byte, or for all of an answer's headers, after which a connection is given up. Single bytes do not count: headers,
    the sizes of chunks and what follows them may come by drops, and for ever."""
    lookup: Lookup = look_up
    context: ssl.SSLContext | None = None
    """None: the system's and certifi's authorities, SSL_CERT_FILE as well."""
    stopped: threading.Event = field(default_factory=threading.Event)
    _idle: dict[str, list[Line]] = field(default_factory=dict)
    _busy: set[Line] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _watch: threading.Thread | None = None

    @contextmanager
    def ask(self, address: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """The answer to GET, redirects followed by hand and held to the rules. Raises SourceError for an address that may not be
        asked; OSError and HTTPException as they come."""
        found = target(address, self.rules)
        for _ in range(REDIRECTS + 1):
            line, body = self._answer(found, headers)
            whole = False
            try:
                location = body.headers.get("Location")
                if body.status not in MOVED or not location:
                    yield Answer(body.status, body.reason, body.headers, body, line.alive)
                    whole = self._drained(body)
                    return
                found = follow(found, location, self.rules)
                whole = self._drained(body)
            finally:
                self._done(line, body, whole)
        raise refused(address, f"redirects more than {REDIRECTS} times")

    def stop(self) -> None:
        """Cuts what is under way and hangs up; whoever waits or reads is woken."""
        self.stopped.set()
        with self._lock:
            busy, idle = list(self._busy), [line for lines in self._idle.values() for line in lines]
            self._idle.clear()
        for line in busy:
            line.cut()
        for line in idle:
            line.hang_up()

    def _answer(self, found: Target, headers: Mapping[str, str]) -> tuple[Line, Response]:
        while True:
            line = self._line(found)
            again = line.used
            try:
                if not again:
                    line.connect()
                    line.secure()
                line.request("GET", found.path, headers={"Host": found.origin, **headers})
                body: Response = line.getresponse()  # type: ignore[assignment]
                line.used = True
                line.alive()
                return line, body
            except (OSError, http.client.HTTPException):
                self._done(line, None, whole=False)
                if not again:  # else the server had hung up meanwhile: once more, with a new connection
                    raise
            except BaseException:
                self._done(line, None, whole=False)
                raise

    def _line(self, found: Target) -> Line:
        with self._lock:
            kept = self._idle.get(found.address.removesuffix(found.path))
            line = kept.pop() if kept else None
            if line is not None:
                line.alive()
                self._busy.add(line)
            if self._watch is None:
                self._watch = threading.Thread(target=self._cut_what_hangs, daemon=True)
                self._watch.start()
        if line is None:
            found_numbers, context = numbers(found, self.rules, self.lookup), None
            if found.scheme == "https":
                context = self.context = self.context or trusted()
            line = Line(found, found_numbers, context, self.seconds)
            with self._lock:
                self._busy.add(line)
        if self.stopped.is_set():
            self._done(line, None, whole=False)
            raise ConnectionAbortedError("stopped")
        return line

    def _cut_what_hangs(self) -> None:
        while not self.stopped.wait(min(1.0, self.seconds / 4)):
            with self._lock:
                hang = [line for line in self._busy if line.raw is not None and time.monotonic() - line.moved > self.seconds]
            for line in hang:
                line.cut()

    def _done(self, line: Line, body: Response | None, whole: bool) -> None:
        """Keeps the connection if its answer was read to the end and the server keeps it too."""
        with self._lock:
            self._busy.discard(line)
            if whole and body is not None and not body.will_close and not self.stopped.is_set():
                key = line.found.address.removesuffix(line.found.path)
                self._idle.setdefault(key, []).append(line)
                return
        if body is not None:
            body.close()
        line.hang_up()

    def _drained(self, body: Response) -> bool:
        """Whether the answer ends within a few bytes."""
        if body.isclosed():
            return True
        try:
            return len(body.read(DRAINED)) < DRAINED and body.read(1) == b""
        except (OSError, http.client.HTTPException):
            return False


def trusted() -> ssl.SSLContext:
    """Certificates are always checked."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
