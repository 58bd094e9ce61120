"""How good synthetic cells are, in a named space of features. N real, M synthetic, K dimensions, S side.

Every figure bears its space's name, because figures of two spaces do not compare:

- ``pixels_pca``: principal components of the pixels at DESCRIBED x DESCRIBED. Needs no model; blind to fine
  texture.
- ``backbone``: principal components of the backbone's features (standardised), once it is trained. It was
  trained on the synthetic cells too, so look for what separates them rather than for what joins them.

The components are those of both sets together: components of the real cells alone would fit their chance
differences too, and fresh cells would look nearer to them than they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cotray.imaging.resize import resize_square
from cotray.synthesis.copying import Nearest, copy_figures, nearest
from cotray.synthesis.distances import Matrix, covered, frechet, kernel_distance
from cotray.synthesis.variety import variety_figures

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

PIXELS, BACKBONE = "pixels_pca", "backbone"
DESCRIBED, COMPONENTS = 24, 32
FEWEST = 5
"""Fewer cells than this on either side say nothing."""
MOST = 2000
"""Cells of a set that distances between sets are taken over; copies are looked for among all."""
Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Points:
    """Real and synthetic cells as points of one space."""

    space: str
    real_NK: Matrix
    synthetic_MK: Matrix
    mirrored_NK: Matrix | None = None
    """The real cells turned left to right."""

    def nearest(self) -> Nearest:
        """Distances to the nearest training cells."""
        return nearest(self.real_NK, self.synthetic_MK, self.mirrored_NK)


def pixel_points(real_NSS3: Rgb, synthetic_MSS3: Rgb, seed: int) -> Points:
    """Cells (uint8 RGB) as points of ``pixels_pca``."""
    flat = [
        resize_square(np.ascontiguousarray(x), DESCRIBED).reshape(len(x), -1) / 255.0
        for x in (real_NSS3, synthetic_MSS3, real_NSS3[:, :, ::-1])
    ]
    pca = _components(flat[0], flat[1], seed)
    real, synthetic, mirrored = (pca.transform(x) for x in flat)
    spread = _spread(real, 1 / 255)  # equal cells differ by no grey level at all
    return Points(PIXELS, real / spread, synthetic / spread, mirrored / spread)


def feature_points(real_ND: NDArray[np.float32], synthetic_MD: NDArray[np.float32], seed: int) -> Points:
    """Cells' backbone features as points of ``backbone``: each feature with mean 0 and deviation 1."""
    both = np.concatenate([real_ND, synthetic_MD]).astype(np.float64)
    flat = [(x - both.mean(axis=0)) / (both.std(axis=0) + 1e-6) for x in (real_ND, synthetic_MD)]
    pca = _components(flat[0], flat[1], seed)
    real, synthetic = (pca.transform(x) for x in flat)
    spread = _spread(real, 1e-6)
    return Points(BACKBONE, real / spread, synthetic / spread)


def _components(real: Matrix, synthetic: Matrix, seed: int) -> PCA:
    from sklearn.decomposition import PCA  # slow to import

    both = np.concatenate([real, synthetic])
    count = min(COMPONENTS, len(real) - 1, len(synthetic) - 1, both.shape[1])
    return PCA(count, svd_solver="randomized", random_state=seed % 2**32).fit(both)


def _spread(real_NK: Matrix, least: float) -> float:
    return max(float(real_NK.std(axis=0).mean()), least)


def enough(real: int, synthetic: int) -> bool:
    """Whether there are cells enough to say anything."""
    return min(real, synthetic) >= FEWEST


def quality(points: Points, seed: int) -> dict[str, float]:
    """All figures, each named SPACE_FIGURE.

    - ``frechet``: Frechet distance of Gaussians; 0 = alike.
    - ``kernel``: unbiased squared kernel distance (polynomial, as KID); 0 = alike.
    - ``precision``, ``recall``: share of synthetic cells inside the real manifold and the reverse (k = 3).
    - of copies: see :func:`cotray.synthesis.copying.copy_figures`.
    - of collapse: see :func:`cotray.synthesis.variety.variety_figures`.
    """
    rng = np.random.default_rng(seed)
    real, drawn = (x[rng.permutation(len(x))[:MOST]] for x in (points.real_NK, points.synthetic_MK))
    figures = {
        "frechet": frechet(real, drawn),
        "kernel": kernel_distance(real, drawn),
        "precision": covered(drawn, real),
        "recall": covered(real, drawn),
        **copy_figures(points.nearest()),
        **variety_figures(real, drawn, rng),
    }
    return {f"{points.space}_{name}": value for name, value in figures.items()}


def cell_quality(real_NSS3: Rgb, synthetic_MSS3: Rgb, seed: int) -> dict[str, float]:
    """:func:`quality` of cells (uint8 RGB, equal sides) by their pixels; empty where there are too few."""
    if not enough(len(real_NSS3), len(synthetic_MSS3)):
        return {}
    return quality(pixel_points(real_NSS3, synthetic_MSS3, seed), seed)
