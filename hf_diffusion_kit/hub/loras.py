"""A LoRA's files from the Hub, at one commit: its own and nothing else of the repository."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import HubError, KitError, ModelError
from .door import TROUBLE

DEFAULT, PEFT = "pytorch_lora_weights.safetensors", ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Fetched:
    place: Path
    """The file, or the folder that holds it."""
    id: str
    """`user/name@commit`, or `user/name/file.safetensors@commit`: what fetches the very same again."""


def fetch(told: str) -> Fetched:
    """`user/name`, perhaps with `/file.safetensors` and `@revision` behind -> its files in the Hub's own cache.

    Raises ModelError where there is none, HubError where neither Hub nor cache has it.
    """
    address, _, revision = told.partition("@")
    user, name, *rest = address.split("/")
    repo, file = f"{user}/{name}", "/".join(rest)
    try:
        info = HfApi().model_info(repo, revision=revision or None)
        files = [one.rfilename for one in info.siblings or []]
        folder = downloaded(repo, revision, [file] if file else files)
    except GatedRepoError:
        fix = f"accept the terms at https://huggingface.co/{repo}, then hf auth login"
        raise ModelError("is gated: its owners ask who has it first", where=repo, fix=fix, case=5) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        what = "there is no such file, model or revision, or this token may not see it"
        raise ModelError(what, where=told, fix="check the path, or the id", case=5) from None
    except KitError:
        raise
    except (HfHubHTTPError, *TROUBLE) as error:
        folder = cached(repo, revision, file, error)
    if file and not (folder / file).is_file():
        raise ModelError(f"holds no {file}", where=repo, case=4)
    return Fetched(folder / file if file else folder, f"{address}@{folder.name}")


def downloaded(repo: str, revision: str, files: Sequence[str]) -> Path:
    """The commit's folder in the Hub's own cache, with the LoRA's files in it; asked for by the revision's name, so that the cache knows it
    by that name too."""
    wanted = list(files) if len(files) == 1 else chosen(repo, files)
    return Path(snapshot_download(repo, revision=revision or None, allow_patterns=wanted))


def cached(repo: str, revision: str, file: str, error: BaseException) -> Path:
    """What an earlier download left. Raises HubError."""
    for name in (
        [file] if file else [DEFAULT, PEFT[0], *(f"{part}/{PEFT[0]}" for part in ("unet", "transformer", "text_encoder"))]
    ):
        if isinstance(found := try_to_load_from_cache(repo, name, revision=revision or None), str):
            return Path(found).parents[name.count("/")]
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=["*.safetensors"], local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        fix = f"check the network; to have it at hand offline: hf download {repo}"
        what = f"cannot be reached and is not in the cache: {type(error).__name__}"
        raise HubError(what, where=repo, fix=fix, case=5) from error


def chosen(repo: str, files: Sequence[str]) -> list[str]:
    """Which files of a repository are the LoRA. Raises ModelError where there is none, or one cannot tell."""
    if DEFAULT in files:
        return [DEFAULT]
    if peft := [name for name in files if name.rpartition("/")[2] in PEFT and name.count("/") < 2]:
        return peft
    found = [name for name in files if name.endswith(".safetensors") and "/" not in name]
    if len(found) != 1:
        what = f"holds {len(found)} files of weights: {', '.join(found[:4])}" if found else "holds no LoRA"
        raise ModelError(what, where=repo, fix=f"name the file: {repo}/NAME.safetensors", case=4)
    return found
