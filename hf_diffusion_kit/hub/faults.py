"""Faults on demand: how a test (or a curious reader) makes the local Hub fail in a chosen place."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of its proper answer."""

    status: int = 503
    """HTTP status; 0 cuts the connection without an answer."""
    after: bool = False
    """False: the request is not served at all. True: it is served, and only its answer is lost."""
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Extra headers, for instance `{"Retry-After": "1"}`."""


FaultRule = Callable[[str, str], Fault | None]
"""Asked once per request with (method, raw path); None lets the request pass."""


def once(method: str, part: str, fault: Fault) -> FaultRule:
    """A rule that strikes the first request of `method` whose path contains `part`, and never again."""
    left = [fault]

    def rule(asked: str, path: str) -> Fault | None:
        return left.pop() if left and asked == method and part in path else None

    return rule
