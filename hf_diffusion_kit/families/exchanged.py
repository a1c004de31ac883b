import inspect
from collections.abc import Mapping
from typing import Any


def exchanged(pipe: Any, parts: Mapping[str, Any]) -> Any:
    """A stock pipeline with the same settings and some parts exchanged; the others are shared, neither moved nor cast."""
    settings = [name for name in inspect.signature(type(pipe).__init__).parameters if name not in pipe.components]
    told = {name: pipe.config[name] for name in settings if name in pipe.config}
    return type(pipe)(**{**pipe.components, **parts, **told})
