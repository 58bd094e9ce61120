"""Where a population starts. P agents, D features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cotray.selection.transfer import Positions

SPARSEST, DENSEST = 2, 256
"""Fewest features of a ranked or sparse agent, and most (of wide data; else half of all features)."""

Scores = NDArray[np.float64] | None


def random_positions(score_D: Scores, agents: int, dim: int, rng: np.random.Generator) -> Positions:
    """Uniform, as in the paper: about half of all features are taken."""
    return rng.uniform(0, 1, (agents, dim))


def sparse_positions(score_D: Scores, agents: int, dim: int, rng: np.random.Generator) -> Positions:
    """Random features, but few: agent sizes rise geometrically."""
    return _by_rank(rng.permuted(np.tile(np.arange(dim), (agents, 1)), axis=1), rng)


def ranked_positions(score_D: Scores, agents: int, dim: int, rng: np.random.Generator) -> Positions:
    """The best-ranked features under a univariate score, as many as SelectKBest would try."""
    if score_D is None:
        return sparse_positions(None, agents, dim, rng)
    rank_D = np.empty(dim, np.int64)
    rank_D[np.argsort(-np.asarray(score_D, float), kind="stable")] = np.arange(dim)
    return _by_rank(np.tile(rank_D, (agents, 1)), rng)


def sizes(agents: int, dim: int) -> NDArray[np.int64]:
    """Features of each agent at the start: (P,), geometric from 2 to 256, or to half of narrow data."""
    most = min(DENSEST, max(SPARSEST, (dim + 1) // 2)) if dim > SPARSEST else dim
    return np.rint(np.geomspace(min(SPARSEST, dim), most, agents)).astype(np.int64)


def _by_rank(rank_PD: NDArray[np.int64], rng: np.random.Generator) -> Positions:
    """Coordinates of the first ``sizes`` ranks lie above 0.5, the others below."""
    taken_PD = rank_PD < sizes(*rank_PD.shape)[:, None]
    return rng.uniform(0.0, 0.4, rank_PD.shape) + np.where(taken_PD, 0.6, 0.0)


INITIAL: dict[str, Callable[[Scores, int, int, np.random.Generator], Positions]] = {
    "random": random_positions,
    "sparse": sparse_positions,
    "ranked": ranked_positions,
}
"""(scores, agents, features, generator) -> positions (P, D)."""
