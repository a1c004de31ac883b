"""A captioned subset to the Hub: shards, card, facts, attribution and contact sheet as one commit, read back afterwards.

One commit is also the limit: the Hub advises at most a hundred files in it (40 GB here, in shards of 400 MB) and takes 25,000. A push
that breaks off has published nothing, and is sent again from its beginning, but for the contents that the Hub's storage has by then.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..cards import front_matter, merge_card
from ..cards.dataset_card import EACH_ITS_OWN
from ..cards.merge import parts
from ..errors import ConfigError, HubError, SourceError, nearest
from ..hub.choice import open_door, remote_card
from ..hub.door import TROUBLE, Door, look
from ..hub.plan import put
from ..hub.preflight import preflight
from ..hub.publish import Pushed, push
from ..hub.rules import LICENSES
from . import saved
from .beside import README, SHEET, texts
from .captioned import Captioned

SHARDS = "data/train-?????-of-?????.parquet"
"""Shards of an earlier push that are not among the new ones go, for they would be read as rows."""
FEW_FILES = 100
"""Files of one commit that the Hub advises."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What is to be pushed where, as it was asked for."""

    repo_id: str
    private: bool
    message: str | None
    license: str | None
    dry_run: bool
    say: Say


def push_to_hub(
    data: Captioned,
    repo_id: str,
    *,
    private: bool = True,
    hub: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    dry_run: bool = False,
    say: Say = print,
) -> Pushed:
    """Publishes a subset as the dataset `repo_id`, which stock `load_dataset(repo_id)` opens as split `train`.

    `private`: a new repository is private unless this is False. `hub`: None the real Hub, `local` the embedded one, else an address.
    `license`: an id of the Hub, of pictures that name none. `dry_run` shows the plan and changes nothing. It needs room on disk for
    a copy. The result is the commit's address, with facts on it. Raises HubError in one line; nothing is published then.
    """
    check_license(license, data)
    order = Order(repo_id, private, commit_message, license, dry_run, say)
    with open_door(hub, token=token) as door, tempfile.TemporaryDirectory(prefix="hfdk-subset-") as above:
        if not dry_run:  # before the pictures are written, for that can take long
            preflight(door, repo_id, repo_type="dataset", private=private)
        folder = data.save(Path(above) / "subset")
        return send(door, folder, data, order)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    hub: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    dry_run: bool = False,
    say: Say = print,
) -> Pushed:
    """The same for a folder that `save` or `hfdk subset` wrote; every picture and caption is compared with what was saved. Raises
    SourceError when one has been changed."""
    data = Captioned.open(folder)
    check_license(license, data)
    order = Order(repo_id, private, commit_message, license, dry_run, say)
    with open_door(hub, token=token) as door:
        return send(door, folder, data, order)


def check_license(license: str | None, data: Captioned) -> None:
    if license is None:
        return
    if license not in LICENSES:
        near = nearest(license, LICENSES) if len(license) < 40 else ""
        hint = near if near.startswith("did") else "see https://huggingface.co/docs/hub/repositories-licenses"
        raise ConfigError(f"{license!r} is not a licence id of the Hub; {hint}", where="license", case=1)
    if "not stated" not in data.licenses:
        what = f"every picture names its own licence ({', '.join(list(data.licenses)[:3])})"
        raise ConfigError(what, where="license", fix="leave it out; the card tells them", case=1)


def send(door: Door, folder: Path, data: Captioned, order: Order) -> Pushed:
    not_another(door, order.repo_id)
    beside = files_beside(door, folder, data, order)
    with tempfile.TemporaryDirectory(prefix=".hfdk-stage-", dir=room_beside(folder)) as above:
        stage = Path(above)
        for name, content in beside.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(content)
        shards = [shard.file for shard in saved.manifest(folder)]
        for name in [*shards, saved.MANIFEST]:
            put(folder / name, stage / name)
        if len(shards) > FEW_FILES:
            order.say(f"{order.repo_id}: {len(shards)} shards go in one commit; the Hub advises at most {FEW_FILES} files")
        return push(
            door,
            stage,
            order.repo_id,
            repo_type="dataset",
            private=order.private,
            message=order.message or f"Add {len(data)} captioned pictures",
            dry_run=order.dry_run,
            delete=(SHARDS, SHEET),
            say=order.say,
        )


def files_beside(door: Door, folder: Path, data: Captioned, order: Order) -> dict[str, bytes]:
    """Names -> contents of all but the shards. The card keeps what its owner wrote: in the repository, or else in the folder."""
    before = remote_card(door, order.repo_id, repo_type="dataset")
    local = own_card(folder / README)
    license = order.license
    if license is None and "not stated" in data.licenses:
        license = next((told for card in (before, local) if card and (told := license_in(card, data.fingerprint))), None)
    beside = texts(data.record, data.dataset.data.table, repo_id=order.repo_id, license=license)
    if before is not None and local and (own := own_text(local)) and own not in before:
        order.say(f"{order.repo_id}: the repository has a card of its own, so your text in {folder.name}/{README} was not used")
    if old := before or local:
        beside[README] = merge_card(old, beside[README].decode()).encode()
    if SHEET in beside and (folder / SHEET).is_file():  # drawn with another machine's letters it would be another file
        beside[SHEET] = (folder / SHEET).read_bytes()
    return beside


def own_card(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise SourceError("is not UTF-8", where=path, fix="save the file as UTF-8", case=11) from error


def not_another(door: Door, repo_id: str) -> None:
    """Refuses a repository that holds rows which are not ours: ours would be read together with them, or replace them."""
    try:
        there = look(door, repo_id, "dataset")
    except TROUBLE as error:
        what = f"the repository could not be looked at, nothing was sent: {door.said(error)}"
        raise HubError(what, where=repo_id, fix="check the network and the token, then run again", case=3) from None
    rows = [path for path in there.files if path.startswith("data/") and path.endswith(".parquet")] if there else []
    if there and rows and saved.FACTS not in there.files:
        what = f"holds another dataset ({rows[0]}), which this package did not make; nothing was sent"
        raise HubError(what, where=repo_id, fix="name another repository", case=2)


def license_in(card: str, fingerprint: str) -> str | None:
    """What the owner states in a card of the very same rows; of others it would be said of pictures that nobody meant."""
    try:
        told = front_matter.read(card)
    except ValueError:
        return None
    license = told.get("license")
    if fingerprint not in card or license == "unknown" or (license == "other" and told.get("license_name") == EACH_ITS_OWN):
        return None
    return license if isinstance(license, str) and license in LICENSES else None


def own_text(card: str) -> str:
    """What the owner of a folder wrote above or below ours."""
    above, marked, below = parts(front_matter.split(card)[1])
    return f"{above}\n{below}".strip() if marked else below.strip()


def room_beside(folder: Path) -> Path | None:
    """Where files of the folder can be linked rather than copied; None for the usual place where that may not be written."""
    try:
        with tempfile.TemporaryFile(dir=folder.resolve().parent):
            return folder.resolve().parent
    except OSError:
        return None
