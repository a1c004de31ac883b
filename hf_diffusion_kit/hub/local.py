"""A Hugging Face Hub on this machine: `with LocalHub(folder) as hub`, and every stock client can push to it and pull from it."""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import uvicorn

from ..errors import ConfigError, StorageError
from .access import Keys, keep_token
from .faults import FaultRule
from .server import HubApp
from .store import Store

HOST = "127.0.0.1"


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
        faults: FaultRule | None = None,
        lfs_above: int = 10 * 2**20,
    ):
        """`port` 0 takes any free one. `faults` is asked before each request (see `Fault`). Files larger than `lfs_above`
        bytes, and weights of any size, go to large-file storage."""
        self.folder, self.user = Path(folder), user
        self._port, self._faults, self._lfs_above = port, faults, lfs_above
        self._running: _Running | None = None

    def __enter__(self) -> "LocalHub":
        if self._running is not None:
            raise ConfigError("this LocalHub is already running", where=self.folder)
        app = open_app(self.folder, self.user, self._faults, self._lfs_above)
        try:
            self._running = _Running(app, self._port)
        except BaseException:
            app.store.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        running, self._running = self._up, None
        running.stop()

    @property
    def _up(self) -> "_Running":
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


def serve(folder: Path, port: int = 8800, user: str = "you", *, announce: Callable[[str], None] = print) -> None:
    """Serves until Ctrl-C; `announce` is given the lines to show. Raises StorageError like `LocalHub`."""
    with LocalHub(folder, port=port, user=user) as hub:
        announce(f"Local Hub at {hub.endpoint} (folder {hub.folder}), user {hub.user}")
        announce(f"For stock clients: export HF_ENDPOINT={hub.endpoint} HF_TOKEN=$(cat {hub.folder / 'token'})")
        announce(f"In a browser: {hub.endpoint}/login, with the token as the password. Ctrl-C ends it.")
        try:
            while hub._up.thread.is_alive():
                hub._up.thread.join(0.5)
        except KeyboardInterrupt:
            announce("stopped")


def open_app(folder: Path, user: str, faults: FaultRule | None, lfs_above: int) -> HubApp:
    try:
        store = Store(folder)
        keys = Keys(write=keep_token(folder / "token"), read=keep_token(folder / "token-read"))
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"the folder of the local Hub cannot be used: {error.strerror}", where=folder, fix="name a folder you may write"
        ) from error
    return HubApp(store, keys, user, lfs_above, faults)


class _Running:
    """The server in its thread. `stop` returns when the thread, the socket and the database are gone."""

    def __init__(self, app: HubApp, port: int):
        self.app = app
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind((HOST, port))
        except OSError as error:
            self.socket.close()
            raise StorageError(f"port {port} is taken or not allowed", fix="name another port, or 0 for any free one") from error
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, name="local-hub", daemon=True)
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.005)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
        self.app.store.close()
