"""An independent eye: a classifier of scikit-learn, fitted to real training pictures, that shares nothing with what it judges."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import handwriting

SIDE = 16
"""Pixels of a side that the judge looks at."""


@dataclass(frozen=True)
class Judge:
    machine: Any
    """A fitted `sklearn.svm.SVC` (Cortes & Vapnik 1995) over grey levels."""
    real_accuracy: float
    """Share of real held-out pictures it names rightly: no score above this means more than "as good as real"."""

    @classmethod
    def fit(cls, idx: Path | None = None, limit: int = 4000) -> "Judge":
        """Always all ten digits, also to judge a base that knows seven. `idx`: MNIST's folder; of which about `limit` are used."""
        from sklearn.svm import SVC

        seen, named = _examples(handwriting.load("train", idx=idx), limit)
        held_out, truth = _examples(handwriting.load("test", idx=idx), limit)
        machine = SVC(C=10, gamma="scale").fit(seen, named)
        return cls(machine, float((machine.predict(held_out) == truth).mean()))

    def classify(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """The digit of each picture, int64."""
        return self.machine.predict(_features(pictures))

    def accuracy(self, pictures: Sequence[Image.Image], digit: int) -> float:
        """Share of the pictures that show this digit, 0..1."""
        return float((self.classify(pictures) == digit).mean())


def _examples(data: handwriting.Handwriting, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels, spread over the whole data where it has more than `limit`."""
    some = handwriting.Handwriting(*(every[:: max(1, len(data) // limit)] for every in (data.pictures_NHW, data.labels_N)))
    return _features(handwriting.as_images(some)), some.labels_N


def nearest_distance(pictures: Sequence[Image.Image], references: Sequence[Image.Image]) -> np.ndarray:
    """Each picture's distance to the nearest reference, Euclidean over 16×16 grey levels of 0..1; 0 is the same picture."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(_features(references))
    return nearest.kneighbors(_features(pictures))[0][:, 0]


def nn_ratio(generated: Sequence[Image.Image], training: Sequence[Image.Image], held_out: Sequence[Image.Image]) -> float:
    """Median distance to the nearest training picture, generated over real held-out: about 1 is new, well under 1 is copied."""
    real = np.median(nearest_distance(held_out, training))
    return float(np.median(nearest_distance(generated, training)) / real)


def _features(pictures: Iterable[Image.Image]) -> np.ndarray:
    grey = [picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for picture in pictures]
    return np.stack([np.asarray(picture, np.float32).ravel() / 255 for picture in grey])
