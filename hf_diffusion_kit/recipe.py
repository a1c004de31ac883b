"""All settings of one run, section by section: what a run's TOML file holds, what a trainer's keywords are sorted into."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from . import config
from .bases import at_home
from .data.subset import Conditions, Subset, flag
from .digits import BASES
from .errors import ConfigError, nearest, positive
from .methods import Method, method
from .training.settings import TrainSettings


@dataclass(frozen=True)
class BaseSettings:
    """Section `[base]`: the model that is adapted."""

    id: str
    """Hub id (`user/name`), a folder in the diffusers layout, a `.safetensors` checkpoint of one file, or an embedded base: `digits`,
    `digits-seven`."""
    config: str | None = None
    """Of a checkpoint of one file: the base (Hub id or folder) whose configurations and tokenizers go with it; None takes the usual one."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; it is pinned to its commit when the run begins."""
    license: str | None = None
    """States the licence of a base whose own card does not."""
    device: str | None = None
    """`cuda`, `mps` or `cpu`; None takes the fastest that is there."""


@dataclass(frozen=True)
class DataSettings(Conditions):
    """Section `[data]`: the captioned pictures. Either a folder or a Hub dataset, or COCO annotations and pictures; and which of them."""

    path: str | None = None
    """A saved subset, one's own folder of pictures with captions, or the id of a dataset on the Hub."""
    annotations: str | None = None
    """COCO: folder or file of annotations."""
    images: str | None = None
    """COCO: folder of pictures, or `https`."""
    split: str | None = None
    """COCO: `val2017` ...; a Hub dataset's split."""
    caption_column: str | None = None
    """Where several columns hold captions: the one that is meant."""
    prompt: str | None = None
    """One caption for all pictures of a folder that has none (DreamBooth's instance prompt)."""
    ignore_captions: bool = False
    """Allow `prompt` to be used although the folder has captions; without it that is an error."""
    repair: bool = False
    """Leave out a last line of metadata that is cut short, instead of refusing the folder."""
    class_path: str | None = None
    """DreamBooth: a folder of class pictures; None has the base make them."""

    @property
    def subset(self) -> Subset:
        return Subset(**{entry.name: getattr(self, entry.name) for entry in fields(Conditions)})


@dataclass(frozen=True)
class GallerySettings:
    """Section `[gallery]`: pictures before and after, at the same captions and seeds."""

    captions: tuple[str, ...] = ()
    """None given: the captions of the first pictures that the run was trained on."""
    pictures: int = 4
    """How many, when no captions are given."""
    seed: int = 1000
    """Seed of the first picture; the next has the next."""
    steps: int | None = None
    """Solver steps; None takes as many as the base is usually drawn with: 25 for Stable Diffusion, 10 for an embedded base."""
    guidance: float | None = None
    """As the base's own pipeline counts it; None takes what it is usually drawn with: 7.5 for Stable Diffusion, 2 for an embedded base."""

    def __post_init__(self) -> None:
        positive("gallery", pictures=self.pictures, steps=self.steps)


@dataclass(frozen=True)
class PublishSettings:
    """Section `[publish]`: looked at before the first step, so that hours of training do not end at a closed door."""

    repo: str | None = None
    """`user/name`; None publishes nothing."""
    hub: str | None = None
    """None: the Hub. `local`: the embedded one on this machine. Else the address of a Hub."""
    private: bool = True


SECTIONS: dict[str, type] = {
    "base": BaseSettings,
    "data": DataSettings,
    "training": TrainSettings,
    "gallery": GallerySettings,
    "publish": PublishSettings,
}
"""Name -> dataclass; `method` is the one more, whose dataclass its own `name` decides."""

PATHS = {"base": ("id",), "method": ("init_from",), "data": ("path", "annotations", "images", "class_path")}
"""Settings that may hold a path of this machine."""


@dataclass(frozen=True)
class Recipe:
    base: BaseSettings
    method: Method
    training: TrainSettings
    data: DataSettings = field(default_factory=DataSettings)
    gallery: GallerySettings = field(default_factory=GallerySettings)
    publish: PublishSettings = field(default_factory=PublishSettings)

    @classmethod
    def of(cls, sections: Mapping[str, Mapping[str, Any]], *, where: object) -> "Recipe":
        """Sections of plain values -> checked settings. Raises ConfigError that names the section and the key."""
        if extra := [name for name in sections if name != "method" and name not in SECTIONS]:
            raise ConfigError(
                f"there is no section {extra[0]!r}; {nearest(extra[0], [*SECTIONS, 'method'])}", where=where, case=1
            )
        told = dict(sections.get("method", {}))
        kind = method(str(told.pop("name", "lora")))
        built: dict[str, Any] = {
            name: config.build(SECTIONS[name], sections.get(name, {}), where=f"{where} [{name}]") for name in SECTIONS
        }
        return cls(method=config.build(kind, told, where=f"{where} [method]"), **built)

    @classmethod
    def read(cls, path: Path, words: list[str], flags: Mapping[str, Mapping[str, Any]]) -> "Recipe":
        """A TOML file, then `key=value` words, then flags; the later ones win."""
        told = sections_of(config.read(path), path)
        return cls.of(merged(told, word_sections(words, told), flags), where=path)

    def sections(self) -> dict[str, dict[str, Any]]:
        """Plain values, section by section, as TOML and JSON take them; read back, they are this recipe again."""
        told = {name: config.plain(getattr(self, name)) for name in SECTIONS}
        return {"base": told.pop("base"), "method": {"name": self.method.name, **config.plain(self.method)}, **told}

    def public(self) -> dict[str, dict[str, Any]]:
        """The same without paths of this machine: of a path, its last part."""
        told = self.sections()
        for section, keys in PATHS.items():
            for key in keys:
                value: Any = told[section].get(key)
                if is_path(value) or (value and Path(value).is_absolute()):
                    told[section][key] = Path(value).name
        told["publish"] = {"repo": self.publish.repo, "private": self.publish.private}
        return told

    def command(self, data: str, out: str) -> str:
        """What to type to have this run again: base, data, method and every setting that is not the default, without paths."""
        told, words = self.public(), []
        plain = {
            **{name: config.plain(SECTIONS[name]()) for name in ("training", "gallery")},
            "method": config.plain(type(self.method)()),
        }
        for section, defaults in plain.items():
            for key, default in defaults.items():
                if (value := told[section][key]) != default:
                    name = f"gallery.{key}" if section == "gallery" else key
                    words.append(
                        shlex.quote(
                            f"{name}={json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value}"
                        )
                    )
        for key in ("revision", "license"):
            if told["base"][key]:
                words.append(shlex.quote(f"{key}={told['base'][key]}"))
        if told["data"]["class_path"]:
            words.append(shlex.quote(f"class_path={told['data']['class_path']}"))
        head = [*flag("base", told["base"]["id"]), *flag("data", data), "--method", self.method.name, *flag("out", out)]
        return " ".join([shlex.join(["hfdk", "train", *head]), *words])

    def write(self, path: Path) -> None:
        """As TOML; folders are written whole, so that the run can be resumed from anywhere on this machine."""
        told = self.sections()
        for section, keys in PATHS.items():
            for key in keys:
                value: Any = told[section].get(key)
                if is_path(value):
                    told[section][key] = str(at_home(value, where=f"{section}: {key}").resolve())
        config.write(path, told)


def is_path(value: str | None) -> bool:
    """Whether a setting names something that lies on this machine; an embedded base is a name, whatever else is called so.
    Raises ConfigError for the home folder of nobody."""
    return bool(value) and value not in BASES and at_home(str(value), where="recipe").exists()


def sections_of(told: Mapping[str, Any], where: object) -> dict[str, dict[str, Any]]:
    """A TOML file's tables. Raises ConfigError for a value that stands outside of any."""
    if loose := [key for key, value in told.items() if not isinstance(value, dict)]:
        fix = f"put it into its section, e.g. [base] id = ..., or use {', '.join([*SECTIONS, 'method'])} as section names"
        raise ConfigError(f"{loose[0]} stands outside of any section", where=where, fix=fix, case=1)
    return dict(told)


def merged(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sections laid over each other; the last one that says something about a key wins."""
    result: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            result.setdefault(section, {}).update(values)
    return result


def homes(name: str) -> dict[str, type]:
    """Section -> dataclass, in the order in which a bare key is looked for: `steps` and `seed` are those of the training."""
    return {"method": method(name), "training": TrainSettings, **SECTIONS}


def word_sections(words: list[str], told: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`key=value` words -> sections; which keys `method` has is decided by its name."""
    named = next((word.partition("=")[2] for word in words if word.startswith(("method=", "method.name="))), None)
    rest = [word for word in words if not word.startswith(("method=", "method.name="))]
    name = named or str(told.get("method", {}).get("name", "lora"))
    found = config.overrides(rest, homes(name))
    if named:
        found["method"]["name"] = named
    return found


def sorted_keywords(name: str, keywords: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Keywords of a trainer class -> sections; `gallery_steps` is `gallery.steps`. Raises ConfigError for one that no section knows."""
    sections = {section: {f.name for f in fields(kind)} for section, kind in homes(name).items() if section != "data"}
    result: dict[str, dict[str, Any]] = {"method": {"name": name}}
    for key, value in keywords.items():
        places = [(s, key) for s, keys in sections.items() if key in keys]
        places += [(s, rest) for s, keys in sections.items() if (rest := key.removeprefix(f"{s}_")) != key and rest in keys]
        if not places:
            raise ConfigError(
                f"there is no setting {key!r}; {nearest(key, set().union(*sections.values()))}", where="trainer", case=1
            )
        section, setting = places[0]
        result.setdefault(section, {})[setting] = value
    return result
