"""Which coordinates a few-bit step touches. D features, F touched ones.

The published algorithms move every coordinate at once; from a good mask of few features nearly every such
step adds a crowd of useless ones. Few-bit steps touch a handful: taken features, and others drawn by their
prior (their rank under a filter). They are better proposals, and cheap ones, because engines update
distances feature by feature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cotray.selection.transfer import Masks

HEAD = 10.0
"""Rank at which a feature's prior has fallen to half of the best one's."""
TRIES = 8

Indices = NDArray[np.int64]


class Prior:
    """How readily each feature is proposed: as 1 / (rank + 10) by score, or all alike without scores."""

    def __init__(self, score_D: NDArray[np.float64] | None, dim: int) -> None:
        rank_D = np.zeros(dim)
        if score_D is not None:
            rank_D[np.argsort(-np.asarray(score_D, float), kind="stable")] = np.arange(dim)
        self.weight_D = 1.0 / (rank_D + HEAD)
        self._sum_D = np.cumsum(self.weight_D)

    def draw(self, count: int, taken_D: Masks, rng: np.random.Generator) -> Indices:
        """Up to ``count`` different features that are not taken, by their weight."""
        found: list[int] = []
        for _ in range(TRIES):  # nearly always one try is enough: few features are taken
            sum_F = rng.uniform(0, self._sum_D[-1], count)
            drawn = np.minimum(np.searchsorted(self._sum_D, sum_F, side="right"), len(taken_D) - 1)
            found = list(dict.fromkeys([*found, *(int(i) for i in drawn if not taken_D[i])]))
            if len(found) >= count:
                return np.array(found[:count], np.int64)
        return self._exactly(count, taken_D, rng)

    def _exactly(self, count: int, taken_D: Masks, rng: np.random.Generator) -> Indices:
        """The same where most of the weight is taken."""
        free = np.flatnonzero(~taken_D)
        if not len(free):
            return free
        weight = self.weight_D[free]
        return rng.choice(free, min(count, len(free)), replace=False, p=weight / weight.sum())


def some(mask_D: Masks, count: int, rng: np.random.Generator) -> Indices:
    """Up to ``count`` different taken features, all alike."""
    taken = np.flatnonzero(mask_D)
    return rng.choice(taken, min(count, len(taken)), replace=False) if len(taken) else taken


def step(mask_D: Masks, count: int, prior: Prior, rng: np.random.Generator) -> Indices:
    """Features to flip: one in or one out with equal chance if ``count`` is 1, else as many in as out.

    The last feature is never taken out alone.
    """
    size = int(np.count_nonzero(mask_D))
    leave = rng.uniform() < 0.5
    outs = count // 2 if count > 1 else int(leave)
    ins = count - outs
    out = some(mask_D, outs if size > outs or ins else 0, rng)
    into = prior.draw(ins, mask_D, rng) if ins else out[:0]
    if len(out) >= size and not len(into):
        out = out[: max(0, size - 1)]
    return np.concatenate([out, into])
