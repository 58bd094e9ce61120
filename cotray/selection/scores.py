"""Univariate scores of features. N samples, D features, Q samples asked, B of a block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MOST = 1e12
"""F of a feature that is constant within each class: finite, and above all others."""
RELIEF_SAMPLES, RELIEF_NEIGHBOURS = 500, 10
BLOCK = 4096
"""Samples that are in double precision at a time."""

Scores = NDArray[np.float64]


def anova_f(feat_ND: NDArray[np.float32], label_N: NDArray[np.int64]) -> Scores:
    """ANOVA F of every feature between the classes: (D,), at most 1e12; a constant feature scores 0."""
    classes = np.unique(label_N)
    grand = feat_ND.mean(axis=0, dtype=np.float64)
    between = np.zeros(feat_ND.shape[1])
    within = np.zeros(feat_ND.shape[1])
    for label in classes:
        rows = feat_ND[label_N == label].astype(np.float64)
        between += len(rows) * (rows.mean(axis=0) - grand) ** 2
        within += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
    between /= max(1, len(classes) - 1)
    within /= max(1, len(feat_ND) - len(classes))
    # Both bounds are relative to the feature itself: its scale says nothing about its worth.
    varies = between > 1e-20 * grand**2
    return np.divide(between, np.maximum(within, between / MOST), out=np.zeros_like(between), where=varies)


def relief(feat_ND: NDArray[np.float32], label_N: NDArray[np.int64]) -> Scores:
    """ReliefF (Kononenko 1994) of standardised features: (D,).

    How much more a feature differs between near samples of different classes than of the same one: it
    sees features that tell only together. At most 500 samples, spread evenly, are asked; misses count by
    the frequency of their class.
    """
    asked = np.unique(np.linspace(0, len(feat_ND) - 1, min(len(feat_ND), RELIEF_SAMPLES)).astype(int))
    away = _distances(feat_ND, asked)
    share = np.bincount(label_N) / len(label_N)
    score_D = np.zeros(feat_ND.shape[1])
    for c in np.unique(label_N):
        of = np.flatnonzero(label_N == c)
        for row, sample in enumerate(asked):
            mates = of[of != sample]
            near = mates[np.argsort(away[row, mates], kind="stable")[:RELIEF_NEIGHBOURS]]
            if len(near):
                gap_D = np.abs(feat_ND[near] - feat_ND[sample]).mean(axis=0)
                own = label_N[sample]
                score_D += -gap_D if c == own else gap_D * share[c] / max(1e-12, 1 - share[own])
    return np.asarray(score_D / len(asked))


def _distances(feat_ND: NDArray[np.float32], asked_Q: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances of the samples asked to all: (Q, N).

    In double precision and rounded: which of equally far samples comes first must not depend on how a
    machine adds up.
    """
    own_QD = feat_ND[asked_Q].astype(np.float64)
    own_Q1 = (own_QD**2).sum(axis=1)[:, None]
    blocks = (feat_ND[at : at + BLOCK].astype(np.float64) for at in range(0, len(feat_ND), BLOCK))
    away = [own_Q1 + (other_BD**2).sum(axis=1) - 2 * own_QD @ other_BD.T for other_BD in blocks]
    return np.round(np.concatenate(away, axis=1), 6)


def both(feat_ND: NDArray[np.float32], label_N: NDArray[np.int64]) -> Scores:
    """Each feature by its better rank under `anova` and `relief`, the higher the better: (D,)."""
    rank = [_ranks(score(feat_ND, label_N)) for score in (anova_f, relief)]
    return -np.minimum(rank[0], rank[1] + 0.5)


def _ranks(score_D: Scores) -> Scores:
    rank_D = np.empty(len(score_D))
    rank_D[np.argsort(-score_D, kind="stable")] = np.arange(len(score_D))
    return rank_D


SCORES: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64]], Scores]] = {
    "auto": both,
    "anova": anova_f,
    "relief": relief,
}
"""(standardised features, class codes) -> score of each feature, the higher the better."""
