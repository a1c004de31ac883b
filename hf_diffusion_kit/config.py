"""TOML and keywords -> frozen dataclasses, strictly: an unknown key names the nearest one, a wrong type names file and field."""

import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import ConfigError, StorageError, nearest

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """A TOML file as nested dicts. Raises ConfigError with the line that cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=path, fix="name the run's TOML file", case=1) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", where=path, fix="save it as UTF-8", case=1) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", where=path, case=1) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", where=path) from None


def write(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """The resolved settings as TOML; a value that is None is left out, for TOML has no word for it."""
    import tomlkit

    document = tomlkit.document()
    for name, values in sections.items():
        table = tomlkit.table()
        for key, value in values.items():
            if value is not None:
                table.add(key, list(value) if isinstance(value, tuple) else value)
        document.add(name, table)
    half = path.with_name(path.name + ".part")
    half.write_text(tomlkit.dumps(document), encoding="utf-8")
    half.replace(path)


def build(kind: type[T], given: Mapping[str, Any], *, where: object) -> T:
    """`given` -> the dataclass `kind`. `where` is the file and section that an error names."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if extra := [key for key in given if key not in known]:
        raise ConfigError(f"there is no setting {extra[0]!r}; {nearest(extra[0], known)}", where=where, case=1)
    hints = typing.get_type_hints(kind)
    if missing := [
        f.name for f in known.values() if f.name not in given and f.default is MISSING and f.default_factory is MISSING
    ]:
        raise ConfigError(f"{missing[0]} is missing", where=where, fix=f"set {missing[0]}", case=1)
    return kind(**{name: coerced(value, hints[name], f"{where}: {name}") for name, value in given.items()})


def coerced(value: Any, hint: Any, where: object) -> Any:
    """The value as the field's type: an int may stand for a float, a list for a tuple, one text for a tuple of one; nothing else bends."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        exact = next((a for a in kinds if isinstance(a, type) and type(value) is a), kinds[0])
        return coerced(value, exact, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{value!r} is not one of: {', '.join(map(str, args))}", where=where, case=1)
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(coerced(item, args[0], where) for item in items)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(hint, type) or hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"must be {hint.__name__}, got {value!r}", where=where, case=1)


def overrides(words: Iterable[str], sections: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """`key=value` and `section.key=value` words -> {section: {key: value}}. A bare key goes to the first section that knows it."""
    found: dict[str, dict[str, Any]] = {name: {} for name in sections}
    names = {section: {f.name for f in fields(kind)} for section, kind in sections.items()}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError("is not of the form key=value", where=word, case=1)
        section, dot, name = key.strip().rpartition(".")
        homes = [section] if dot else [s for s, keys in names.items() if name in keys]
        if dot and section not in sections:
            raise ConfigError(f"there is no section {section!r}; {nearest(section, sections)}", where=word, case=1)
        if not homes or name not in names[homes[0]]:
            every = {key for keys in names.values() for key in keys}
            raise ConfigError(f"there is no setting {name!r}; {nearest(name, every)}", where=word, case=1)
        found[homes[0]][name] = value_of(text.strip())
    return found


def value_of(text: str) -> Any:
    """A word as TOML would read it (`3`, `1e-4`, `true`, `["a", "b"]`); what is no TOML value is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON and TOML take it; tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
