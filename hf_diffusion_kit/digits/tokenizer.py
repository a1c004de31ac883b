"""A real CLIP tokenizer with a very small vocabulary: every known word is one token, an unknown one falls apart into letters."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from .captions import CLASS_CAPTIONS, TEMPLATES
from .handwriting import WORDS

LENGTH = 16
"""Tokens of a caption, start and end included."""
START, END = "<|startoftext|>", "<|endoftext|>"
SPARE = (
    "sks zwx ohwx style inverted underlined sheared slanted recoloured neon chalk pencil ink brush blackboard board paper "
    "red green blue yellow orange purple pink brown black white grey dark light thick thin bold small large big tiny old new good "
    "drawing painting sketch image picture photo scan close up of in on at to by for from with without and or the this that is are it its an my your "
    "number numbers digit digits letter figure sign handwriting written drawn left right top bottom background line lines round straight "
    "cat dog person two-digit"
)
"""Words no caption of the base needs, ready to be taught: rare identifiers (`sks`), styles, colours, small words."""


def words() -> list[str]:
    """The vocabulary's whole words, each once, in order."""
    sentences = " ".join((*TEMPLATES, *CLASS_CAPTIONS)).replace("{word}", "").replace("{article}", "")
    return list(dict.fromkeys(f"{' '.join(WORDS)} {sentences} {SPARE}".replace("-", " ").split()))


def byte_pairs(vocabulary: Sequence[str]) -> list[tuple[str, str]]:
    """Merge the commonest neighbours until each word is one token (Sennrich et al. 2016). Ties go to the alphabet: no chance in it."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in vocabulary]
    merges = []
    while any(len(parts) > 1 for parts in pieces):
        counts = Counter(pair for parts in pieces for pair in pairwise(parts))
        pair = min(counts, key=lambda p: (-counts[p], p))
        merges.append(pair)
        pieces = [_merge(parts, pair) for parts in pieces]
    return merges


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """CLIP's order: 256 bytes, the same at a word's end, one token a merge, start, end."""
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys(a + b for a, b in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def build() -> Any:
    """A `transformers.CLIPTokenizer`."""
    from transformers import CLIPTokenizer

    merges = byte_pairs(words())
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    return CLIPTokenizer(vocab=vocabulary(merges), merges=merges, model_max_length=LENGTH, **special)


def save(tokenizer: Any, folder: Path) -> None:
    """tokenizer.json as transformers 5 writes it, and by hand the three files that older stacks read."""
    tokenizer.save_pretrained(folder)
    merges = byte_pairs(words())
    text = json.dumps(vocabulary(merges), ensure_ascii=False)
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def encode(tokenizer: Any, sentences: Sequence[str]) -> Any:
    """tokens_ML, padded to `LENGTH`."""
    return tokenizer(list(sentences), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


def _byte_letters() -> list[str]:
    # GPT-2's map: printable bytes stand for themselves, the others for the characters from 256 on, so that no token holds a blank.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
