"""The facts of one run, as they are written to run.json. Everything that is published is made from these alone.

Stdlib only: a card, a gallery or a reproduction needs no torch to read what happened.
"""

import hashlib
import json
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Raised when a field changes its meaning; a reader refuses what is newer than itself."""


@dataclass(frozen=True)
class Pinned:
    """A model or dataset repository at one commit, or a local folder by its content."""

    id: str
    """Hub id (`user/name`), or the plain name of something that lives on this machine only; never a path."""
    revision: str | None = None
    """Commit sha on the Hub; None for something local."""
    license: str | None = None
    """Licence id as its own card states it; None when it states none."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Weight files (path inside the repository -> sha256), so that a copy elsewhere can be told to be the same."""
    on_hub: bool = False
    """Whether `id` can be opened from the Hub by somebody else."""
    license_name: str | None = None
    """What a licence is called that the Hub has no id for (`other`)."""
    license_link: str | None = None
    """Where its text stands."""
    gated: bool = False
    """Whether its owners ask for consent before anybody gets the files."""


@dataclass(frozen=True)
class DataRecord:
    """What the run was trained on."""

    source: str
    """Which source gave the rows: `coco`, `folder`, `dataset`."""
    rows: int
    fingerprint: str
    """sha256 over (picture sha256, captions) of every row, in order."""
    recipe: str | None = None
    """The command that rebuilds the same subset, without paths of one machine."""
    licenses: dict[str, int] = field(default_factory=dict)
    """Pictures by licence name."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> number of pictures (or captions) that were not taken. Nothing is dropped without a line here."""
    hub: Pinned | None = None
    captions: int | None = None
    """Captions that the rows have, no text of a picture counted twice; those missing from the ledger were not used."""
    buckets: list[dict[str, Any]] = field(default_factory=list)
    """Where pictures kept their aspect ratios: a row a bucket, as `Buckets.report` tells it."""
    held_out: int = 0
    """Pictures among the rows that were never trained on; their loss was measured."""


@dataclass(frozen=True)
class SubsetRecord:
    """What is known of a captioned subset beside its rows: facts.json, from which its card is made. No path of any machine."""

    source: str
    """Which source gave the rows: `coco`, `folder`, `dataset`."""
    rows: int
    captions: int
    fingerprint: str
    """sha256 over (picture sha256, or address where there are no pixels, and captions) of every row, in order."""
    recipe: str | None = None
    """The command that makes the same again; None for a table made in memory."""
    choice: dict[str, Any] = field(default_factory=dict)
    """Settings of the `Subset` that are not as by default."""
    files: dict[str, str] = field(default_factory=dict)
    """Names of the files of annotations or captions that were read -> sha256; a dataset of the Hub as `user/name@commit` -> that
    commit, which is a digest of all its files."""
    splits: list[str] = field(default_factory=list)
    """Splits of the source that the rows came from, by its own names: `val2014`."""
    pixels: str = "embedded"
    """`embedded`: the pictures are in the rows; `none`: only their addresses."""
    bytes: int = 0
    """Of all pictures."""
    categories: dict[str, int] = field(default_factory=dict)
    """Category -> pictures it is in, the most frequent first."""
    licenses: dict[str, int] = field(default_factory=dict)
    """Pictures by licence name."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> number of pictures or captions that were not taken."""
    notes: tuple[str, ...] = ()
    """What was found, changed or decided on the way, one sentence each."""
    versions: dict[str, str] = field(default_factory=dict)
    hub: Pinned | None = None
    """The dataset of the Hub that was read, at its commit; None for any other source."""
    before: "SubsetRecord | None" = None
    """All that is known of the saved subset that these rows were chosen from, and so of what that one was chosen from."""
    schema: int = SCHEMA

    @property
    def chain(self) -> "tuple[SubsetRecord, ...]":
        """The saved subsets that these rows came through, the first one first, and this record."""
        return (*(self.before.chain if self.before else ()), self)


@dataclass(frozen=True)
class CaptionUse:
    """One line of the caption ledger: a text that the model was really given."""

    image_id: str
    file_name: str
    text: str
    """The exact text handed to the tokenizer."""
    times: int
    """How many samples of the run used it."""
    tokens: int
    """Tokens that the model saw, start and end marks included."""
    tokens_cut: int
    """Tokens beyond the model's length; the model never saw them."""
    role: str = "instance"
    """`instance`, or `class` for prior preservation's pictures."""


@dataclass(frozen=True)
class Shown:
    """One picture of the gallery, and what made it."""

    file: str
    caption: str
    seed: int
    steps: int
    guidance: float
    before: str | None = None
    """The base's own picture for the same caption and seed."""


@dataclass(frozen=True)
class Weights:
    """One written file of weights."""

    file: str
    format: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Verified:
    """A written format, reopened in a stock pipeline and compared with the trained one in memory."""

    format: str
    reader: str
    """The stock calls that opened it."""
    caption: str
    seed: int
    max_difference: float
    """Largest difference of any pixel, pictures in [0, 1]."""
    quantize: str = "no"
    """In how few bits both had the base's denoiser, as in training."""


@dataclass(frozen=True)
class RunRecord:
    name: str
    family: str
    method: str
    base_model: Pinned
    data: DataRecord
    settings: dict[str, Any]
    """The resolved settings, section by section, exactly as in run.toml."""
    steps: int
    """Optimizer steps taken."""
    samples: int
    """Pictures shown to the model, repeats counted."""
    losses: list[float]
    """Mean loss over each of at most 200 equal stretches of the run; `losses[-1]` is the last stretch."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    seconds: float
    """Wall time of training: encoding, steps and checkpoints, over all sessions of the run."""
    captions: list[CaptionUse] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    """Trained parameters by part: `unet`, `text_encoder`."""
    gallery: list[Shown] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    verified: list[Verified] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss of the pictures that were held out) of each measurement with a finite loss."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """What a reader has to set at the pipeline's scheduler, where training changed the noise schedule."""
    guidance_argument: str = "guidance_scale"
    """What this pipeline's call names classifier-free guidance."""
    call_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the pipeline's call, beside the usual ones, with which the gallery was drawn."""
    notes: list[str] = field(default_factory=list)
    """What was skipped, cropped, cut or defaulted, one sentence each."""
    started: str = ""
    """UTC, ISO 8601, to the second."""
    commit: str | None = None
    """The kit's own git commit when it runs from a checkout."""
    command: str | None = None
    """What to type to have the same run again, without paths of one machine."""
    schema: int = SCHEMA

    def save(self, path: Path) -> None:
        half = path.with_name(path.name + ".part")
        half.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        half.replace(path)

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Raises ValueError when the file is newer than this code, has unknown fields, or is no record."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("schema", 0) > SCHEMA:
            raise ValueError(f"{path.name} is not a run record that this version (schema {SCHEMA}) can read")
        return build(cls, raw)


def file_sha256(path: Path) -> str:
    """How records, checkpoints and pushes know a file again; read in pieces, for weights are large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(kind: Any, raw: Any) -> Any:
    """JSON values -> the dataclass `kind`, nested dataclasses and lists of them included."""
    if isinstance(kind, types.UnionType):
        return None if raw is None else build(next(a for a in typing.get_args(kind) if a is not type(None)), raw)
    if (many := typing.get_origin(kind)) in (list, tuple):
        return many(build(typing.get_args(kind)[0], item) for item in raw)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return raw
    if not isinstance(raw, dict):
        raise ValueError(f"{kind.__name__} is {type(raw).__name__}, not an object")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    if extra := raw.keys() - known:
        raise ValueError(f"{kind.__name__} has no field {sorted(extra)[0]!r}")
    return kind(**{name: build(hints[name], value) for name, value in raw.items()})
