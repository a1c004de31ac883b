"""An ASGI app served on 127.0.0.1 by a thread of this process."""

import socket
import threading
import time
from typing import Any, Generic, TypeVar

import uvicorn

from ..errors import StorageError

HOST = "127.0.0.1"

App = TypeVar("App")


class Running(Generic[App]):
    """The server in its thread. `stop` returns when the thread and the socket are gone."""

    def __init__(self, app: App, port: int, *, name: str, log_level: str = "error"):
        """`port` 0 takes any free one. Raises StorageError when the port cannot be had."""
        self.app = app
        # asyncio sends at once, without waiting for more, only where it sees that the protocol is TCP: 40 ms a request.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind((HOST, port))
        except (OSError, OverflowError) as error:
            self.socket.close()
            raise StorageError(f"port {port} is taken or not allowed", fix="name another port, or 0 for any free one") from error
        self.port = self.socket.getsockname()[1]
        served: Any = app
        config = uvicorn.Config(
            served,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=log_level,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, name=name, daemon=True)
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.005)

    def wait(self) -> None:
        """Until Ctrl-C, which comes out of here, or until the server has ended."""
        while self.thread.is_alive():
            self.thread.join(0.5)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
