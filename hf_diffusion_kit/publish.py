"""From a finished run to a repository: stage what may go, make the card, check that the weights are the verified ones, push once."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .cards import merge_card, model_card
from .errors import HubError, ModelError
from .hub.choice import open_door, remote_card
from .hub.plan import put
from .hub.publish import Pushed, push
from .records import RunRecord, file_sha256

SHEETS = ("before_after.png", "loss.png", "progress.png")
"""Pages of images/ that go along with the gallery."""


def publish(
    folder: Path,
    repo_id: str,
    *,
    hub: str | None = None,
    token: str | None = None,
    private: bool = True,
    commit_message: str | None = None,
    dry_run: bool = False,
    license: str | None = None,
    say: Callable[[str], None] = print,
) -> Pushed:
    """Weights, run.json, gallery and card of a finished run as one commit, read back afterwards.

    `hub`: None the real Hub, `local` the embedded one, else an address. `private`: a new repository is private unless this is
    False. `license` states the licence where the base's card names none. The result is the commit's address, with facts on it.
    Raises HubError or ModelError in one line; nothing is published then.
    """
    record = RunRecord.load(folder / "run.json")
    if license and not record.base_model.license:
        record = replace(record, base_model=replace(record.base_model, license=license))
    check(record, folder)
    with open_door(hub, token=token) as door, tempfile.TemporaryDirectory(prefix="hfdk-stage-") as temporary:
        stage = Path(temporary) / "stage"
        stage_run(record, folder, stage)
        card = model_card(record, repo_id)
        before = remote_card(door, repo_id)
        (stage / "README.md").write_text(merge_card(before, card) if before else card, encoding="utf-8")
        message = commit_message or f"Add {record.method} {record.name}"
        return push(door, stage, repo_id, private=private, message=message, dry_run=dry_run, say=say)


def check(record: RunRecord, folder: Path) -> None:
    """Refuses what was not loaded back, or is no longer what was. Raises ModelError, HubError."""
    if not record.base_model.license:
        raise HubError(
            f"the licence of the base {record.base_model.id} is not known, and the adapter inherits it",
            where=folder / "run.json",
            fix="state it: --license, e.g. --license creativeml-openrail-m",
            case=3,
        )
    verified = {line.format for line in record.verified}
    for weights in record.weights:
        path = folder / weights.file
        if weights.format not in verified:
            raise ModelError(
                f"{weights.file} was never loaded back into a stock pipeline",
                where=folder,
                fix="hfdk resume writes it anew",
                case=2,
            )
        if not path.is_file() or file_sha256(path) != weights.sha256:
            raise ModelError("is not the file that was verified", where=path, fix="hfdk resume writes it anew", case=2)
    if not record.weights:
        raise ModelError("holds no weights to publish", where=folder, case=2)


def stage_run(record: RunRecord, folder: Path, stage: Path) -> None:
    """Links what may go into a new folder, never the run's own folder: its checkpoints and paths stay here."""
    pictures = {name for shown in record.gallery for name in (shown.file, shown.before) if name}
    pictures |= {path.relative_to(folder).as_posix() for path in (folder / "images").iterdir() if path.name in SHEETS}
    for name in [*(weights.file for weights in record.weights), *sorted(pictures)]:
        put(folder / name, stage / name)
    record.save(stage / "run.json")
