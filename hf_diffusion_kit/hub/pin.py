"""One look at a base on the Hub: which commit it is at, what it may be used for, what its weights hash to."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from ..cards import front_matter
from ..cards.usual_bases import TERMS
from ..errors import HubError, ModelError
from ..records import Pinned
from .door import TROUBLE


def pin(repo_id: str, *, revision: str | None = None) -> Pinned:
    """Hub id (and branch, tag or commit) -> its commit. Without the Hub: the commit that lies in the local cache.

    Raises ModelError when there is no such model or it is closed to this token, HubError when neither Hub nor cache has it.
    """
    try:
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        if info.gated:  # what it says of itself anybody may read, but not its files
            HfApi().auth_check(repo_id)
    except GatedRepoError:
        what = "is gated: its owners give the files to nobody who has not accepted their terms, or not to this token"
        fix = f"accept the terms at https://huggingface.co/{repo_id}, then hf auth login"
        raise ModelError(what, where=repo_id, fix=fix, case=5) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise ModelError(
            "there is no such model or revision, or this token may not see it", where=repo_id, fix="check the id", case=5
        ) from None
    except (HfHubHTTPError, *TROUBLE) as error:
        cached = from_cache(repo_id, revision)
        if cached is None:
            fix = f"check the network; to have it at hand offline: hf download {repo_id}"
            raise HubError(
                f"cannot be reached and is not in the cache: {type(error).__name__}", where=repo_id, fix=fix, case=5
            ) from error
        return cached
    card = info.card_data.to_dict() if info.card_data else {}
    weights = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs and s.rfilename.endswith(".safetensors")}
    return Pinned(repo_id, info.sha, sha256=weights, on_hub=True, gated=bool(info.gated), **terms_of(repo_id, card))


def from_cache(repo_id: str, revision: str | None) -> Pinned | None:
    """The snapshot that an earlier download left; its weights are named by the commit and not hashed again."""
    index = try_to_load_from_cache(repo_id, "model_index.json", revision=revision)
    if not isinstance(index, str):
        return None
    snapshot = Path(index).parent
    card = snapshot / "README.md"
    told = front_matter.read(card.read_text(encoding="utf-8")) if card.is_file() else {}
    gated = repo_id in TERMS and TERMS[repo_id].gated
    return Pinned(repo_id, snapshot.name, on_hub=True, gated=gated, **terms_of(repo_id, told))


def license_in_cache(dataset: str, commit: str) -> str | None:
    """The licence that the card of a dataset states at this commit, from the cache of what was asked for before; None where there is
    no card, or none that can be read."""
    card = try_to_load_from_cache(dataset, "README.md", revision=commit, repo_type="dataset")
    try:
        return license_of(front_matter.read(Path(card).read_text(encoding="utf-8"))) if isinstance(card, str) else None
    except (OSError, ValueError):
        return None


def terms_of(repo_id: str, card: dict[str, object]) -> dict[str, Any]:
    """Licence, its name and its link as the base's own card states them; where it states none, as is known of the usual bases."""
    known = TERMS.get(repo_id)
    if not (stated := license_of(card)):
        return {"license": known.license, "license_name": known.name, "license_link": known.link} if known else {"license": None}
    name, link = (str(card[key]) if card.get(key) else None for key in ("license_name", "license_link"))
    if known and known.license == stated:
        name, link = name or known.name, link or known.link
    if link and "://" not in link:  # a file beside the card
        link = f"https://huggingface.co/{repo_id}/blob/main/{link.removeprefix('./')}"
    return {"license": stated, "license_name": name, "license_link": link}


def license_of(card: dict[str, object]) -> str | None:
    value = card.get("license")
    return str(value[0] if isinstance(value, list) else value) if value else None
