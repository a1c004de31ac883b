"""From a finished run to a repository: stage what may go, make the card, check that the weights are the verified ones, push once."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .cards import merge_card, model_card
from .cards.model_card import LOSS, PROGRESS
from .errors import HubError, ModelError
from .hub.choice import open_door, remote_card
from .hub.plan import put
from .hub.publish import Pushed, push
from .records import RunRecord, file_sha256

BEFORE_AFTER, SAMPLES = "images/before_after.png", "images/samples"
"""Within the run's folder, as LOSS and PROGRESS are."""


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
    # In the run's own folder files are linked; elsewhere, perhaps on another disk, gigabytes would be copied.
    place = folder if os.access(folder, os.W_OK) else None
    with open_door(hub, token=token) as door, tempfile.TemporaryDirectory(prefix=".stage-", dir=place) as temporary:
        stage = Path(temporary) / "stage"
        card = model_card(record, repo_id, stage_run(record, folder, stage))
        before = remote_card(door, repo_id)
        (stage / "README.md").write_text(merge_card(before, card) if before else card, encoding="utf-8")
        message = commit_message or f"Add {record.method} {record.name}"
        return push(door, stage, repo_id, private=private, message=message, dry_run=dry_run, say=say)


def check(record: RunRecord, folder: Path) -> None:
    """Refuses what was not loaded back, or is no longer what was. Raises ModelError, HubError."""
    if not record.base_model.license:
        raise HubError(
            f"the licence of the base {record.base_model.id} is not known, and what was made of it inherits it",
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


def stage_run(record: RunRecord, folder: Path, stage: Path) -> list[str]:
    """Links what may go into a new folder, never the run's own folder: its checkpoints and paths stay here. Returns the staged
    pages of pictures."""
    pages = [page for page in (BEFORE_AFTER, LOSS, PROGRESS) if (folder / page).is_file()]
    if PROGRESS in pages and looks(folder) < 2:
        pages.remove(PROGRESS)  # the base alone is no progress
    pictures = {name for shown in record.gallery for name in (shown.file, shown.before) if name}
    for name in [*(weights.file for weights in record.weights), *sorted(pictures), *pages]:
        put(folder / name, stage / name)
    record.save(stage / "run.json")
    return pages


def looks(folder: Path) -> int:
    """How often a run was looked at: the rows of its images/progress.png."""
    return len({path.name.rsplit("-", 1)[0] for path in (folder / SAMPLES).glob("step-*.png")})
