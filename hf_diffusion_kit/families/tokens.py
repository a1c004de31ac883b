"""How many tokens a caption has, by a base's tokenizers alone: no weights are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..errors import FamilyError, ModelError
from . import Family, detect
from .opening import config_of, opening_failed

Counter = Callable[[str], int]


def token_counter(base: str | Path, *, revision: str | None = None) -> tuple[Counter, int]:
    """(tokens of a caption, with those that begin and end it; how many the model reads): of several tokenizers the longest, of equally
    long ones the one that makes most of a caption.

    Raises ModelError.
    """
    try:
        kind: type[Any] = detect(base, revision=revision)
    except FamilyError:  # captions can be counted for a base that nothing here trains
        kind = Family
    told = config_of(base, revision=revision)
    names = [name for name, kind in told.items() if name.startswith("tokenizer") and isinstance(kind, list) and kind[0]]
    if not names:
        raise ModelError("names no tokenizer", where=f"{base}: model_index.json", case=2)
    try:
        tokenizers = {name: AutoTokenizer.from_pretrained(base, subfolder=name, revision=revision) for name in names}
    except (OSError, ValueError) as error:
        raise opening_failed(base, error) from error
    limits = {name: kind.most_tokens.get(name, int(tokenizer.model_max_length)) for name, tokenizer in tokenizers.items()}
    most = max(limits.values())
    longest = [tokenizers[name] for name, limit in limits.items() if limit == most]
    return lambda text: max(kind.tokenized(tokenizer, text) for tokenizer in longest), most
