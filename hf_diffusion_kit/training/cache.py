"""What the frozen parts of the model say of a picture or a caption, asked once.

The key holds all that can change the answer within a run. Each picture is encoded alone, so that the answer does not depend on
its neighbours in a batch.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Cache:
    """In memory; 118 thousand pictures at 512 pixels are 8 GB."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], object] = {}

    def get(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self._kept)
