"""How many tokens a caption has, by a base's tokenizer alone: no weights are read."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from .base import opening_failed

Counter = Callable[[str], int]


def token_counter(base: str | Path, *, revision: str | None = None) -> tuple[Counter, int]:
    """(tokens of a caption, with those that begin and end it; how many the model reads). Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, subfolder="tokenizer", revision=revision)
    except (OSError, ValueError) as error:
        raise opening_failed(base, error) from error
    return lambda text: len(tokenizer(text, truncation=False, verbose=False).input_ids), int(tokenizer.model_max_length)
