"""One line of text from what people typed, and which of a picture's captions is used when."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from ..errors import SourceError, unknown

POLICIES = ("random", "first", "longest", "shortest", "all", "nth:1")
"""`nth:` takes any number from 1."""
INVISIBLE = re.compile("[\ufeff\u200b\u2060]")
"""Marks without width that come from copying (byte order mark, zero-width space, word joiner); joiners that emoji need are kept."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def tidy(text: str) -> str:
    """One line, NFC, single spaces, no control characters, nothing at either end."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    return " ".join(CONTROL.sub(" ", text).split())


def choose(captions: Sequence[str], policy: str, *, seed: int, epoch: int, image_id: str) -> str:
    """The tidy caption of a picture in an epoch: a function of its arguments alone.

    `random` goes through all of them in a new order each cycle, so five epochs use each of five captions once; `longest` and
    `shortest` count characters, the earlier one wins a tie; `nth:3` is the third, or the last where there are fewer; `all` puts
    one after another, each ended by a full stop. Raises SourceError when there is no caption, ConfigError for another policy.
    """
    check_policy(policy)
    texts = [tidy(text) for text in captions]
    if not texts:
        raise SourceError("has no caption", where=image_id, case=8)
    if policy == "first":
        return texts[0]
    if policy == "all":
        return " ".join(text if text.endswith((".", "!", "?", "。")) else f"{text}." for text in texts)
    if policy.startswith("nth:"):
        return texts[min(int(policy[4:]), len(texts)) - 1]
    if policy == "longest":
        return max(texts, key=len)
    if policy == "shortest":
        return min(texts, key=len)
    cycle, place = divmod(epoch, len(texts))
    return texts[sorted(range(len(texts)), key=lambda i: _hash(seed, image_id, cycle, i))[place]]


def shuffled(caption: str, keep: int, number: int) -> str:
    """Its comma-separated tags in an order that `number` decides; the first `keep` stay where they are. None is lost; a caption with
    nothing to shuffle comes back as it is."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    if len(tags) - keep < 2:
        return caption
    rest = sorted(range(keep, len(tags)), key=lambda i: _hash("tags", number, i))
    return ", ".join([*tags[:keep], *(tags[i] for i in rest)])


def in_template(template: str, caption: str) -> str:
    """The template with the caption in place of `{caption}`; other braces mean nothing. An empty caption (caption_dropout) stays empty."""
    return template.replace("{caption}", caption) if caption else ""


def beyond(policy: str, numbers: Iterable[int]) -> list[str]:
    """A sentence on the pictures that have fewer captions than `nth:` asks for. `numbers`: captions of each picture."""
    wanted = int(policy[4:]) if policy.startswith("nth:") else 0
    fewer = sum(number < wanted for number in numbers) if wanted else 0
    return [f"pictures with fewer than {wanted} captions, of which the last was taken: {fewer}"] if fewer else []


def check_policy(policy: str) -> None:
    """Raises ConfigError for what `choose` does not know."""
    if policy not in POLICIES and not re.fullmatch("nth:[1-9][0-9]{0,5}", policy):
        raise unknown("caption policy", policy, POLICIES)


def pick_key(seed: int, image_id: str) -> bytes:
    """Sorting by it is a random order that depends on seed and picture alone, not on files, disks or who else is there."""
    return _hash(seed, image_id)


def _hash(*parts: object) -> bytes:
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
