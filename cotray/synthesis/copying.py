"""Whether synthetic cells copy the cells that they were learned from. N real, M synthetic, K dimensions.

A cell that was drawn afresh lies as far from its nearest training cell as training cells lie from one
another. So each synthetic cell's distance to its nearest training cell is held against the distances of
the training cells to their nearest others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cotray.synthesis.distances import Matrix

CLOSE = 0.01
"""Nearer than all but this share of the training cells are to one another counts as close."""
IDENTICAL = 0.1
"""Nearer than this times the training cells' usual distance counts as the same cell."""
BLOCK = 512
"""Rows whose distances are in memory at once."""


@dataclass(frozen=True)
class Nearest:
    """Distances to the nearest training cell."""

    own_N: Matrix
    """Of each training cell, itself left out."""
    away_M: Matrix
    """Of each synthetic cell."""
    which_M: NDArray[np.int64]
    """The training cell that is nearest to each synthetic one."""

    @property
    def bar(self) -> float:
        """The distance up to which a synthetic cell counts as close.

        A trifle above the training cells' quantile: equal pixels may differ by rounding, and where training
        cells are equal themselves the quantile is 0.
        """
        return float(np.quantile(self.own_N, CLOSE) + 1e-6 * max(1e-6, float(np.median(self.own_N))))

    @property
    def identical_M(self) -> NDArray[np.bool_]:
        """Synthetic cells that are all but identical with a training cell."""
        return np.asarray(self.away_M <= min(self.bar, IDENTICAL * max(1e-6, float(np.median(self.own_N)))))


def nearest(real_NK: Matrix, synthetic_MK: Matrix, mirrored_NK: Matrix | None = None) -> Nearest:
    """Distances of both sets to their nearest training cells; needs two real cells at least.

    ``mirrored_NK`` are the real cells turned left to right: a mirrored copy is a copy too, and so both sets
    are held against them as well.
    """
    own, _ = _closest(real_NK, real_NK, skip_itself=True)
    away, which = _closest(synthetic_MK, real_NK)
    if mirrored_NK is not None:
        other, at = _closest(synthetic_MK, mirrored_NK)
        own = np.minimum(own, _closest(real_NK, mirrored_NK, skip_itself=True)[0])
        away, which = np.minimum(away, other), np.where(other < away, at, which)
    return Nearest(own, away, which)


def _closest(
    points_NK: Matrix, others_MK: Matrix, skip_itself: bool = False
) -> tuple[Matrix, NDArray[np.int64]]:
    distance, which = np.empty(len(points_NK)), np.empty(len(points_NK), np.int64)
    for start in range(0, len(points_NK), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(points_NK)))
        gaps = cdist(points_NK[rows], others_MK)
        if skip_itself:
            gaps[np.arange(len(rows)), rows] = np.inf
        which[rows] = gaps.argmin(axis=1)
        distance[rows] = gaps.min(axis=1)
    return distance, which


def copy_figures(found: Nearest) -> dict[str, float]:
    """What the distances say.

    - ``nearest_ratio``: the synthetic cells' median over the training cells'. Near 0 cells are copies.
    - ``identical_share``: share of synthetic cells that are all but identical with a training cell.
    - ``close_share``: share of synthetic cells nearer to a training cell than all but 1 % of training
      cells are to one another; about 0.01 (or 1 / N, for few cells) where nothing is copied.
    - ``close_p``: probability of so many close ones if synthetic and training cells were of one kind
      (exact: how many of either come first among all distances in order).
    - ``nearer_auroc``: probability that a synthetic cell is nearer to its nearest training cell than a
      training cell is; 0.5 = no difference, 1 = all of them are, below 0.5 = they keep away.
    - ``nearer_p``: rank test of that (Mann-Whitney, one-sided).
    """
    own, away = found.own_N, found.away_M
    close, before = int((away <= found.bar).sum()), int((own <= found.bar).sum())
    from scipy.stats import hypergeom, mannwhitneyu  # slow to import

    rank = mannwhitneyu(away, own, alternative="less")
    return {
        "nearest_ratio": float(np.median(away) / max(1e-12, float(np.median(own)))),
        "identical_share": float(found.identical_M.mean()),
        "close_share": close / len(away),
        "close_p": float(hypergeom.sf(close - 1, len(away) + len(own), len(away), close + before)),
        "nearer_auroc": float(1 - rank.statistic / (len(away) * len(own))),
        "nearer_p": float(rank.pvalue),
    }


def most_suspicious(found: Nearest, count: int) -> list[tuple[int, int]]:
    """(synthetic cell, its nearest training cell) of the ``count`` nearest pairs, nearest first."""
    order = np.argsort(found.away_M, kind="stable")[:count]
    return [(int(i), int(found.which_M[i])) for i in order]
