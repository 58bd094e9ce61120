"""What a search is judged on: standardised features, class codes, and how the samples are folded.

N samples, D features, R repeats (ways of folding), C classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import FitnessConfig
from cotray.errors import ClassError, TooFewGroupsError

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
TRAIN = -1
"""Fold of samples that a repeat trains on and never asks."""


@dataclass(frozen=True)
class Table:
    """What is selected from."""

    feat_ND: NDArray[np.floating]
    label_N: NDArray[np.generic]
    """Class of each sample: numbers or text."""
    group_N: NDArray[np.generic]
    """Samples of one group (subject) are never on two sides of a fold."""
    asked_N: NDArray[np.bool_] | None = None
    """Samples that judge masks by what all others teach; None = every sample in turn, `fitness.scheme`."""

    def rows(self, keep: NDArray[Any]) -> Table:
        """The same table with some of its rows."""
        asked = None if self.asked_N is None else self.asked_N[keep]
        return Table(self.feat_ND[keep], self.label_N[keep], self.group_N[keep], asked)

    def sides(self) -> tuple[Table, Table]:
        """(what is learned from, what is asked); the latter is empty where every sample has its turn."""
        asked = np.zeros(len(self.label_N), bool) if self.asked_N is None else self.asked_N
        learned, asked_ = (dataclasses.replace(self.rows(keep), asked_N=None) for keep in (~asked, asked))
        return learned, asked_


def ask(inside: Table, outside: Table) -> Table:
    """One table of both: ``inside`` teaches, ``outside`` judges."""
    feat, label, group = (
        np.concatenate([getattr(side, name) for side in (inside, outside)])
        for name in ("feat_ND", "label_N", "group_N")
    )
    return Table(feat, label, group, np.arange(len(label)) >= len(inside.label_N))


@dataclass(frozen=True)
class Problem:
    """Arrays only, so that Ray can share one copy with every worker of a node."""

    feat_ND: Features
    """Mean 0, deviation 1; constants are 0."""
    label_N: Labels
    """Class codes 0 to C - 1."""
    fold_RN: NDArray[np.int32]
    """Fold of each sample in each repeat; no group is in two folds. A sample is asked of what learned
    from all other folds; samples of fold -1 are learned from only."""

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return int(self.label_N.max()) + 1

    @property
    def width(self) -> int:
        """Number of features D."""
        return int(self.feat_ND.shape[1])

    def only(self, pool: NDArray[np.int64]) -> Problem:
        """The same problem with some of the features, ascending."""
        if len(pool) == self.width:
            return self
        return Problem(np.ascontiguousarray(self.feat_ND[:, pool]), self.label_N, self.fold_RN)


def table_problem(table: Table, cfg: FitnessConfig, seed: int) -> Problem:
    """The table's samples in turn, or those that are asked. Raises ClassError, TooFewGroupsError."""
    if table.asked_N is None:
        return make_problem(table.feat_ND, table.label_N, table.group_N, cfg, seed)
    inside, outside = table.sides()
    classes = np.unique(inside.label_N)
    absent = [str(c) for c in classes if c not in set(outside.label_N.tolist())]
    if len(classes) < 2 or absent:
        fault = f"none asked is of class {absent[0]}" if absent else f"{len(classes)} is learned from"
        raise ClassError(
            f"Feature selection needs samples of two classes on both sides, and {fault}.",
            cure="Ask other samples, or none (asked_N=None).",
        )
    return outer_problem(inside, outside, cfg, seed)


def make_problem(
    feat_ND: NDArray[np.floating],
    label_N: NDArray[np.generic],
    group_N: NDArray[np.generic],
    cfg: FitnessConfig,
    seed: int,
) -> Problem:
    """Subsample, standardise and fold. Raises ClassError (one class), TooFewGroupsError."""
    keep = subsample(label_N, cfg.max_cells, seed)
    classes, codes = np.unique(label_N[keep], return_inverse=True)
    if len(classes) < 2:
        raise ClassError(
            f"Feature selection needs two classes; there is 1 class: {classes[0] if len(classes) else None}.",
            cure="Give samples of another class too.",
        )
    label = codes.astype(np.int64)
    fold = fold_samples(label, group_N[keep], cfg, seed)
    return Problem(standardise(feat_ND[keep]), label, fold)


def outer_problem(inside: Table, outside: Table, cfg: FitnessConfig, seed: int) -> Problem:
    """All of ``inside`` learned from, all of ``outside`` asked; standardised by what is learned from."""
    inside = inside.rows(subsample(inside.label_N, cfg.max_cells, seed))
    mean_D, scale_D = moments(inside.feat_ND)
    classes = np.unique(inside.label_N)
    known = np.isin(outside.label_N, classes)
    label = np.searchsorted(classes, np.concatenate([inside.label_N, outside.label_N[known]]))
    feat = np.concatenate([inside.feat_ND, outside.feat_ND[known]])
    fold = np.full(len(label), TRAIN, np.int32)
    fold[len(inside.label_N) :] = 0
    return Problem(((feat - mean_D) * scale_D).astype(np.float32), label.astype(np.int64), fold[None])


def fold_samples(
    label_N: Labels, group_N: NDArray[np.generic], cfg: FitnessConfig, seed: int
) -> NDArray[np.int32]:
    """Folds of every repeat: (R, N)."""
    folds = asked_folds(cfg)
    if folds is None:  # every group is a fold: one way to do it, whatever the seed
        _, code = np.unique(group_N, return_inverse=True)
        return np.asarray(code, np.int32)[None]
    seeds = np.random.SeedSequence(seed).generate_state(cfg.repeats)
    # The first repeat keeps the given seed: more repeats add to what one repeat saw.
    fold_RN = np.stack([inner_folds(label_N, group_N, folds, int(s)) for s in (seed, *seeds[1:])])
    if cfg.scheme == "holdout":
        fold_RN = np.where(fold_RN == 0, 0, TRAIN)
    return np.ascontiguousarray(fold_RN, np.int32)


def asked_folds(cfg: FitnessConfig) -> int | None:
    """Folds of each repeat that the settings ask for; None where every group is one (`leave_out`)."""
    if cfg.scheme == "leave_out" or (cfg.scheme == "auto" and cfg.engine.startswith("knn")):
        return None
    return max(2, round(1 / cfg.holdout)) if cfg.scheme == "holdout" else cfg.folds


def inner_folds(label_N: Labels, group_N: NDArray[np.generic], folds: int, seed: int) -> Labels:
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
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    # Without real groups the plain splitter does the same a hundred times faster.
    alone = len(np.unique(group_N)) == len(group_N)
    kind, known = (StratifiedKFold, None) if alone else (StratifiedGroupKFold, group_N)
    splitter = kind(folds, shuffle=True, random_state=seed % 2**32)
    fold_N = np.zeros(len(label_N), np.int64)
    for fold, (_, out) in enumerate(splitter.split(label_N[:, None], label_N, known)):
        fold_N[out] = fold
    return fold_N


def standardise(feat_ND: NDArray[np.floating]) -> Features:
    """Mean 0, deviation 1, because scale matters to distances and penalties; a constant becomes 0."""
    mean_D, scale_D = moments(feat_ND)
    return np.asarray((feat_ND - mean_D) * scale_D, np.float32)


def moments(feat_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and 1 / deviation of every feature, both (D,); the latter is 0 for a constant."""
    # The mean of equal numbers is that number only in double precision.
    mean_D = feat_ND.mean(axis=0, dtype=np.float64)
    spread_D = feat_ND.std(axis=0, dtype=np.float64)
    varies_D = spread_D > 1e-7 * np.abs(feat_ND).max(axis=0, initial=0.0)
    return mean_D, np.divide(1.0, spread_D, out=np.zeros_like(spread_D), where=varies_D)


def subsample(label_N: NDArray[np.generic], most: int | None, seed: int) -> Labels:
    """Ascending indices of at most ``most`` samples, classes kept in proportion."""
    if most is None or len(label_N) <= most:
        return np.arange(len(label_N))
    order = np.random.default_rng(seed).permutation(len(label_N))
    kept = [
        of[: max(1, most * len(of) // len(label_N))]
        for of in (order[label_N[order] == c] for c in np.unique(label_N))
    ]
    return np.sort(np.concatenate(kept))
