"""The safe push: one commit or none, private unless said otherwise, never twice, never over somebody else's work, read back.

Why not `upload_folder`: it publishes in several commits, repeats a commit whose answer was lost, and takes whatever lies about.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from ..errors import HubError
from .door import TRIES, TROUBLE, Door, Remote, files_at, is_passing, look, public_although_private
from .plan import Action, Plan, Stage, make_plan, stage_folder
from .preflight import check_names
from .secrets import machine_names

MARKER = "hfdk-push: "
"""Stands in the commit's description with a number of its own, so that a push whose answer was lost can be found again."""


class Pushed(str):
    """The address of the commit, which is also the result of the push."""

    oid: str
    """The commit; empty after a dry run on a repository that does not exist."""
    repo_id: str
    files: int
    """Files of the folder that are in the repository now."""
    bytes_sent: int
    """Bytes of the files added or changed; the storage may have needed fewer."""
    verified: bool
    """Every file was compared by its hash with what the Hub has at this commit."""
    changed: bool
    """False: the repository had everything already, and there is no new commit."""
    plan: Plan

    def __new__(
        cls, url: str, *, oid: str, repo_id: str, files: int, bytes_sent: int, verified: bool, changed: bool, plan: Plan
    ) -> "Pushed":
        self = super().__new__(cls, url)
        self.oid, self.repo_id, self.files, self.bytes_sent = oid, repo_id, files, bytes_sent
        self.verified, self.changed, self.plan = verified, changed, plan
        return self


@dataclass(frozen=True)
class Errand:
    """One push: what goes where, and in whose words it is announced."""

    door: Door
    repo_id: str
    repo_type: str
    stage: Stage
    delete: tuple[str, ...]
    message: str
    marker: str

    @property
    def again(self) -> str:
        return f"run again: hfdk publish RUN --repo {self.repo_id}"

    def url(self, oid: str) -> str:
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{self.door.api.endpoint}/{prefix}{self.repo_id}" + (f"/commit/{oid}" if oid else "")

    def failed(
        self, message: str, error: BaseException | None = None, *, fix: str | None = None, case: int | None = None
    ) -> HubError:
        said = f": {self.door.said(error)}" if error is not None else ""
        return HubError(f"{message}{said}", where=self.repo_id, fix=fix or self.again, case=case)

    def done(self, oid: str, plan: Plan, *, changed: bool, verified: bool = True) -> Pushed:
        return Pushed(
            self.url(oid),
            oid=oid,
            repo_id=self.repo_id,
            files=len(self.stage.staged),
            bytes_sent=plan.bytes_to_send if changed else 0,
            verified=verified,
            changed=changed,
            plan=plan,
        )


def push(
    door: Door,
    folder: Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool = True,
    message: str = "Upload with hf_diffusion_kit",
    dry_run: bool = False,
    delete: Iterable[str] = (),
    private_names: frozenset[str] | None = None,
    say: Callable[[str], None] = print,
) -> Pushed:
    """Publishes a folder as one commit and reads it back. Files of the repository that are not in the folder stay, unless
    they match a pattern of `delete`. `dry_run` shows the plan and changes nothing. `private` decides how a new repository
    is made, and refuses an existing public one. `private_names`: words that must appear in no file (default: this user's
    and this machine's names, the namespace of the repository apart). `say` is given the plan to show.
    Raises HubError in one line: what is refused or went wrong, and what to do; run again, it goes on where it stood."""
    check_names(repo_id, repo_type)
    names = private_names
    if names is None:
        names = machine_names() - {repo_id.split("/")[0]}
    stage = stage_folder(folder, private_names=names)
    errand = Errand(door, repo_id, repo_type, stage, tuple(delete), message, f"{MARKER}{uuid.uuid4()}")
    if stage.refused and not dry_run:
        raise refused(stage, repo_id)
    try:
        remote = look(door, repo_id, repo_type)
    except LocalTokenNotFoundError:
        raise errand.failed("there is no token to push with", fix="run `hf auth login`, or set HF_TOKEN", case=3) from None
    except TROUBLE as error:
        raise errand.failed("the repository could not be looked at, nothing was sent", error) from None
    plan = make_plan(stage, remote.files if remote else {}, delete=errand.delete)
    say(plan.table() if dry_run else f"{repo_id}: {plan.counts()}")
    if dry_run:
        return errand.done(remote.head if remote else "", plan, changed=False, verified=False)
    if remote and private and not remote.private:
        raise public_although_private(repo_id)
    if remote and not plan.changes:
        return errand.done(remote.head, plan, changed=False)
    remote = remote or create(errand, private=private)
    oid, plan, changed = commit(errand, remote)
    verify(errand, oid, plan)
    return errand.done(oid, plan, changed=changed)


def refused(stage: Stage, repo_id: str) -> HubError:
    shown = [f"{row.path}: {row.reason}" for row in stage.refused[:5]]
    more = f" … and {len(stage.refused) - 5} more" if len(stage.refused) > 5 else ""
    fix = "remove them or clean them (a token that was in a file should be replaced), then run again; --dry-run lists all"
    return HubError(
        f"{len(stage.refused)} files must not be published, nothing was sent: {' | '.join(shown)}{more}",
        where=repo_id,
        fix=fix,
        case=1,
    )


def create(errand: Errand, *, private: bool) -> Remote:
    """Makes the repository, right before the commit and only now; a failed push leaves at most an empty private one."""
    door = errand.door
    try:
        door.ask(lambda: door.api.create_repo(errand.repo_id, repo_type=errand.repo_type, private=private, exist_ok=True))
        remote = look(door, errand.repo_id, errand.repo_type)
    except TROUBLE as error:
        raise errand.failed("the repository could not be created, nothing was sent", error, case=3) from None
    if remote is None:
        raise errand.failed(
            "the repository was created but cannot be seen with this token", fix="use a token that may read it too", case=3
        )
    if private and not remote.private:  # older servers read another field and make it public
        raise public_although_private(errand.repo_id, created=True)
    return remote


def commit(errand: Errand, remote: Remote) -> tuple[str, Plan, bool]:
    """(commit, what it did, whether it is new). Knows after every trouble whether the commit is there before trying again."""
    for attempt in range(TRIES):
        plan = make_plan(errand.stage, remote.files, delete=errand.delete)
        if not plan.changes:
            return remote.head, plan, False
        if moved := errand.stage.changed_since():
            raise errand.failed(f"{moved[0]} changed while it was being published, nothing was sent")
        try:
            oid = send(errand, plan, remote.head)
            return oid, plan, oid != remote.head
        except TROUBLE as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if not is_passing(error) and status not in (409, 412):
                raise errand.failed("the Hub refused the push, nothing was published", error) from None
            if status not in (409, 412):
                errand.door.wait(attempt, error)
            if landed := find(errand, error):
                return landed, plan, True
            remote, last = look_again(errand, remote), error
    raise errand.failed(f"the push failed {TRIES} times, nothing was published", last)


def send(errand: Errand, plan: Plan, head: str) -> str:
    """One attempt. Operations are made anew each time, for huggingface_hub changes them."""
    adds = [CommitOperationAdd(row.path, errand.stage.staged[row.path].local) for row in plan.of(Action.ADD, Action.CHANGE)]
    deletes = [CommitOperationDelete(row.path, is_folder=False) for row in plan.of(Action.DELETE)]
    info = errand.door.api.create_commit(
        errand.repo_id,
        [*adds, *deletes],
        commit_message=errand.message,
        commit_description=errand.marker,
        repo_type=errand.repo_type,
        parent_commit=head,
    )
    return info.oid


def find(errand: Errand, trouble: BaseException) -> str | None:
    """The commit of this very push, if it is there although the answer said otherwise or never came."""
    door = errand.door
    try:
        commits = door.ask(lambda: door.api.list_repo_commits(errand.repo_id, repo_type=errand.repo_type))
    except TROUBLE:
        message = "whether the push arrived is not known, the Hub stopped answering; a second run sends nothing twice"
        raise errand.failed(message, trouble) from None
    return next((item.commit_id for item in commits[:50] if errand.marker in item.message), None)


def look_again(errand: Errand, before: Remote) -> Remote:
    """The repository now. Somebody else's change to a file of this push ends it; changes to other files are built upon."""
    try:
        now = look(errand.door, errand.repo_id, errand.repo_type)
    except TROUBLE as error:
        raise errand.failed("the push failed and the repository cannot be looked at, nothing was published", error) from None
    if now is None:
        raise errand.failed("the repository is gone, nothing was published", case=2)
    deleted = [row.path for row in make_plan(errand.stage, before.files, delete=errand.delete).of(Action.DELETE)]
    for path in [*errand.stage.staged, *deleted]:
        old, new, ours = before.files.get(path), now.files.get(path), errand.stage.staged.get(path)
        if (old and old.blob_id) != (new and new.blob_id) and not (new and ours and ours.is_at(new)):
            fix = f"look at {errand.url(now.head)}; to replace it, {errand.again}"
            raise errand.failed(f"somebody else changed {path} meanwhile, nothing was published", fix=fix, case=2)
    return now


def verify(errand: Errand, oid: str, plan: Plan) -> None:
    """Compares every file of the folder, by hash, with what the Hub has at the commit."""
    try:
        there = files_at(errand.door, errand.repo_id, errand.repo_type, oid)
    except TROUBLE as error:
        raise errand.failed(f"pushed as {oid}, but it could not be read back", error, case=4) from None
    wrong = [path for path, file in errand.stage.staged.items() if path not in there or not file.is_at(there[path])]
    wrong += [row.path for row in plan.of(Action.DELETE) if row.path in there]
    if wrong:
        raise errand.failed(
            f"pushed as {oid}, but the Hub does not have {wrong[0]} as it is here ({len(wrong)} files differ)", case=4
        )
