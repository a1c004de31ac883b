"""Downloads one address to one file: whole or not at all, from where an earlier attempt stopped, politely again when the server or the
way to it fails."""

import hashlib
import http.client
import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

from ..errors import KitError, NetworkError, SourceError
from .address import Rules
from .body import Body, Cut, read_body, resumed, stated_md5, validator
from .lines import Answer, Lines
from .part import Part, alone, writing
from .trouble import Trouble, Wrong, gone, hint, said

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""
GAIN = 65536
"""Bytes that an attempt has to bring so that the tries are counted from 0 again: a large file over a bad line comes in the end."""


@dataclass(frozen=True)
class Patience:
    tries: int = 6
    """In a row, each of them without gain."""
    pause: float = 1.0
    """Seconds before the first repetition; doubled each time, up to half as much more or less by chance, at most `longest`."""
    longest: float = 30.0
    asked: float = 120.0
    """Seconds that a server may ask to wait (Retry-After); one that asks for more is left alone."""
    stall: float = 20.0
    """Seconds without a byte, or with fewer than 1 kB a second, after which a connection is given up."""
    sleep: Callable[[float], object] | None = None
    """Waits; None: as time goes by. For tests."""


@dataclass(frozen=True)
class Wanted:
    address: str
    path: Path
    """Where it goes; its folder is made."""
    most: int
    """Bytes that are taken at most, unpacked."""
    size: int | None = None
    """Bytes it must have, where that is known."""
    sha256: str | None = None
    there: Callable[[], bool] = lambda: False
    """Asked when no other process works on the file: whether it is there by now."""
    accept: Callable[[Path, "Fetched"], None] | None = None
    """The last word before the file at `path` gets its name. Raises SourceError for content that is not what was wanted."""


@dataclass(frozen=True)
class Fetched:
    bytes: int
    sha256: str
    etag: str
    """Without its quotes; empty where the server gives no strong one."""


@dataclass
class Web:
    """Fetches files, several threads at once if need be; `with Web(...) as web` hangs up at the end."""

    rules: Rules
    patience: Patience = Patience()
    chance: random.Random = field(default_factory=random.Random)
    """Where the jitter of pauses comes from."""
    lines: Lines = field(init=False)
    answered: bool = field(default=False, init=False)
    """Whether any server has answered yet; while none has, the network may be down, and little patience is shown."""

    def __post_init__(self) -> None:
        self.lines = Lines(self.rules, self.patience.stall)

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Whoever fetches or waits in another thread ends with InterruptedError."""
        self.lines.stop()

    def fetch(self, wanted: Wanted, told: Callable[[int], object] = lambda number: None) -> Fetched | None:
        """The file at `wanted.path`, whole; None when another process was quicker. `told`: how many bytes came, as they come (fewer
        than 0 when it starts anew).

        Raises SourceError for an address that may not be asked, a file that is not there, or content that is wrong twice; NetworkError
        when the network or the server fails again and again; StorageError when it cannot be written; InterruptedError after `stop`.
        """
        with writing(wanted.path):
            wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(wanted.path, lambda: not self.lines.stopped.is_set()):
            if wanted.there():
                return None
            part = Part.found(wanted.path)
            told(part.have)
            try:
                return self._until_whole(wanted, part, told)
            finally:
                part.close()

    def _until_whole(self, wanted: Wanted, part: Part, told: Callable[[int], object]) -> Fetched:
        tries = wrong = 0
        while True:
            before = part.have
            try:
                self._attempt(wanted, part, told)
                return self._checked(wanted, part)
            except Wrong as error:
                told(-part.have)
                part.drop()
                wrong += 1
                if wrong > 1 or error.final:
                    again = "" if error.final else " (fetched twice)"
                    raise SourceError(f"{error}{again}", where=wanted.address, fix=error.fix, case=12) from error
                self._wait(0, None)
            except Trouble as error:
                tries = 1 if part.have - before >= GAIN else tries + 1
                if tries >= (self.patience.tries if self.answered or error.reached else min(2, self.patience.tries)):
                    raise NetworkError(f"{error} ({tries} times in a row)", where=wanted.address, fix=hint(error)) from error
                self._wait(tries - 1, error.wait)

    def _attempt(self, wanted: Wanted, part: Part, told: Callable[[int], object]) -> None:
        """One request. Raises Trouble, Wrong, SourceError."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": agent()}
        if part.have:
            headers |= {"Range": f"bytes={part.have}-", "If-Range": part.validator}
        try:
            with self.lines.ask(wanted.address, headers) as answer:
                self.answered = True
                body = self._body(answer, wanted, part, told)
                if body is not None:
                    read_body(body, part, wanted.most, self.patience.stall, told, answer.alive)
        except KitError:
            raise
        except ssl.SSLCertVerificationError as error:
            what = f"its certificate is not valid: {error.verify_message}"
            raise NetworkError(what, where=wanted.address, fix="nothing is fetched without a valid certificate") from error
        except Cut as error:
            raise Trouble(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            if self.lines.stopped.is_set():
                raise InterruptedError from error
            raise Trouble(said(error, self.patience.stall), reached=not gone(error)) from error

    def _body(self, answer: Answer, wanted: Wanted, part: Part, told: Callable[[int], object]) -> Body | None:
        """What is to be read; None where all is there already."""
        if answer.status == 416 and part.have:
            if answer.headers.get("Content-Range", "").strip() == f"bytes */{part.have}":
                return None
            told(-part.have)
            part.drop()
            raise Trouble("the server cannot go on with what is here", wait=0.0)
        if answer.status in PASSING:
            raise Trouble(
                f"the server answered {answer.status} {answer.reason}".rstrip(), wait=self._asked(answer, wanted.address)
            )
        if answer.status not in (200, 206):
            raise refused_by_server(answer, wanted.address)
        if answer.status == 206 and not resumed(answer, part):
            told(-part.have)
            part.drop()
            raise Trouble("the server sent another part than was asked for", wait=0.0)
        body = Body.of(answer)
        whole = None if body.length is None else body.length + (part.have if answer.status == 206 else 0)
        if not body.packed and whole is not None:
            if wanted.size is not None and whole != wanted.size:
                raise Wrong(f"has {whole} bytes and not {wanted.size}")
            if whole > wanted.most:
                raise Wrong(f"has {whole} bytes, and at most {wanted.most} are taken", final=True)
        known = wanted.size or wanted.sha256 or wanted.accept or stated_md5(answer)
        if body.length is None and not body.packed and not body.response.chunked and not known:
            raise Wrong("the server does not say how long it is, and a cut one could not be told from a whole one", final=True)
        if answer.status == 200:
            told(-part.have)
            part.begin("" if body.packed else validator(answer), "" if body.packed else stated_md5(answer))
        return body

    def _checked(self, wanted: Wanted, part: Part) -> Fetched:
        """Read back from the disk, checked against all that is known, and given its name. Raises Wrong."""
        part.close()
        with writing(part.path):
            size = part.file.stat().st_size
            with part.file.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            md5 = ""
            if part.md5:
                with part.file.open("rb") as file:
                    md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            with part.file.open("rb") as file:
                head = file.read(64).lstrip().lower()
        page = " (it is an HTML page)" if head.startswith((b"<!doctype html", b"<html")) else ""
        if wanted.size is not None and size != wanted.size:
            raise Wrong(f"has {size} bytes and not {wanted.size}{page}")
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            raise Wrong(f"has another sha256 than it must{page}: {sha256}")
        if md5 != part.md5:
            raise Wrong(f"is not what the server itself says of it (MD5 {md5} and not {part.md5}){page}")
        fetched = Fetched(size, sha256, part.validator.strip('"') if part.validator.startswith('"') else "")
        try:
            if wanted.accept is not None:
                wanted.accept(part.file, fetched)
        except SourceError as error:
            raise Wrong(error.message, fix=error.fix) from error
        part.finish()
        return fetched

    def _asked(self, answer: Answer, address: str) -> float | None:
        """Seconds of Retry-After, None for 0 as well. Raises NetworkError when that is too long."""
        told, seconds = answer.headers.get("Retry-After", "").strip(), None
        if told.isascii() and told.isdigit():
            seconds = float(told[:9])
        elif told:
            with suppress(ValueError, TypeError):
                date = parsedate_to_datetime(told)
                seconds = max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
        if seconds is not None and seconds > self.patience.asked:
            what = f"the server answered {answer.status} and asks to wait {seconds:.0f} seconds"
            raise NetworkError(what, where=address, fix="try again then; what has arrived is kept")
        return seconds or None

    def _wait(self, attempt: int, asked: float | None) -> None:
        patience = self.patience
        by_chance = min(patience.pause * 2**attempt, patience.longest) * (0.5 + self.chance.random())
        seconds = max(asked, by_chance) if asked else (0.0 if asked == 0.0 else by_chance)
        if patience.sleep is not None:
            patience.sleep(seconds)
        else:
            self.lines.stopped.wait(seconds)
        if self.lines.stopped.is_set():
            raise InterruptedError


def refused_by_server(answer: Answer, address: str) -> SourceError:
    told = {404: "is not there", 410: "is not there any more", 401: "may not be read", 403: "may not be read"}
    why = told.get(answer.status, "cannot be fetched")
    return SourceError(
        f"{why}: the server answered {answer.status} {answer.reason}".rstrip(), where=address, fix="leave it out", case=9
    )


def agent() -> str:
    try:
        return f"hf-diffusion-kit/{version('hf-diffusion-kit')}"
    except PackageNotFoundError:  # run from a checkout
        return "hf-diffusion-kit/0"
