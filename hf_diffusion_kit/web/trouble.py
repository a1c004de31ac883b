"""Why an attempt failed, in a few words."""

import http.client
import os
import socket
import ssl

KEPT = "try again later; what has arrived is kept, and the same command goes on from there"


class Trouble(Exception):
    """An attempt failed; another one may succeed."""

    def __init__(self, why: str, *, wait: float | None = None, reached: bool = True):
        super().__init__(why)
        self.wait = wait
        """Seconds that the server asks for; None: as patience has it."""
        self.reached = reached
        """Whether there was a server at the other end."""


class Wrong(Exception):
    """What arrived is not what was wanted."""

    def __init__(self, why: str, *, fix: str | None = None, final: bool = False):
        super().__init__(why)
        self.fix = fix or "try again later; what arrived was deleted"
        self.final = final
        """Whether it will not be any better the second time."""


def gone(error: BaseException) -> bool:
    """Whether not even a connection came about."""
    return isinstance(error, socket.gaierror | ConnectionRefusedError) or (
        isinstance(error, OSError) and not isinstance(error, ConnectionError | ssl.SSLError | TimeoutError)
    )


def said(error: BaseException, seconds: float) -> str:
    if isinstance(error, socket.gaierror):
        return "the server's name could not be looked up: is there a network?"
    if isinstance(error, ConnectionRefusedError):
        return "nobody answers there (connection refused)"
    if isinstance(error, TimeoutError):
        return f"nothing came for {seconds:.0f} seconds"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "the connection was cut"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection came about ({error.reason or 'TLS'})"
    if isinstance(error, http.client.HTTPException):
        return f"the answer could not be read ({type(error).__name__})"
    return f"no connection came about ({getattr(error, 'strerror', None) or error})"


def hint(error: Trouble) -> str:
    """What to do; a proxy that is set and not used is named when nobody could be reached."""
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if not error.reached and (proxy := next((name for name in names if os.environ.get(name)), None)):
        return f"{proxy} is set, but proxies are not used here; fetch the files by other means and name their folder"
    return KEPT
