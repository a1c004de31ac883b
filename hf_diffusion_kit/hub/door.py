"""The door to a Hub: whom we talk to, how often we knock again, and how a failure becomes one line."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import httpx

from ..errors import HubError

TRIES = 5
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""
TROUBLE = (httpx.HTTPError, OSError, RuntimeError, ValueError)
"""What huggingface_hub and hf_xet raise when a Hub, the way to it, or a file fails; a broken answer is a JSONDecodeError."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Door:
    """One Hub as one user. None means what huggingface_hub would take: HF_ENDPOINT and the saved token."""

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    pause: float = 1.0
    """Seconds before the first repetition; doubled each time, at most 30."""

    @cached_property
    def api(self) -> HfApi:
        try:
            release = version("hf-diffusion-kit")
        except PackageNotFoundError:  # run from a checkout
            release = "0"
        return HfApi(endpoint=self.endpoint, token=self.token, library_name="hf_diffusion_kit", library_version=release)

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Asks until there is an answer, for requests that may be repeated. Raises the last trouble as it came."""
        for attempt in range(TRIES):
            try:
                return question()
            except TROUBLE as error:
                if attempt == TRIES - 1 or not is_passing(error):
                    raise
                self.wait(attempt, error)
        raise AssertionError  # the loop ends by return or raise

    def wait(self, attempt: int, error: BaseException) -> None:
        """As long as the Hub asks for, else a little longer each time."""
        answer = getattr(error, "response", None)
        asked = answer.headers.get("Retry-After", "") if answer is not None else ""
        time.sleep(min(float(asked), 60.0) if re.fullmatch(r"\d+", asked) else min(self.pause * 2**attempt, 30.0))

    def said(self, error: BaseException) -> str:
        """What went wrong in a few words, with no token in it."""
        if isinstance(error, HfHubHTTPError):
            text = f"the Hub answered {error.response.status_code}: {error.server_message or error.response.reason_phrase}"
        elif isinstance(error, json.JSONDecodeError):
            text = "the Hub's answer could not be read"
        else:
            text = f"{str(error) or type(error).__name__}"
        return self.scrubbed(" ".join(text.split())[:300])

    def scrubbed(self, text: str) -> str:
        if self.token:
            text = text.replace(self.token, "hf_…")
        return re.sub(r"(hf_|api_org_)[A-Za-z0-9]{8,}", r"\1…", text)


def is_passing(error: BaseException) -> bool:
    """Whether to try again: a busy or broken server, a lost connection, an answer that cannot be read, a failed upload."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING
    if isinstance(error, ValueError):
        return isinstance(error, json.JSONDecodeError)
    if isinstance(error, OfflineModeIsEnabled):
        return False
    return isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError, RuntimeError))


@dataclass(frozen=True)
class Remote:
    """A repository as it was at one moment."""

    head: str
    private: bool
    files: dict[str, RepoFile]


def look(door: Door, repo_id: str, repo_type: str) -> Remote | None:
    """The head of a repository and its files, by one tree call; None when there is no such repository (or it is hidden)."""
    try:
        info = door.ask(lambda: door.api.repo_info(repo_id, repo_type=repo_type))
    except RepositoryNotFoundError:
        return None
    return Remote(info.sha, bool(info.private), files_at(door, repo_id, repo_type, info.sha))


def files_at(door: Door, repo_id: str, repo_type: str, oid: str) -> dict[str, RepoFile]:
    tree = door.ask(lambda: list(door.api.list_repo_tree(repo_id, repo_type=repo_type, revision=oid, recursive=True)))
    return {item.path: item for item in tree if isinstance(item, RepoFile)}


def public_although_private(repo_id: str, *, created: bool = False) -> HubError:
    how = (
        "was created public although private was asked for; nothing was sent"
        if created
        else "is public, and a private push was asked for"
    )
    return HubError(
        f"the repository {how}",
        where=repo_id,
        fix="make it private in its settings, or ask for a public push (private=False)",
        case=3,
    )
