import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Under nohup, and behind a shell's `&`, these are ignored, and so they would be in every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything is imported: no test may look for the Hub, and toy tensors lose to thread contention.
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1"
)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Nor read or write the user's own caches, tokens and repositories. Clients read these when they are imported.
HOME = Path(tempfile.mkdtemp(prefix="hfdk-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(HF_HOME=str(HOME / "hf"), HFDK_HUB_DIR=str(HOME / "hub"))
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
    os.environ.pop(name, None)

import pytest

sys.path.insert(0, str(Path(__file__).parent))


DEEP = frozenset(("flux2-klein", "flux-schnell", "z-image", "chroma", "auraflow", "sana", "lumina2"))
SLOWER: dict[str, frozenset[str]] = {
    **dict.fromkeys(("test_families", "test_methods", "test_formats", "test_validation"), DEEP),
    **dict.fromkeys(
        ("test_init_from", "test_lora_files", "test_kohya", "test_single_file", "test_one_file_bases"), frozenset(["sdxl"])
    ),
}
"""File -> bases with which it is a slow test: deep toys, and those whose like is tried beside them. Parity and answers are asked of all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        told = getattr(item, "callspec", None)
        if told and SLOWER.get(item.path.stem, frozenset()) & {value for value in told.params.values() if isinstance(value, str)}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets lead to this machine or nowhere."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients in this process may talk: to a local Hub, for there is nothing else to reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from hf_diffusion_kit.testing import LocalHub

    with LocalHub(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def hub(served: Any, online: None) -> Iterator[Any]:
    """A running LocalHub without repositories or faults. Starting and stopping one takes 0.2 s, so all tests share it."""
    yield served
    served.set_faults(None)
    store = served._up.app.store  # nobody asks it anything now
    for repo in store.repos():
        store.delete(repo)
    served.requests.clear()
