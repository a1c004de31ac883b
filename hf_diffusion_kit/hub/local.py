"""A Hugging Face Hub on this machine: `with LocalHub(folder) as hub`, and every stock client can push to it and pull from it."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import ConfigError, StorageError
from .access import Keys, keep_token
from .call import OWN_PATHS
from .faults import FaultRule
from .running import HOST, Running
from .server import HubApp
from .store import InUse, Store

if TYPE_CHECKING:
    from .door import Door


def default_folder() -> Path:
    """Where the embedded Hub keeps its repositories: $HFDK_HUB_DIR, else `hfdk/hub` below $XDG_DATA_HOME or ~/.local/share. Raises
    ConfigError where that is the home folder of nobody."""
    told = os.environ.get("HFDK_HUB_DIR")
    data = os.environ.get("XDG_DATA_HOME") or Path("~", ".local", "share")
    try:
        return Path(told).expanduser() if told else Path(data).expanduser() / "hfdk" / "hub"
    except RuntimeError as error:
        fix = "set HFDK_HUB_DIR to a folder, written in full"
        raise ConfigError("nobody has that home folder", where=f"local Hub: {told or data}", fix=fix, case=1) from error


class LocalHub:
    """Serves `folder` on 127.0.0.1 until the block ends; opened again, the folder serves the same repositories.

    It speaks the part of the Hub's API that pushing, pulling and looking need (models and datasets; LFS and Xet); pull
    requests, Spaces, git itself and other users are not there. One folder is served by one process at a time.
    Raises StorageError when the folder or the port cannot be had.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        user: str = "you",
        any_name: bool = False,
        faults: FaultRule | None = None,
        lfs_above: int = 10 * 2**20,
    ):
        """`port` 0 takes any free one. `any_name`: repositories may be under any name, not the user's alone. `faults` is asked before
        each request (see `Fault`). Files larger than `lfs_above` bytes, and weights of any size, go to large-file storage."""
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", user) or user in OWN_PATHS:
            raise ConfigError(f"{user!r} cannot be a user's name", where="user", fix="letters, digits and `-`", case=1)
        self.folder, self.user, self.any_name = Path(folder), user, any_name
        self._port, self._faults, self._lfs_above = port, faults, lfs_above
        self._running: Running[HubApp] | None = None

    def __enter__(self) -> "LocalHub":
        if self._running is not None:
            raise ConfigError("this LocalHub is already running", where=self.folder)
        app = open_app(self.folder, self.user, self._faults, self._lfs_above, any_name=self.any_name)
        try:
            # A cut connection, asked for, is no error to show.
            self._running = Running(app, self._port, name="local-hub", log_level="critical" if app.fault else "error")
        except BaseException:
            app.store.close()
            raise
        address_file(self.folder).write_text(self.endpoint)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        running, self._running = self._up, None
        address_file(self.folder).unlink(missing_ok=True)
        running.stop()
        running.app.store.close()

    @property
    def _up(self) -> "Running[HubApp]":
        if self._running is None:
            raise ConfigError("this LocalHub is not running", where=self.folder, fix="use it as `with LocalHub(folder) as hub:`")
        return self._running

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._up.port}"

    @property
    def token(self) -> str:
        """May read and write. Kept in the file `token` of the folder, readable by the owner only."""
        return self._up.app.keys.write

    @property
    def read_token(self) -> str:
        """May only read."""
        return self._up.app.keys.read

    @property
    def door(self) -> "Door":
        """For `push`, `preflight` and, as `door.api`, for anything a stock HfApi can do here."""
        from .door import Door

        return Door(self.endpoint, self.token)

    @property
    def requests(self) -> deque[str]:
        """The latest requests, as `METHOD /path -> status`."""
        return self._up.app.requests

    def set_faults(self, rule: FaultRule | None) -> None:
        """From now on; None ends all faults."""
        self._up.app.fault = rule

    def environment(self) -> dict[str, str]:
        """What a fresh process of any stock client needs in its environment to use this Hub and no other."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": HOST,
            "no_proxy": HOST,
        }


@contextmanager
def local_door(folder: Path) -> "Iterator[Door]":
    """A door to the Hub in `folder`: to the one that another process is serving, else to one served while the block lasts. It takes
    repositories under any name: whoever tries `--repo me/x` before it goes to the real Hub is no stranger on this machine."""
    from .door import Door

    with ExitStack() as block:
        block.enter_context(past_proxies())
        try:
            door = block.enter_context(LocalHub(folder, any_name=True)).door
        except InUse:
            if not address_file(folder).is_file():
                raise
            door = Door(address_file(folder).read_text(), keep_token(folder / "token"))
        yield door


def serve(folder: Path, port: int = 8800, user: str = "you", *, announce: Callable[[str], None] = print) -> None:
    """Serves until Ctrl-C, repositories under any name; `announce` is given the lines to show. Raises StorageError like `LocalHub`."""
    with LocalHub(folder, port=port, user=user, any_name=True) as hub:
        announce(f"Local Hub at {hub.endpoint} (folder {hub.folder}), user {hub.user}; repositories may be under any name")
        announce(f"For stock clients: export HF_ENDPOINT={hub.endpoint} HF_TOKEN=$(cat {hub.folder / 'token'})")
        announce(f"In a browser: {hub.endpoint}/login, with the token as the password. Ctrl-C ends it.")
        try:
            hub._up.wait()
        except KeyboardInterrupt:
            announce("stopped")


def address_file(folder: Path) -> Path:
    """Holds the address while the folder is being served, so that a second process can find the first."""
    return folder / "address"


@contextmanager
def past_proxies() -> Iterator[None]:
    """While it lasts, clients of this process reach 127.0.0.1 themselves; a proxy of the environment would not find it."""
    from huggingface_hub import close_session

    names = ("NO_PROXY", "no_proxy")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: ",".join(filter(None, (value, HOST))) for name, value in before.items()})
    close_session()  # the client that is open read the environment when it was made
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        close_session()


def open_app(folder: Path, user: str, faults: FaultRule | None, lfs_above: int, *, any_name: bool = False) -> HubApp:
    try:
        store = Store(folder)
        keys = Keys(write=keep_token(folder / "token"), read=keep_token(folder / "token-read"))
    except InUse as error:
        at = f" at {address_file(folder).read_text()}" if address_file(folder).is_file() else ""
        raise InUse(f"{error.message}{at}", where=folder, fix="stop it, or name another folder") from error
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"the folder of the local Hub cannot be used: {error.strerror}", where=folder, fix="name a folder you may write"
        ) from error
    return HubApp(store, keys, user, lfs_above, faults, any_name=any_name)
