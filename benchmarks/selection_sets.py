"""Data sets of the selection benchmark, their splits, and the score that is common to all sides.

Of every set 60 % of the samples are learned from, 20 % validate and 20 % test, stratified and drawn by the
seed, which draws generated sets as well. A mask's fitness is 0.99 * error + 0.01 * |S| / D, the error that
of scikit-learn's k-NN (5) which learned from the first part on the second. The test error, which no search
sees, is that of k-NN which learned from both. Features have mean 0 and deviation 1 over both.
N samples, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT, NEIGHBOURS = 0.99, 5
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class OutOfTime(Exception):
    """A side used up its time."""


@dataclass(frozen=True)
class Data:
    """One split of one set, standardised; features that are constant outside the test part are dropped."""

    feat_ND: Floats
    """Learning and validation parts."""
    label_N: NDArray[np.int64]
    validates_N: Mask
    test_ND: Floats
    test_label_N: NDArray[np.int64]

    @property
    def learn(self) -> tuple[Floats, NDArray[np.int64]]:
        """Features and classes that are learned from."""
        return self.feat_ND[~self.validates_N], self.label_N[~self.validates_N]

    @property
    def validate(self) -> tuple[Floats, NDArray[np.int64]]:
        """Features and classes that validate."""
        return self.feat_ND[self.validates_N], self.label_N[self.validates_N]


def parity(seed: int, features: int, told_by: int, samples: int = 2000) -> tuple[Floats, NDArray[Any]]:
    """The class is the sign of a product of ``told_by`` features, of which any fewer tell nothing."""
    rng = np.random.default_rng(seed)
    feat_ND = rng.normal(size=(samples, features))
    label_N = np.prod(feat_ND[:, :told_by], axis=1) > 0
    return feat_ND[:, rng.permutation(features)], label_N.astype(np.int64)


def generated(seed: int, samples: int, features: int, **known: Any) -> tuple[Floats, NDArray[Any]]:
    """scikit-learn's, drawn by 100 + seed."""
    from sklearn.datasets import make_classification

    kept = {"n_samples": samples, "n_features": features, "class_sep": 1.5, "random_state": 100 + seed}
    feat_ND, label_N = make_classification(**kept, **known)
    return feat_ND, label_N


def bundled(name: str) -> Callable[[int], tuple[Floats, NDArray[Any]]]:
    """One of scikit-learn's, always the same."""

    def load(seed: int) -> tuple[Floats, NDArray[Any]]:
        from sklearn import datasets

        feat_ND, label_N = getattr(datasets, name)(return_X_y=True)
        return feat_ND, label_N

    return load


WIDE = {"n_informative": 20, "n_redundant": 10, "n_clusters_per_class": 2}
MADELON = {"n_informative": 5, "n_redundant": 15, "n_clusters_per_class": 16, "flip_y": 0.01}
SETS: dict[str, Callable[[int], tuple[Floats, NDArray[Any]]]] = {
    "breast_cancer": bundled("load_breast_cancer"),
    "digits": bundled("load_digits"),
    "2000x512": lambda seed: generated(seed, 2000, 512, **WIDE),
    "2000x4096": lambda seed: generated(seed, 2000, 4096, **WIDE),
    "madelon": lambda seed: generated(seed, 2000, 500, **MADELON),
    "parity-3-of-40": lambda seed: parity(100 + seed, 40, 3),
    "parity-2-of-500": lambda seed: parity(100 + seed, 500, 2),
    "parity-3-of-500": lambda seed: parity(100 + seed, 500, 3),
    "20000x2000": lambda seed: generated(seed, 20000, 2000, **WIDE),
    "toy": lambda seed: generated(seed, 120, 12, n_informative=3, n_redundant=2),
}
"""Name -> (features, classes) of a seed."""


def split(feat_ND: Floats, label_N: NDArray[Any], seed: int) -> Data:
    """60, 20 and 20 %, standardised."""
    from sklearn.model_selection import train_test_split

    inside, outside = train_test_split(
        np.arange(len(label_N)), test_size=0.2, stratify=label_N, random_state=seed
    )
    places = np.arange(len(inside))
    _, validating = train_test_split(places, test_size=0.25, stratify=label_N[inside], random_state=seed)
    kept_D = np.ptp(feat_ND[inside], axis=0) > 0
    feat_ND = np.asarray(feat_ND[:, kept_D], float)
    mean_D, scale_D = feat_ND[inside].mean(axis=0), feat_ND[inside].std(axis=0)
    feat_ND = (feat_ND - mean_D) / scale_D
    label_N = np.unique(label_N, return_inverse=True)[1].astype(np.int64)
    validates_N = np.isin(places, validating)
    return Data(feat_ND[inside], label_N[inside], validates_N, feat_ND[outside], label_N[outside])


NAMES = ("feat_ND", "label_N", "validates_N", "test_ND", "test_label_N")


def prepare(folder: Path, name: str, seed: int) -> None:
    """Write a split, so that its making counts for nobody's time and memory."""
    data = split(*SETS[name](seed), seed)
    for part in NAMES:
        np.save(folder / f"{name}-{seed}-{part}.npy", getattr(data, part))


def load(folder: Path, name: str, seed: int) -> Data:
    """Read what :func:`prepare` wrote."""
    return Data(**{part: np.load(folder / f"{name}-{seed}-{part}.npy") for part in NAMES})


def knn_error(
    mask_D: Mask, learn: tuple[Floats, NDArray[np.int64]], asked: tuple[Floats, NDArray[np.int64]]
) -> float:
    """Share of ``asked`` that scikit-learn's k-NN calls wrongly."""
    from sklearn.neighbors import KNeighborsClassifier

    knn = KNeighborsClassifier(NEIGHBOURS).fit(learn[0][:, mask_D], learn[1])
    return float(1.0 - knn.score(asked[0][:, mask_D], asked[1]))


def weigh(error: float, mask_D: Mask) -> float:
    """Fitness of an error and a size."""
    return WEIGHT * error + (1 - WEIGHT) * np.count_nonzero(mask_D) / len(mask_D)


@dataclass
class Objective:
    """What users of the other libraries write: fit, score, weigh; here it counts and looks at the clock."""

    data: Data
    limit: float = float("inf")
    """Seconds of CPU time after which it raises OutOfTime."""
    calls: int = 0
    best: float = float("inf")
    best_mask_D: Mask = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        self.learn, self.validate = self.data.learn, self.data.validate
        self.begun = time.process_time()

    def __call__(self, mask_D: NDArray[Any]) -> float:
        """Fitness of a mask (or of numbers that are not 0 where it is true)."""
        mask_D = np.asarray(mask_D) != 0
        fitness = 1.0
        if mask_D.any():
            fitness = weigh(knn_error(mask_D, self.learn, self.validate), mask_D)
        self.told(mask_D, fitness)
        return fitness

    def told(self, mask_D: Mask, fitness: float) -> None:
        """Count an evaluation."""
        self.calls += 1
        if fitness < self.best:
            self.best, self.best_mask_D = fitness, mask_D.copy()
        if time.process_time() - self.begun > self.limit:
            raise OutOfTime
