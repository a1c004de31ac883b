"""The door of a page on 127.0.0.1: who may come in, and what a browser may do with what it gets.

Anybody on this machine can reach the port, and any page of the web that is open in the browser can send requests there. So the printed
address holds a token, which becomes a cookie; a name that is not ours is refused (DNS rebinding), and what changes something must come
from the page itself.
"""

import hmac
import json
import os
import re
import secrets
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from ..errors import KitError, StorageError
from ..hub.running import HOST, Running

MOST = 64 * 2**20
"""Bytes of a request."""
HERE = Path(__file__).parent

Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """An answer that ends a request: status and a sentence."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Site:
    """An ASGI app of a few routes: `GET /picture` -> who answers."""

    routes: dict[str, Handler]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self.answer(request)
        except Refused as refused:
            response = JSONResponse({"error": refused.message}, refused.status)
        except KitError as error:
            response = JSONResponse({"error": error.line()}, 422)
        except OSError as error:
            line = StorageError(error.strerror or str(error), where=error.filename).line()
            response = JSONResponse({"error": line}, 507)
        except ClientDisconnect:
            return
        for name, value in (
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            response.headers.setdefault(name, value)
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        # A page of another site may resolve its own name to 127.0.0.1; its requests then carry that name.
        if request.url.hostname not in (HOST, "localhost"):
            raise Refused(403, "this page answers to 127.0.0.1 only")
        own = f"http://{request.headers.get('host')}"
        if request.headers.get("origin", own) != own or request.headers.get("sec-fetch-site", "none") in (
            "cross-site",
            "same-site",
        ):
            raise Refused(403, "a page of another site may not ask here")
        cookie = f"hfdk-{request.url.port or 80}"  # browsers share cookies among the ports of a machine
        if request.method == "GET" and request.url.path == "/" and self.known(request.query_params.get("token")):
            response = RedirectResponse("/", 303)
            response.set_cookie(cookie, self.token, httponly=True, samesite="strict")
            return response
        if not self.known(request.cookies.get(cookie)):
            raise Refused(401, "open the address that was printed, with its token")
        if request.method == "POST" and "origin" not in request.headers:
            raise Refused(403, "only the page itself may change anything")
        handler = self.routes.get(f"{request.method} {request.url.path}")
        if handler is None:
            raise Refused(404, "there is no such page")
        return await handler(request)

    def known(self, shown: str | None) -> bool:
        return hmac.compare_digest((shown or "").encode(), self.token.encode())


async def told(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises Refused."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST:
            raise Refused(413, f"more than {MOST:,} bytes at once are not taken")
    try:
        value = json.loads(body)
        body.decode()
    except (ValueError, RecursionError) as error:
        raise Refused(400, "is no JSON") from error
    if not isinstance(value, dict):
        raise Refused(400, "is no JSON object")
    return value


def page(name: str, title: str, data: dict[str, Any]) -> HTMLResponse:
    """`name`.html with the shared style, its title and its data. What came from outside goes in as JSON with no `<` in it, and the script
    puts it on the page as text alone."""
    nonce = secrets.token_urlsafe(16)
    packed = json.dumps(data).replace("<", "\\u003c")
    text = (HERE / f"{name}.html").read_text(encoding="utf-8")
    parts = {"style": (HERE / "style.css").read_text(encoding="utf-8"), "nonce": nonce, "title": escape(title), "data": packed}
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)  # in one go: the data may hold anything
    safe = (
        f"default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": safe})


def serve(site: Site, port: int, say: Callable[[str], None], *, what: str, browser: bool) -> str:
    """Serves until Ctrl-C; the address, without its token. Raises StorageError when the port cannot be had."""
    running = Running(site, port, name="studio")
    address = f"http://{HOST}:{running.port}/"
    try:
        say(f"{what}: {address}?token={site.token}")
        say("for this machine only, and for who has that address; Ctrl-C ends it")
        if browser and shows_windows():
            webbrowser.open(f"{address}?token={site.token}")
        running.wait()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        running.stop()
    return address


def shows_windows() -> bool:
    """Else a browser would open in the very terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
