"""How many tokens a caption has, by a base's tokenizers alone: no weights are read."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from ..errors import ModelError
from .opening import config_of, opening_failed

Counter = Callable[[str], int]


def token_counter(base: str | Path, *, revision: str | None = None) -> tuple[Counter, int]:
    """(tokens of a caption, with those that begin and end it; how many the model reads), the most of several tokenizers.

    Raises ModelError.
    """
    told = config_of(base, revision=revision)
    names = [name for name, kind in told.items() if name.startswith("tokenizer") and isinstance(kind, list) and kind[0]]
    if not names:
        raise ModelError("names no tokenizer", where=f"{base}: model_index.json", case=2)
    try:
        tokenizers = [AutoTokenizer.from_pretrained(base, subfolder=name, revision=revision) for name in names]
        most = min(int(tokenizer.model_max_length) for tokenizer in tokenizers)
    except (OSError, ValueError) as error:
        raise opening_failed(base, error) from error
    return lambda text: max(len(t(text, truncation=False, verbose=False).input_ids) for t in tokenizers), most
