"""Which pictures are shown when, where a batch may hold pictures of one size only: a function of the batch's number and the seed."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import positive
from .randomness import order


@dataclass(frozen=True)
class Plan:
    """Each bucket is an endless stream of its own epochs, each a fresh shuffle of all its pictures, cut into groups of `group_size`.

    In epoch e of the whole set a bucket of n pictures gives floor(n (e+1) / G) - floor(n e / G) groups; what is left over waits for
    the next epoch, so that no picture is lost or shown twice in its bucket's epoch. Which bucket's turn it is, is shuffled anew in each
    epoch. With one bucket this is the plain order of a run without buckets.
    """

    members: tuple[tuple[int, ...], ...]
    """Pictures (their places in the dataset) by bucket; no bucket is empty."""
    group_size: int
    """Pictures shown at once: a micro-batch, of all processes together."""
    seed: int
    name: str
    """What is ordered: `instance` or `class`."""
    _turns: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positive("plan", group_size=self.group_size, buckets=len(self.members), pictures=min(map(len, self.members), default=0))

    def group(self, k: int) -> list[tuple[int, int]]:
        """(picture, epoch of its bucket) of the k-th group, k from 0. Dear only when k enters another epoch."""
        epoch = self.epoch(k)
        bucket_of, rank_of = self._turn(epoch)
        turn = k - self.before(epoch)
        bucket, size = int(bucket_of[turn]), self.group_size
        first = (len(self.members[bucket]) * epoch // size + int(rank_of[turn])) * size
        return [self._at(bucket, position) for position in range(first, first + size)]

    def epoch(self, k: int) -> int:
        """The epoch of the whole set that the k-th group lies in."""
        pictures = sum(map(len, self.members))
        beyond = (k + len(self.members) + 1) * self.group_size // pictures + 2  # by then more than k groups are over
        return bisect_right(range(beyond), k, key=self.before) - 1

    def before(self, epoch: int) -> int:
        """Groups before an epoch of the whole set."""
        return sum(len(bucket) * epoch // self.group_size for bucket in self.members)

    def _turn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each group of an epoch: its bucket, and how many of that bucket come before it in the epoch."""
        if epoch not in self._turns:
            counts = [len(b) * (epoch + 1) // self.group_size - len(b) * epoch // self.group_size for b in self.members]
            turns = order(self.seed, epoch, sum(counts), f"{self.name}/buckets")
            bucket_of = np.repeat(np.arange(len(counts)), counts)[turns]
            rank_of = np.empty_like(bucket_of)
            rank_of[np.argsort(bucket_of, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
            _keep(self._turns, epoch, (bucket_of, rank_of), 1)
        return self._turns[epoch]

    def _at(self, bucket: int, position: int) -> tuple[int, int]:
        members = self.members[bucket]
        epoch, place = divmod(position, len(members))
        if (bucket, epoch) not in self._orders:
            name = self.name if len(self.members) == 1 else f"{self.name}/bucket {bucket}"
            shuffled = np.array(order(self.seed, epoch, len(members), name))
            _keep(self._orders, (bucket, epoch), shuffled, 2 * len(self.members))
        return members[self._orders[bucket, epoch][place]], epoch


def _keep(kept: dict[Any, Any], key: object, value: object, most: int) -> None:
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
    kept[key] = value
