"""How far apart two sets of points are, whatever space they lie in. N, M points, K dimensions.

Small sets bias the Frechet distance upwards: compare equal sizes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

NEIGHBOURS = 3
"""A point's ball reaches to this neighbour (Kynkaanniemi et al. 2019)."""
Matrix = NDArray[np.float64]


def frechet(a_NK: Matrix, b_MK: Matrix) -> float:
    """Frechet distance between Gaussians fitted to both sets; 0 = alike."""
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a_NK, b_MK))
    # Trace of the product's root: the product of two covariances has eigenvalues of 0 or more, and unlike
    # a matrix root these are defined for sets that vary in few directions or in none (a collapsed GAN).
    values = np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)
    gap = a_NK.mean(axis=0) - b_MK.mean(axis=0)
    return float(max(0.0, gap @ gap + np.trace(cov_a + cov_b) - 2 * np.sqrt(values).sum()))


def kernel_distance(a_NK: Matrix, b_MK: Matrix) -> float:
    """Unbiased squared MMD with the kernel (x.y / K + 1)^3 (Binkowski et al. 2018); 0 = alike."""
    width = a_NK.shape[1]

    def kernel(x: Matrix, y: Matrix) -> Matrix:
        return np.asarray((x @ y.T / width + 1) ** 3)

    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a_NK, a_NK), kernel(b_MK, b_MK))
    ]
    return float(sum(within) - 2 * kernel(a_NK, b_MK).mean())


def covered(points_NK: Matrix, manifold_MK: Matrix) -> float:
    """Share of points inside some manifold point's ball, whose radius is its k-th neighbour's distance.

    Drawn points in the real manifold: precision. Real points in the drawn manifold: recall.
    """
    inside = cdist(manifold_MK, manifold_MK)
    radius_M = np.sort(inside, axis=1)[:, min(NEIGHBOURS, len(inside) - 1)]
    return float((cdist(points_NK, manifold_MK) <= radius_M).any(axis=1).mean())
