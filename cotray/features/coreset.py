"""A small bank that stands for a large one: per class, the cells nearest to the means of k-means.

On synthetic cells (`python -m benchmarks.grafr --coreset`) reconstructions from it are a little nearer to
those from all cells than with a random draw or with k-center (the farthest cell next), and the worst served
cells suffer less than with a random draw, about as little as with k-center.

Shapes: N cells, D features, M kept cells.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from cotray.errors import FeatureError
from cotray.features.neighbours import by_products

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]
ROUNDS = 10
"""Iterations of k-means."""
STARTS = 32
"""Cells per mean among which k-means++ picks the first means: a kind rarer than that may be passed over."""


def coreset(feat_ND: Matrix, label_N: NDArray[np.int64], size: int, seed: int) -> Rows:
    """Rows to keep, ascending: (M,), M <= ``size``; all rows where there are no more than that.

    Each label has its share of ``size`` (at least one row); unlabelled cells (-1) count as a label of
    their own. A mean without a cell (of many equal ones) keeps none, so M may fall short of ``size``.

    Raises FeatureError where labels and rows differ in number, or ``size`` is below the number of labels.
    """
    if len(feat_ND) != len(label_N):
        raise FeatureError(f"Each cell needs a label: {len(feat_ND)} cells, {len(label_N)} labels.")
    if len(feat_ND) <= size:
        return np.arange(len(feat_ND))
    kinds, counts = np.unique(label_N, return_counts=True)
    kept = []
    for kind, count in zip(kinds, shares(counts, size), strict=True):
        members = np.flatnonzero(label_N == kind)
        kept.append(members[medoids(np.ascontiguousarray(feat_ND[members]), int(count), seed)])
    return np.sort(np.concatenate(kept))


def shares(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """``size`` divided in proportion to ``counts``, one each at the least, the largest remainders first."""
    if size < len(counts):
        raise FeatureError(
            f"A bank of {size} cells has no room for {len(counts)} classes.", cure="Raise grafr.coreset."
        )
    exact = counts / counts.sum() * size
    whole = np.maximum(1, np.floor(exact).astype(np.int64))
    while whole.sum() < size:
        whole[np.argmax(exact - whole)] += 1
    while whole.sum() > size:  # a tiny class took its one from others' shares
        whole[np.argmax(np.where(whole > 1, whole - exact, -np.inf))] -= 1
    return np.asarray(whole)


def medoids(feat_ND: Matrix, count: int, seed: int) -> Rows:
    """Row nearest to each of ``count`` means (k-means++, then Lloyd's iterations; seeded), distinct."""
    if len(feat_ND) <= count:
        return np.arange(len(feat_ND))
    rng, width = np.random.default_rng(seed), feat_ND.shape[1]
    drawn = np.sort(rng.choice(len(feat_ND), min(len(feat_ND), STARTS * count), replace=False))
    draw = int(rng.integers(2**31))
    from sklearn.cluster import kmeans_plusplus  # slow to import

    first_MD, _ = kmeans_plusplus(feat_ND[drawn], count, random_state=draw, n_local_trials=1)
    kmeans = faiss.Kmeans(width, count, niter=ROUNDS, seed=draw, min_points_per_centroid=1)
    with by_products():
        kmeans.train(feat_ND, init_centroids=first_MD)
        away_N1, mean_N1 = kmeans.index.search(feat_ND, 1)
    order = np.lexsort((away_N1[:, 0], mean_N1[:, 0]))
    first = np.unique(mean_N1[order, 0], return_index=True)[1]
    return np.asarray(order[first])
