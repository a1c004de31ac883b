"""Which Hub is meant, and what is in a repository before a push."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import get_token
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

from ..errors import HubError
from .door import TROUBLE, Door


@contextmanager
def open_door(hub: str | None, *, token: str | None = None) -> Iterator[Door]:
    """The Hub that is meant: None the real one, `local` the embedded one, else an address.

    Raises HubError when a Hub is meant that wants a token and there is none: never silently another one.
    """
    if hub == "local":
        from .local import default_folder, local_door

        with local_door(default_folder()) as door:
            yield door
        return
    if hub is not None and not hub.startswith(("http://", "https://")):
        raise HubError("is no Hub", where=f"hub: {hub}", fix="say `local`, or an address that begins with https://", case=3)
    if token is None and get_token() is None:
        fix = "run `hf auth login` or set HF_TOKEN, or push to the embedded Hub: --hub local"
        raise HubError("there is no token to push with", where=f"hub: {hub or 'huggingface.co'}", fix=fix, case=3)
    yield Door(hub, token)


def remote_card(door: Door, repo_id: str, *, repo_type: str = "model") -> str | None:
    """The README.md that is there now; None when there is none. Raises HubError."""
    with TemporaryDirectory(prefix="hfdk-card-") as cache:
        try:
            path = door.ask(lambda: door.api.hf_hub_download(repo_id, "README.md", repo_type=repo_type, cache_dir=cache))
        except (RepositoryNotFoundError, RemoteEntryNotFoundError):
            return None
        except TROUBLE as error:
            text = f"the card that is there could not be read, nothing was sent: {door.said(error)}"
            raise HubError(text, where=repo_id, fix="check the network and the token, then run again", case=3) from None
        try:
            return Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            what = f"the card that is there is not UTF-8 at byte {error.start}, nothing was sent"
            fix = "save its README.md as UTF-8, or delete it there, then run again"
            raise HubError(what, where=f"{repo_id}: README.md", fix=fix, case=3) from None
