"""Whether synthetic cells differ from one another as real ones do. N real, M synthetic, K dimensions."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform

from cotray.synthesis.distances import Matrix


def variety_figures(real_NK: Matrix, synthetic_MK: Matrix, rng: np.random.Generator) -> dict[str, float]:
    """1 = as varied as real cells, near 0 = all alike.

    - ``diversity``: mean distance between synthetic cells over that between real cells.
    - ``variety``: effective number of unlike synthetic cells over that of as many real ones. Unlike
      ``diversity`` it also falls where a generator draws a few very different cells again and again.
    """
    size = min(len(real_NK), len(synthetic_MK))
    real, drawn = (x[rng.permutation(len(x))[:size]] for x in (real_NK, synthetic_MK))
    gaps_real, gaps_drawn = pdist(real), pdist(drawn)
    usual = float(np.median(gaps_real))
    scale = max(1e-12, usual)
    return {
        "diversity": float(gaps_drawn.mean() / max(1e-12, float(gaps_real.mean()))),
        "variety": effective_number(gaps_drawn, scale) / effective_number(gaps_real, scale),
    }


def effective_number(gaps: Matrix, scale: float) -> float:
    """How many unlike points there are, from 1 to their number (Vendi score, Friedman & Dieng 2023).

    ``gaps`` are pairwise distances (as :func:`scipy.spatial.distance.pdist` gives them), points further
    apart than ``scale`` being unlike: exp of the entropy of the similarity matrix' eigenvalues.
    """
    similar = np.exp(-((squareform(gaps) / (SHARPNESS * scale)) ** 2))
    share = np.linalg.eigvalsh(similar / len(similar)).clip(min=0)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


SHARPNESS = 0.5
"""Similarity is exp(-(distance / (this * scale))^2): 0.018 at the usual distance between real cells."""
