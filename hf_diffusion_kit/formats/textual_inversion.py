"""Shape suffixes: V rows of a word, D features of a text encoder."""

from pathlib import Path
from typing import Any, ClassVar

from safetensors import safe_open

from ..errors import ModelError
from ..families import Family
from ..families.quiet import quiet_loading
from .base import Format, Written, check, save

STEM = "learned_embeds"


class TextualInversion(Format):
    """`learned_embeds.safetensors`, which `pipe.load_textual_inversion(repo)` reads: a file a word and text encoder, as diffusers
    takes but one of each. A second encoder's end in `_2`, as in diffusers' own script for SDXL."""

    name: ClassVar[str] = "textual-inversion"

    @classmethod
    def takes(cls, family: type[Family]) -> bool:
        return family.learns_words

    def write(self, family: Family, folder: Path) -> Written:
        files, calls = [], [".from_pretrained(BASE)"]
        check(
            {f"{part}: {w}": rows for part, words in family.learned.items() for w, rows in words.items()}, folder, adapter=False
        )
        for part, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
            words = family.learned[part]
            names = stems(list(words))
            for place, (word, rows_VD) in enumerate(words.items()):
                path = folder / f"{names[place]}{part.removeprefix('text_encoder')}.safetensors"
                save({word: rows_VD}, path, part=part, tokenizer=tokenizer, place=str(place))
                files.append(path)
                second = "" if part == "text_encoder" else f", text_encoder=pipe.{part}, tokenizer=pipe.{tokenizer}"
                calls.append(f'.load_textual_inversion(FOLDER, weight_name="{path.name}"{second})')
        return Written(tuple(files), " + ".join(calls))

    def add(self, pipe: Any, folder: Path) -> None:
        """In the order of training: ids of new words grow with it, and CLIP of old finds the end of a text by the largest."""
        told = []
        for path in folder.glob(f"{STEM}*.safetensors"):
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
            if {"part", "tokenizer", "place"} <= about.keys():
                told.append((about["part"], int(about["place"]), about["tokenizer"], path.name))
        if not told:
            raise ModelError("holds no new words", where=folder, case=2)
        for part, _, tokenizer, name in sorted(told):
            with quiet_loading():
                to = {"text_encoder": getattr(pipe, part), "tokenizer": getattr(pipe, tokenizer)}
                pipe.load_textual_inversion(folder, weight_name=name, local_files_only=True, **to)


def stems(words: list[str]) -> list[str]:
    """File names without ending: the one name that diffusers looks for by itself, or one a word."""
    if len(words) == 1:
        return [STEM]
    plain = ["".join(sign if sign.isalnum() else "-" for sign in word).strip("-") for word in words]
    fit = all(plain) and len(set(plain)) == len(plain)
    return [f"{STEM}-{name if fit else place + 1}" for place, name in enumerate(plain)]
