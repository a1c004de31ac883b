"""One number for what a dataset shows and says, whatever file it lies in."""

import hashlib
import json
from collections.abc import Sequence


class Fingerprint:
    """sha256 over (picture, captions) of every row, in order. A picture is its own sha256, or its address where nobody read it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, picture: str, captions: Sequence[str]) -> None:
        self._digest.update(json.dumps([picture, list(captions)], ensure_ascii=True).encode() + b"\n")

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
