"""The sentences that go with the pictures. All fit in the base's 16 tokens."""

from .handwriting import WORDS

TEMPLATES = (
    "a handwritten {word}",
    "{article} {word}",
    "the digit {word} written by hand",
    "the number {word}",
    "a photo of a handwritten {word}",
    "a picture of the digit {word}",
    "a handwritten {word} on white paper",
    "{article} {word} in dark ink",
    "someone wrote {article} {word} on paper with a pen",
)
CLASS_CAPTIONS = ("a handwritten digit", "a digit written by hand", "a photo of a handwritten digit")
"""What every picture here is; the class prompt of DreamBooth's prior (Ruiz et al. 2023)."""


def captions(digit: int) -> tuple[str, ...]:
    """Every sentence for this digit; the first is the one the figures are measured with."""
    word = WORDS[digit]
    return tuple(template.format(word=word, article="an" if word == "eight" else "a") for template in TEMPLATES)


def prompt(digit: int) -> str:
    """The plainest sentence: a handwritten seven."""
    return captions(digit)[0]
