"""One request to the local Hub, and the ways to answer or refuse it."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from .access import Keys, Role
from .blobs import Content
from .store import Repo, Store

OWN_PATHS = frozenset({"api", "datasets", "lfs", "login", "spaces", "v1", "xet"})
"""First parts of paths that are the Hub's own, and so nobody's name."""


class Refusal(Exception):
    """An answer that ends the request: status, the Hub's error code (clients turn it into an exception) and a sentence."""

    def __init__(self, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}

    def response(self) -> Response:
        headers = {"X-Error-Message": self.message.encode("ascii", "replace").decode().replace("\n", " "), **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message}, self.status, headers)


def not_here_yet(what: str) -> Refusal:
    return Refusal(501, f"{what} is not part of the local Hub yet")


@dataclass(frozen=True)
class Call:
    request: Request
    args: dict[str, str]
    """The named parts of the path, unquoted one by one."""
    role: Role
    user: str
    store: Store
    keys: Keys
    lfs_above: int
    """Bytes above which a file goes to large-file storage whatever its kind."""
    any_name: bool = False
    """Whether repositories may be under any name, not the user's alone."""

    @property
    def base(self) -> str:
        return str(self.request.base_url).rstrip("/")

    async def json(self) -> dict[str, Any]:
        try:
            body = json.loads(await self.request.body() or b"{}")
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise Refusal(400, "the body is not a JSON object")
        return body

    def needs_write(self) -> None:
        if self.role is Role.NOBODY:
            raise Refusal(401, "Invalid username or password.", headers={"WWW-Authenticate": "Basic"})
        if self.role is not Role.WRITE:
            raise Refusal(403, "this token may only read; use one with the write role")

    @property
    def kind(self) -> str:
        """`models` in an API path, `datasets/` or nothing in the path of a page -> `model` or `dataset`."""
        return (self.args.get("kind") or "model").rstrip("/").removesuffix("s")

    def repo(self, *, write: bool = False) -> Repo:
        """The repository of the path, if the caller may see it. Strangers are not told whether a private one exists."""
        repo = self.store.repo(self.kind, self.args["repo"])
        if repo is None or (repo.private and self.role is Role.NOBODY):
            status = 401 if self.role is Role.NOBODY else 404
            raise Refusal(
                status,
                "Repository not found",
                code="RepoNotFound",
                headers={"WWW-Authenticate": "Basic"} if status == 401 else None,
            )
        if write:
            self.needs_write()
        return repo

    def opened_repo(self) -> Repo:
        """The same, if the caller may have its files too."""
        repo = self.repo()
        if repo.gated and self.role is Role.NOBODY:
            raise Refusal(401, "Access to this repository is restricted: its terms have to be accepted", code="GatedRepo")
        return repo

    def revision(self, repo: Repo, name: str | None = None) -> str:
        name = name or self.args.get("rev") or "main"
        oid = self.store.resolve(repo, name)
        if oid is None:
            raise Refusal(404, f"Invalid rev id: {name}", code="RevisionNotFound")
        return oid


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """Matched against the RAW path: `refs%2Fpr%2F1` is one part of it, and is unquoted only after the split."""

    method: str
    pattern: str
    handler: Handler


REPO = r"(?P<repo>[^/]+/[^/]+)"
API_REPO = rf"/api/(?P<kind>models|datasets)/{REPO}"
PAGE_REPO = rf"/(?P<kind>datasets/)?{REPO}"


def api(method: str, rest: str, handler: Handler) -> Route:
    return Route(method, API_REPO + rest, handler)


def page(method: str, rest: str, handler: Handler) -> Route:
    return Route(method, PAGE_REPO + rest, handler)


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """`bytes=10-19` -> (10, 20). None: no range was asked for. Raises Refusal 416 when it lies outside."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or start >= end:
        raise Refusal(416, "the range lies outside the file", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def content_response(call: Call, content: Content, headers: dict[str, str]) -> Response:
    """The whole content, or the part that was asked for; for HEAD the headers alone."""
    span = asked_range(call.request.headers.get("range"), content.size)
    start, end = span or (0, content.size)
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    if call.request.method == "HEAD":
        return Response(status_code=206 if span else 200, headers=headers)
    return StreamingResponse(pieces(content.read(start, end)), 206 if span else 200, headers)


async def pieces(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces are small and come from a local disk, so reading them in the server's one thread is quick enough."""
    for piece in source:
        yield piece
