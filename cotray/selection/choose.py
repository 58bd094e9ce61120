"""Which of the masks seen is reported, and how steady a selection is.

M searches on resampled data (members), P candidates, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cotray.selection.transfer import Masks

Values = NDArray[np.float64]


def one_se(mask_PD: Masks, fitness_P: Values, error_PR: Values, samples: int) -> int:
    """Index of the smallest mask whose error is within one standard error of the fittest one's.

    The standard error is that over repeats, or with a single one the binomial error of ``samples`` answers.
    """
    best = int(np.argmin(fitness_P))
    error, repeats = error_PR[best].mean(), error_PR.shape[1]
    spread = (
        error_PR[best].std(ddof=1) / np.sqrt(repeats)
        if repeats > 1
        else np.sqrt(error * (1 - error) / samples)
    )
    within = np.flatnonzero(error_PR.mean(axis=1) <= error + spread)
    size_P = np.count_nonzero(mask_PD, axis=1)
    return int(min(within, key=lambda p: (size_P[p], fitness_P[p])))


def consensus_candidates(mask_MD: Masks, score_D: Values) -> Masks:
    """Masks of the features chosen most often, 1 to 40 of them and then geometrically more: (P, D).

    Equally frequent features come by their univariate score.
    """
    share_D = frequency(mask_MD)
    order = np.lexsort((-score_D, -share_D))
    chosen = max(1, int(np.count_nonzero(share_D)))
    sizes = np.unique(np.r_[np.arange(1, 41), np.rint(np.geomspace(1, chosen, 40))].astype(int))
    sizes = sizes[sizes <= chosen]
    mask_PD = np.zeros((len(sizes), mask_MD.shape[1]), bool)
    for row, size in enumerate(sizes):
        mask_PD[row, order[:size]] = True
    return mask_PD


def frequency(mask_MD: Masks) -> Values:
    """Share of members that chose each feature: (D,)."""
    return np.asarray(mask_MD.mean(axis=0))


def jaccard(mask_MD: Masks) -> float:
    """Mean of |A and B| / |A or B| over pairs of members; 1 = always the same features."""
    one, other = np.triu_indices(len(mask_MD), 1)
    both = np.count_nonzero(mask_MD[one] & mask_MD[other], axis=1)
    either = np.count_nonzero(mask_MD[one] | mask_MD[other], axis=1)
    return float(np.mean(both / np.maximum(either, 1))) if len(one) else float("nan")


def stability(mask_MD: Masks) -> float:
    """Nogueira, Sechidis & Brown (2018), Eq. 4: 1 = always the same features, 0 = as by chance."""
    members, dim = mask_MD.shape
    share_D, kept = frequency(mask_MD), mask_MD.sum(axis=1).mean() / dim
    if members < 2 or kept in (0.0, 1.0):
        return float("nan")
    variance_D = members / (members - 1) * share_D * (1 - share_D)
    return float(1.0 - variance_D.mean() / (kept * (1 - kept)))


def halves(
    label_N: NDArray[np.int64], group_N: NDArray[np.generic], members: int, seed: int
) -> list[NDArray[np.int64]]:
    """Rows of a random half of each class' groups, for each member; at least two groups of each class."""
    rng = np.random.default_rng(seed)
    _, group = np.unique(group_N, return_inverse=True)
    found = []
    for _ in range(members):
        kept: set[int] = set()
        for c in np.unique(label_N):
            of = np.unique(group[label_N == c])
            kept |= set(rng.permutation(of)[: max(2, (len(of) + 1) // 2)].tolist())
        found.append(np.flatnonzero(np.isin(group, list(kept))))
    return found
