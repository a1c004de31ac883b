"""One command as several processes on this machine, as torchrun starts them, but with the command's own exit code."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from .errors import ConfigError
from .training.asked import ASKED

PATIENCE = 30.0
"""Seconds that the others have to end once one has failed."""


def launch(words: Sequence[str], count: int) -> int:
    """Runs `hfdk *words` in `count` processes that know of each other; returns the first exit code that is not 0.

    Signals are handed on to all, so that Ctrl-C saves a checkpoint as it does in one process.
    """
    if count < 2:
        raise ConfigError(f"must be 2 or more, got {count}", where="--processes", case=1)
    port = free_port()
    started = [
        subprocess.Popen([sys.executable, "-m", "hf_diffusion_kit", *words], env={**os.environ, **place(rank, count, port)})
        for rank in range(count)
    ]

    def hand_on(number: int, _: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return watched(started)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watched(started: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Waits for all; one that fails takes the others along, for they would wait for it."""
    while True:
        codes = [process.poll() for process in started]
        if all(code is not None for code in codes):
            return next((abs(code) if code > 0 else 128 - code for code in codes if code), 0)
        if bad := next((code for code in codes if code), None):
            end = time.monotonic() + PATIENCE
            while any(process.poll() is None for process in started) and time.monotonic() < end:
                time.sleep(0.1)
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            return bad if bad > 0 else 128 - bad
        time.sleep(0.1)


def place(rank: int, count: int, port: int) -> dict[str, str]:
    """What torch.distributed reads."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port, ASKED: count}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started_by_another() -> bool:
    """Whether this process is one of several already."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1) > 1


def rank() -> int:
    return int(os.environ.get("RANK", "0") or 0)
