"""Settings of noise are one list for all bases; each base takes those that mean something to it, and refuses the others."""

from dataclasses import MISSING, fields
from typing import Any

from ..errors import ConfigError
from .ddpm import Ddpm
from .flow import Flow

KINDS: dict[type[Any], str] = {Ddpm: "a base that was noised step by step (DDPM)", Flow: "a base of flow matching"}


def options_for(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those that `kind` knows. Raises ConfigError for one of another kind that is set: it would be passed over without a word."""
    own = {field.name for field in fields(kind)}
    defaults = {
        field.name: field.default for other in KINDS if other is not kind for field in fields(other) if field.name not in own
    }
    for name, value in options.items():
        if name in defaults and defaults[name] is not MISSING and value != defaults[name]:
            raise ConfigError(f"means nothing for {KINDS[kind]}", where=f"training: {name}", fix="leave it out", case=1)
    return {name: value for name, value in options.items() if name not in defaults}
