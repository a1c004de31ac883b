"""Before hours of training: would the push at the end be let in?"""

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..errors import HubError
from .door import TROUBLE, Door, look, public_although_private
from .rules import card_faults


@dataclass(frozen=True)
class Preflight:
    """What was found; that it exists means that nothing speaks against the push."""

    repo_id: str
    repo_type: str
    user: str
    exists: bool
    private: bool
    """As the repository is, or as it will be created."""
    head: str | None
    """Its commit now; None when it does not exist yet."""


def preflight(
    door: Door, repo_id: str, *, repo_type: str = "model", private: bool = True, card_metadata: dict[str, Any] | None = None
) -> Preflight:
    """Asks the Hub who we are and what is there; changes nothing. Raises HubError (case 3) with what to do."""
    check_names(repo_id, repo_type)
    if card_metadata is not None:
        check_card(repo_id, card_metadata)
    try:
        who = door.ask(door.api.whoami)
        check_rights(who, repo_id)
        remote = look(door, repo_id, repo_type)
    except LocalTokenNotFoundError as error:
        raise HubError(
            "there is no token to push with", where=repo_id, fix="run `hf auth login`, or set HF_TOKEN", case=3
        ) from error
    except HubError:
        raise
    except TROUBLE as error:
        fix = "check the token and the network, then run again; nothing was begun"
        raise HubError(f"the push at the end could not be checked: {door.said(error)}", where=repo_id, fix=fix, case=3) from None
    if remote and private and not remote.private:
        raise public_although_private(repo_id)
    return Preflight(
        repo_id,
        repo_type,
        who["name"],
        remote is not None,
        remote.private if remote else private,
        remote.head if remote else None,
    )


def check_names(repo_id: str, repo_type: str) -> None:
    if repo_type not in ("model", "dataset"):
        raise HubError(f"a {repo_type!r} cannot be pushed", where=repo_id, fix="use repo_type model or dataset", case=3)
    try:
        validate_repo_id(repo_id)
        good = "/" in repo_id
    except HFValidationError:
        good = False
    if not good:
        raise HubError(
            "this is not the name of a repository",
            where=repo_id,
            fix="write user/name, letters, digits, `-`, `_` and `.`",
            case=3,
        )


def check_card(repo_id: str, metadata: dict[str, Any]) -> None:
    faults = card_faults(metadata)
    if not metadata.get("license"):
        faults.append("license: there is none; the licence of the base model must be named")
    if faults:
        raise HubError(
            f"the Hub would refuse the card: {'; '.join(faults)}",
            where=f"{repo_id} README.md",
            fix="correct the metadata",
            case=3,
        )


def check_rights(who: dict[str, Any], repo_id: str) -> None:
    """Whether this token may write there, as far as whoami tells (`anyName`: under every name; the embedded Hub says so)."""
    namespace = repo_id.split("/")[0]
    orgs = {org.get("name"): org.get("roleInOrg", "write") for org in who.get("orgs", [])}
    if not who.get("anyName") and namespace != who["name"] and orgs.get(namespace) not in ("write", "admin", "contributor"):
        known = ", ".join([who["name"], *(name for name, role in orgs.items() if role != "read")])
        raise HubError(f"{who['name']} may not write under {namespace!r}", where=repo_id, fix=f"use one of: {known}", case=3)
    token = (who.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    if role == "fineGrained":
        scopes = (token.get("fineGrained") or {}).get("scoped") or []
        named = [s for s in scopes if (s.get("entity") or {}).get("name") in (namespace, repo_id)]
        may_write = any("repo.write" in (scope.get("permissions") or []) for scope in named)
    else:
        may_write = role != "read"
    if not may_write:
        raise HubError(
            "this token may only read",
            where=repo_id,
            fix="make a token with the write role: https://huggingface.co/settings/tokens",
            case=3,
        )
