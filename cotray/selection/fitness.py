"""What a mask is worth: w * error + (1 - w) * |S| / D, smaller is better.

The error is that of a classifier under group-disjoint inner folds of the training cells. Every engine is
a picklable callable from masks (P, D) to values (P,), so that a loop, Ray tasks or a GPU can drive it.

Shapes: N samples, D features, S features in a mask, P masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from cotray.config import FitnessConfig
from cotray.errors import TooFewGroupsError

Gram = NDArray[np.float32]


class Fitness(ABC):
    """Data, folds and weighing; subclasses give the held-out predictions."""

    def __init__(
        self,
        feat_ND: NDArray[np.float32],
        label_N: NDArray[np.int64],
        group_N: NDArray[np.str_],
        cfg: FitnessConfig,
        seed: int,
    ) -> None:
        keep = subsample(label_N, cfg.max_cells, seed)
        self.feat_ND = standardise(feat_ND[keep].astype(np.float32))
        self.label_N = np.asarray(label_N[keep])
        self.fold_N = inner_folds(self.label_N, group_N[keep], cfg.folds, seed)
        self.cfg = cfg

    def __call__(self, mask_PD: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Fitness of each mask: (P,) float64."""
        return np.array([self._one(mask) for mask in mask_PD])

    def _one(self, mask_D: NDArray[np.bool_]) -> float:
        chosen = self.feat_ND[:, mask_D]
        error = balanced_error(self.label_N, self.predict(chosen @ chosen.T))
        share = mask_D.sum() / len(mask_D)
        return float(self.cfg.weight * error + (1 - self.cfg.weight) * share)

    @abstractmethod
    def predict(self, gram_NN: Gram) -> NDArray[np.bool_]:
        """Each sample called malignant or not by a classifier that did not see its fold: (N,) bool.

        ``gram_NN``: inner products of the samples over the mask's features.
        """


class KnnFitness(Fitness):
    """Majority of the k nearest samples of the other folds."""

    def predict(self, gram_NN: Gram) -> NDArray[np.bool_]:
        """Squared distances follow from the inner products; no pass over the features for each fold."""
        square = np.diag(gram_NN)
        distance = square[:, None] + square[None] - 2 * gram_NN
        distance[self.fold_N[:, None] == self.fold_N[None]] = np.inf
        k = min(self.cfg.k, int((self.fold_N != np.bincount(self.fold_N).argmax()).sum()))
        near_NK = np.argpartition(distance, k - 1, axis=1)[:, :k]
        return np.asarray(self.label_N[near_NK].mean(axis=1) > 0.5)


class RidgeFitness(Fitness):
    """Kernel form of the ridge classifier: one N x N solve per fold, whatever the number of features."""

    def predict(self, gram_NN: Gram) -> NDArray[np.bool_]:
        """Sign of the ridge regression on classes coded -1 and 1."""
        target = np.where(self.label_N > 0, 1.0, -1.0)
        score = np.empty(len(target))
        for fold in np.unique(self.fold_N):
            out, rest = self.fold_N == fold, self.fold_N != fold
            mean = target[rest].mean()
            kernel = gram_NN[np.ix_(rest, rest)].astype(np.float64)
            kernel[np.diag_indices_from(kernel)] += self.cfg.ridge
            dual = np.linalg.solve(kernel, target[rest] - mean)
            score[out] = gram_NN[np.ix_(out, rest)] @ dual + mean
        return score > 0


FITNESS: dict[str, Callable[..., Fitness]] = {"knn": KnnFitness, "ridge": RidgeFitness}
"""Engines by name: (features, labels, groups, config, seed) -> masks (P, D) -> values (P,)."""


def balanced_error(label_N: NDArray[np.int64], called_N: NDArray[np.bool_]) -> float:
    """1 - mean recall of the classes: an imbalanced training split must not buy fitness by guessing."""
    recalls = [np.mean(called_N[label_N == c] == bool(c)) for c in np.unique(label_N)]
    return float(1.0 - np.mean(recalls))


def standardise(feat_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0, deviation 1, because scale matters to distances and penalties; a constant becomes 0."""
    # The mean of equal numbers is that number only in double precision.
    centred = feat_ND - feat_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 1e-8, spread, np.inf), np.float32)


def subsample(label_N: NDArray[np.int64], most: int | None, seed: int) -> NDArray[np.int64]:
    """Ascending indices of at most ``most`` samples, classes kept in proportion."""
    if most is None or len(label_N) <= most:
        return np.arange(len(label_N))
    order = np.random.default_rng(seed).permutation(len(label_N))
    kept = [
        of[: max(1, most * len(of) // len(label_N))]
        for of in (order[label_N[order] == c] for c in np.unique(label_N))
    ]
    return np.sort(np.concatenate(kept))


def inner_folds(
    label_N: NDArray[np.int64], group_N: NDArray[np.str_], folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each sample, no group in two; fewer folds where a class has fewer groups.

    Raises TooFewGroupsError where a class has a single group.
    """
    per_class = [len(np.unique(group_N[label_N == c])) for c in np.unique(label_N)]
    folds = min([folds, *per_class])
    if folds < 2 or len(per_class) < 2:
        raise TooFewGroupsError(
            f"The training split has {per_class} groups per class; feature selection needs two of each.",
            cure="Give more subjects, or a smaller split.test_fraction and split.val_fraction.",
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    fold_N = np.zeros(len(label_N), np.int64)
    for fold, (_, out) in enumerate(splitter.split(label_N[:, None], label_N, group_N)):
        fold_N[out] = fold
    return fold_N
