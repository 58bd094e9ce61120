"""Univariate scores of features. N samples, D features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 1e12
"""F of a feature that is constant within each class: finite, and above all others."""


def anova_f(feat_ND: NDArray[np.float32], label_N: NDArray[np.int64]) -> NDArray[np.float64]:
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
