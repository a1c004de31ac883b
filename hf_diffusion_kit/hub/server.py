"""The local Hub as an ASGI app: who is calling, which handler answers, and faults on demand.

All handlers run in the server's one thread. One that does not `await` cannot be interrupted, and a commit is one sqlite
transaction on top: two pushes at once become first and second, and the second one's `parent_commit` is stale.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import api, commits, transfer, web
from .access import Keys, Role
from .call import Call, Refusal
from .faults import Fault, FaultRule
from .store import Store

ROUTES = [*api.ROUTES, *commits.ROUTES, *transfer.ROUTES, *web.ROUTES]
SIGNED = ("/xet/", "/lfs/", "/v1/")
"""Paths with their own tokens and signatures, and where the Xet client reports to; the user's token is not looked at there."""


@dataclass
class HubApp:
    store: Store
    keys: Keys
    user: str
    lfs_above: int
    fault: FaultRule | None = None
    any_name: bool = False
    """Repositories may be under any name, not the user's alone."""
    requests: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))
    """`METHOD /path -> status`, the latest last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace").split("?")[0]
        fault = self.fault(request.method, path) if self.fault else None
        if fault is None or fault.after:
            try:
                response = await self.answer(request, path)
            except Refusal as refusal:
                response = refusal.response()
            except ClientDisconnect:
                return
        else:
            await request.body()
        if fault is not None:
            response = fault_response(fault)
        self.requests.append(f"{request.method} {path} -> {response.status_code}")
        await response(scope, receive, send)

    async def answer(self, request: Request, path: str) -> Response:
        # A page of another site may resolve its own name to 127.0.0.1; its requests then carry that name.
        if request.url.hostname not in ("127.0.0.1", "localhost"):
            raise Refusal(403, "the local Hub answers to 127.0.0.1 only")
        shown = None if path.startswith(SIGNED) else request.headers.get("authorization")
        # Basic is what browsers send by themselves, also when another site makes them: it may look but not change.
        role = self.keys.role(shown, browser=request.method in ("GET", "HEAD"))
        if role is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        for route in ROUTES:
            if route.method == request.method and (match := re.fullmatch(route.pattern, path)):
                args = {name: unquote(value) if value is not None else "" for name, value in match.groupdict().items()}
                return await route.handler(self.call(request, args, role))
        raise Refusal(404, f"the local Hub does not know {request.method} {path}")

    def call(self, request: Request, args: dict[str, str], role: Role) -> Call:
        return Call(request, args, role, self.user, self.store, self.keys, self.lfs_above, self.any_name)


def fault_response(fault: Fault) -> Response:
    if fault.status == 0:  # promise ten bytes and send none: the server then closes the connection
        return Response(status_code=200, headers={"Content-Length": "10", "Content-Type": "application/json"})
    return Response(fault.body, fault.status, fault.headers)
