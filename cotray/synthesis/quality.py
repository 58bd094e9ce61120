"""How good synthetic cells are, and whether they copy real ones. N real, M synthetic, K descriptors.

Cells are compared as principal components of their pixels at DESCRIBED x DESCRIBED: simple, and blind to
fine texture. The components are those of both sets together: components of the real cells alone would fit
their chance differences too, and fresh cells would look nearer to them than they are. Small sets bias the
Frechet distance upwards: compare equal sizes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from cotray.imaging.resize import resize_square

DESCRIBED, COMPONENTS, NEIGHBOURS = 24, 32, 3
Matrix = NDArray[np.float64]


def cell_quality(
    real_NSS3: NDArray[np.uint8], synthetic_MSS3: NDArray[np.uint8], seed: int
) -> dict[str, float]:
    """Figures of synthetic cells against the real ones they were learned from (uint8 RGB, equal sides).

    - ``frechet``: Frechet distance of Gaussians; 0 = alike.
    - ``kernel``: unbiased squared kernel distance (polynomial, as KID); 0 = alike.
    - ``precision``, ``recall``: share of synthetic cells inside the real manifold and the reverse
      (Kynkaanniemi et al. 2019, k = 3).
    - ``nearest_ratio``: median distance of a synthetic cell to its nearest real one, over that of a real
      cell to its nearest other. Near or above 1 there is no sign of copying; near 0 cells are copies.

    Needs at least 5 of each; otherwise empty.
    """
    if min(len(real_NSS3), len(synthetic_MSS3)) < 5:
        return {}
    real, synthetic = _describe(real_NSS3, synthetic_MSS3, seed)
    across, inside = cdist(synthetic, real), cdist(real, real)
    np.fill_diagonal(inside, np.inf)
    return {
        "frechet": frechet(real, synthetic),
        "kernel": kernel_distance(real, synthetic),
        "precision": _covered(synthetic, real),
        "recall": _covered(real, synthetic),
        "nearest_ratio": float(
            np.median(across.min(axis=1)) / max(1e-12, float(np.median(inside.min(axis=1))))
        ),
    }


def _describe(
    real_NSS3: NDArray[np.uint8], synthetic_MSS3: NDArray[np.uint8], seed: int
) -> tuple[Matrix, Matrix]:
    flat = [
        resize_square(x, DESCRIBED).reshape(len(x), -1).astype(np.float64) / 255
        for x in (real_NSS3, synthetic_MSS3)
    ]
    both = np.concatenate(flat)
    components = min(COMPONENTS, *(len(x) - 1 for x in flat))
    pca = PCA(components, svd_solver="randomized", random_state=seed % 2**32).fit(both)
    real, synthetic = (pca.transform(x) for x in flat)
    spread = max(float(real.std(axis=0).mean()), 1 / 255)  # equal cells differ by no grey level at all
    return real / spread, synthetic / spread


def frechet(a_NK: Matrix, b_MK: Matrix) -> float:
    """Frechet distance between Gaussians fitted to both sets."""
    cov_a, cov_b = np.cov(a_NK, rowvar=False), np.cov(b_MK, rowvar=False)
    # Trace of the product's root: the product of two covariances has eigenvalues of 0 or more, and unlike
    # a matrix root these are defined for sets that vary in few directions or in none (a collapsed GAN).
    values = np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)
    gap = a_NK.mean(axis=0) - b_MK.mean(axis=0)
    return float(max(0.0, gap @ gap + np.trace(cov_a + cov_b) - 2 * np.sqrt(values).sum()))


def kernel_distance(a_NK: Matrix, b_MK: Matrix) -> float:
    """Unbiased squared MMD with the kernel (x.y / K + 1)^3 (Binkowski et al. 2018)."""
    width = a_NK.shape[1]

    def kernel(x: Matrix, y: Matrix) -> Matrix:
        return np.asarray((x @ y.T / width + 1) ** 3)

    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a_NK, a_NK), kernel(b_MK, b_MK))
    ]
    return float(sum(within) - 2 * kernel(a_NK, b_MK).mean())


def _covered(points_NK: Matrix, manifold_MK: Matrix) -> float:
    """Share of points inside some manifold point's ball, whose radius is its k-th neighbour's distance."""
    inside = cdist(manifold_MK, manifold_MK)
    radius_M = np.sort(inside, axis=1)[:, min(NEIGHBOURS, len(inside) - 1)]
    return float((cdist(points_NK, manifold_MK) <= radius_M).any(axis=1).mean())
