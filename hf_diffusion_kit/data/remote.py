"""Any captioned dataset of the Hub, by its id, at one commit: on disk, or as a stream of which only the chosen pictures are kept."""

import os
import re
from pathlib import Path
from typing import Any

import datasets

from ..errors import HubError, KitError, nearest
from ..hub.pin import license_in_cache
from ..records import Pinned
from .passing import TROUBLE, Rows, said
from .subset import flag
from .table import Table
from .where import expanded

PUBLIC = "https://huggingface.co"

LOGIN = "log in with `hf auth login`, ask for access on its page, or check the name"


def table_of_hub(
    name: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    **options: Any,
) -> Table:
    """A `Table` of the Hub's dataset `name`; `options` are its fields.

    `config`: where it has several. `split`: `train` unless said, or the only one; on disk also `train[:10%]`. `streaming`: nothing is
    stored but the chosen pictures; of Parquet, the captions alone are read for the choice. `revision`: branch, tag or commit; the
    table has the commit that was read, and its words ask for that. Raises HubError in one line.
    """
    address = f"hf://datasets/{name}"  # by its id alone `datasets` would take a folder of that name that lies here
    try:
        builder = datasets.load_dataset_builder(address, config, revision=revision)
        commit, notes = _commit(builder, revision, name)
        chosen, note = _split(builder, split, name)
        data = _rows(builder, chosen, streaming)
        told = {"config": config, "split": split, "revision": commit or revision}
        words = [word for flag_name, value in told.items() if value is not None for word in flag(flag_name, value)]
        license_id = license_in_cache(name, commit) if commit else None
        hub = Pinned(name, commit, license_id, on_hub=datasets.config.HF_ENDPOINT == PUBLIC)
        asked = (*words, *(["--streaming"] if streaming else []))
        table = Table(data, name, asked=asked, within=_caches(), hub=hub, **options)
        if streaming and builder.name == "parquet" and table.text_columns:
            texts = datasets.load_dataset_builder(address, config, revision=commit or revision, columns=table.text_columns)
            table.texts = _rows(texts, chosen, streaming)
    except KitError:
        raise
    except TROUBLE as error:
        raise _refusal(name, error) from error
    table.findings.notes.extend([*notes, *note])
    return table


def _commit(builder: datasets.DatasetBuilder, revision: str | None, name: str) -> tuple[str | None, list[str]]:
    """The commit that is read, and what is to be said of it. Without the Hub `datasets` takes what its cache has, whatever was
    asked for: raises HubError where that is another commit than the one that was named."""
    if found := re.search(r"@([0-9a-f]{40})(?:/|$)", builder.base_path or ""):
        return found[1], [f"{name}: {revision!r} is the commit {found[1]}"] if revision not in (None, found[1]) else []
    cached = builder.hash if re.fullmatch("[0-9a-f]{40}", builder.hash or "") else None
    if revision and re.fullmatch("[0-9a-f]{7,40}", revision) and not (cached or "").startswith(revision):
        what = (
            f"the Hub cannot be reached, and the cache has not the commit {revision[:12]} but {cached or 'one of unknown name'}"
        )
        raise HubError(what, where=name, fix="see that you are online", case=5)
    of = f"commit {cached}" if cached else "a commit of unknown name, so it is not pinned"
    return cached, [f"{name}: the Hub could not be reached; the rows are those in the cache, {of}"]


def _rows(builder: datasets.DatasetBuilder, split: str, streaming: bool) -> Rows:
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _split(builder: datasets.DatasetBuilder, split: str | None, name: str) -> tuple[str, list[str]]:
    """Known before anything is fetched."""
    known = [str(entry) for entry in builder.config.data_files or builder.info.splits or ()]
    if split is None and "train" not in known and len(known) == 1:
        return known[0], [f"the split is {known[0]}, the only one"]
    wanted = split or "train"
    base = re.match(r"[\w.-]*", wanted)
    if known and base and base[0] not in known:
        raise HubError(f"has no split {wanted!r}; {nearest(wanted, known)}", where=name, fix="name one: split=...", case=5)
    others = ", ".join(entry for entry in known if entry != "train")
    return wanted, [f"the split is train; not read: {others}"] if split is None and others else []


def _caches() -> tuple[Path, ...]:
    """Where `datasets` and `huggingface_hub` put what they fetch: a table of somebody else's names no other file of this machine."""
    told = [os.environ.get("HF_HUB_CACHE"), datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE]
    return tuple(expanded(folder) for folder in told if folder)


def _refusal(name: str, error: BaseException) -> HubError:
    text = said(error)
    if "gated" in text:
        return HubError("is gated: its owners decide who may read it", where=name, fix=LOGIN, case=5)
    if "doesn't exist on the Hub or cannot be accessed" in text:
        return HubError("is not on the Hub, or is private", where=name, fix=LOGIN, case=5)
    if found := re.search(r"(?:available configs|Available): (\[.*?\])", text):
        return HubError(f"has the configurations {found[1]}", where=name, fix="name one: config=...", case=5)
    if "scripts are no longer supported" in text:
        fix = "look for a copy of it in Parquet, often on its branch refs/convert/parquet (revision=...)"
        return HubError("is a loading script, which `datasets` runs no longer", where=name, fix=fix, case=5)
    if any(sign in text for sign in ("ConnectionError", "Offline", "Couldn't reach", "ConnectError")):
        what = f"is neither a folder here nor a dataset that the Hub gives: the Hub cannot be reached ({text})"
        return HubError(what, where=name, fix="check the name; see that you are online", case=5)
    return HubError(
        f"is neither a folder here nor a dataset that the Hub gives: {text}", where=name, fix="check the name", case=5
    )
