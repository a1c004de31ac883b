"""For your own tests: the local Hub and the faults it can be given. `with LocalHub(tmp_path) as hub: ...`"""

from typing import Any

__all__ = ["Fault", "LocalHub", "once"]  # noqa: F822 - looked up when used, so that importing this loads no server


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .hub import faults, local

    return getattr(local if name == "LocalHub" else faults, name)
