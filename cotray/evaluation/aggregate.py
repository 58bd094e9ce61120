"""From the probabilities of cells to the probability of the image they were cut from.

Shapes: M cells, N images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cotray.errors import DataError, UnknownNameError, nearest

Vector = NDArray[np.float64]
Index = NDArray[np.int64]


def aggregate_cells(prob_M: ArrayLike, image_index_M: ArrayLike, n_images: int, method: str) -> Vector:
    """(N,) float64 probability of each image; NaN for an image without a cell, which the caller reports.

    ``image_index_M[m]`` in [0, n_images) is the image of cell m; the order of cells does not matter.
    ``method``: ``noisy_or`` 1 - prod(1 - p), ``max``, ``mean``. With ``noisy_or`` and ``max`` an image
    grows more suspicious with every cell found; ``mean`` does not depend on how many there are.

    Raises UnknownNameError (method), DataError (lengths, index or probability out of range).
    """
    if method not in AGGREGATES:
        raise UnknownNameError(f"Unknown aggregate '{method}'.", cure=nearest(method, AGGREGATES))
    prob, index = np.asarray(prob_M, np.float64), np.asarray(image_index_M, np.int64)
    if prob.ndim != 1 or prob.shape != index.shape:
        raise DataError(f"Each cell needs one image, got {prob.shape} cells and {index.shape} images.")
    if len(index) and (index.min() < 0 or index.max() >= n_images):
        raise DataError(f"A cell belongs to an image outside 0..{n_images - 1}.")
    if not ((prob >= 0) & (prob <= 1)).all():
        raise DataError("Probabilities of cells must lie in [0, 1].")
    out = AGGREGATES[method](prob, index, n_images)
    out[np.bincount(index, minlength=n_images) == 0] = np.nan
    return out


def _noisy_or(prob: Vector, index: Index, n: int) -> Vector:
    healthy = np.ones(n)
    np.multiply.at(healthy, index, 1 - prob)
    return 1 - healthy


def _max(prob: Vector, index: Index, n: int) -> Vector:
    out = np.zeros(n)
    np.maximum.at(out, index, prob)
    return out


def _mean(prob: Vector, index: Index, n: int) -> Vector:
    total = np.bincount(index, weights=prob, minlength=n)
    return np.minimum(total / np.maximum(np.bincount(index, minlength=n), 1), 1.0)


AGGREGATES: dict[str, Callable[[Vector, Index, int], Vector]] = {
    "noisy_or": _noisy_or,
    "max": _max,
    "mean": _mean,
}
"""How cells become an image, by name."""
