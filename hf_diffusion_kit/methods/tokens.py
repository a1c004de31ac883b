"""New words for a frozen text encoder: some rows of its embedding, and tokens that stand for them.

Shape suffixes: V rows of one word, D features.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ..errors import ConfigError, positive
from ..families import Family
from .base import Method, Trained
from .new_rows import NewRows, exchange


@dataclass(frozen=True)
class Tokens(Method):
    tokens: tuple[str, ...] = ()
    """The new words, as captions hold them: `<cat-toy>`. Small letters, no spaces, none that the tokenizer knows."""
    initializer: tuple[str, ...] = ()
    """For each new word a known one from whose rows it starts; an empty one, or none at all, starts at random."""
    vectors: int = 1
    """Embedding rows a word: more say more, and take as many of the caption's tokens. Pipelines read `<cat-toy>` as
    `<cat-toy> <cat-toy>_1 ...` by themselves."""

    @classmethod
    def fits(cls, family: type[Family]) -> bool:
        """New words need a text side that stock readers take them into."""
        return family.learns_words

    def __post_init__(self) -> None:
        positive("method", vectors=self.vectors)
        for place, token in enumerate(self.tokens):
            if not token or any(sign.isspace() for sign in token) or token != token.lower():
                fix = "write it like <cat-toy>"
                raise ConfigError(f"{token!r} cannot be a new word", where="method: tokens", fix=fix, case=1)
            if inside := [other for other in (*self.tokens[:place], *self.tokens[place + 1 :]) if other in token]:
                what = f"{inside[0]!r} is there twice" if inside[0] == token else f"{inside[0]!r} is a part of {token!r}"
                raise ConfigError(what, where="method: tokens", fix="choose another word", case=1)
        if len(self.initializer) not in (0, len(self.tokens)):
            what = f"names {len(self.initializer)} words for {len(self.tokens)} tokens"
            raise ConfigError(what, where="method: initializer", fix="one for each, or none", case=1)

    def names(self, token: str) -> list[str]:
        """What the tokenizer knows a word's rows by, as diffusers' `maybe_convert_prompt` spells them."""
        return [token, *(f"{token}_{number}" for number in range(1, self.vectors))]

    def all_names(self) -> list[str]:
        """In the order of their ids."""
        return [name for token in self.tokens for name in self.names(token)]

    def missing_tokens(self, captions: Iterable[str]) -> tuple[str, ...]:
        """Words that no caption holds, letter for letter: they would never be trained."""
        missing = dict.fromkeys(self.tokens)
        for caption in captions:
            for token in [token for token in missing if token in caption]:
                del missing[token]
        return tuple(missing)

    def check(self, family: Family) -> None:
        if not self.fits(type(family)):
            what, fix = f"a {family.name} is taught no new words: no stock reader takes them", "method = lora, or dreambooth"
            raise ConfigError(what, where="method: name", fix=fix, case=4)
        if not self.tokens:
            raise ConfigError("names no new word", where="method: tokens", fix='tokens = ["<cat-toy>"]', case=1)
        for part, tokenizer in self._sides(family):
            if isinstance(rows := embedding(family, part), NewRows):
                known, names = tokenizer.get_added_vocab(), self.all_names()
                if [known.get(name) for name in names] != list(range(rows.first, rows.first + len(rows.new.weight))):
                    fix = "open the base anew"
                    raise ConfigError("other words are being trained here", where="method: tokens", fix=fix, case=1)
            else:
                for token in self.tokens:
                    self._check_new(tokenizer, token)
            for word in filter(None, self.initializer):
                self._known(tokenizer, word)

    def prepare(self, family: Family) -> None:
        """Adds the words to every tokenizer, and rows of zeros for them to every text encoder; once. Raises ConfigError."""
        Tokens.check(self, family)
        if isinstance(embedding(family, family.text_encoders[0]), NewRows):
            return
        names = self.all_names()
        for part, tokenizer in self._sides(family):
            first = len(tokenizer)
            tokenizer.add_tokens(names)
            if strange := [name for name in names if tokenizer.tokenize(name) != [name]]:
                what = f"the tokenizer reads {strange[0]!r} as {tokenizer.tokenize(strange[0])}"
                raise ConfigError(what, where="method: tokens", fix="use plain letters, like <cat-toy>", case=1)
            exchange(family.part(part), NewRows(embedding(family, part), first, len(names)), first + len(names))

    def adapt_tokens(self, family: Family, seed: int) -> list[Trained]:
        """The new rows, from where they start; all other rows stay as they are, to the bit."""
        self.prepare(family)
        generator, trained = Generator().manual_seed(seed), []
        for part, tokenizer in self._sides(family):
            rows = embedding(family, part)
            starts = [self._start(tokenizer, rows.old.weight, number, generator) for number in range(len(self.tokens))]
            rows.new.weight.data.copy_(torch.cat(starts))
            trained.append(Trained(part, {"tokens": rows.new.weight.requires_grad_(True)}, "tokens"))
        return trained

    def settle(self, family: Family) -> None:
        """The rows become part of stock embeddings in the base's precision; `family.learned` keeps them in float32."""
        for part, _ in self._sides(family):
            rows = embedding(family, part)
            if isinstance(rows, NewRows):
                words = rows.new.weight.detach().clone().split(self.vectors)
                family.learned[part] = dict(zip(self.tokens, words, strict=True))
                exchange(family.part(part), rows.plain(), rows.first + len(rows.new.weight))

    def _sides(self, family: Family) -> Iterator[tuple[str, Any]]:
        """(text encoder's name, its tokenizer) for each."""
        for part, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
            yield part, getattr(family.pipe, tokenizer)

    def _check_new(self, tokenizer: Any, token: str) -> None:
        known = tokenizer.get_vocab()
        # CLIP's vocabulary marks the end of a word; a new token of that spelling would hide the word.
        if taken := [name for name in (*self.names(token), f"{token}</w>") if name in known]:
            what = f"{taken[0].removesuffix('</w>')!r} is a word that the tokenizer knows already"
            fix = f"write it like <{token}>" if token[0] != "<" else "choose another word"
            raise ConfigError(what, where="method: tokens", fix=fix, case=1)

    def _known(self, tokenizer: Any, word: str) -> list[int]:
        """A known word's own tokens, at most as many as a new one has rows."""
        ids = tokenizer(word, add_special_tokens=False).input_ids
        if not ids or tokenizer.unk_token_id in ids:
            raise ConfigError(
                f"{word!r} is no word to the tokenizer", where="method: initializer", fix="name a common word", case=1
            )
        if len(ids) > self.vectors:
            what = f"{word!r} is {len(ids)} tokens, and a new word has {self.vectors} vectors"
            raise ConfigError(what, where="method: initializer", fix=f"vectors = {len(ids)}, or a shorter word", case=1)
        return list(ids)

    def _start(self, tokenizer: Any, old_ND: Tensor, number: int, generator: Generator) -> Tensor:
        """rows_VD: those of the known word, over and over; or as spread as the known rows are."""
        word = self.initializer[number] if self.initializer else ""
        if word:
            ids = self._known(tokenizer, word)
            return old_ND[[ids[place % len(ids)] for place in range(self.vectors)]].detach().float()
        return (torch.randn(self.vectors, old_ND.shape[1], generator=generator) * old_ND.float().std().cpu()).to(old_ND.device)


def embedding(family: Family, part: str) -> Any:
    return family.part(part).get_input_embeddings()  # type: ignore[operator]
