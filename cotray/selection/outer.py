"""The outer hold-out: groups set aside before a search looks at anything. N samples, G groups, C classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cotray.errors import TooFewGroupsError

KEPT = 2
"""Groups of each class that a search needs for itself: one to learn from and one to ask."""


def set_aside(
    label_N: NDArray[np.generic], group_N: NDArray[np.generic], share: float, seed: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Whole groups, drawn by the seed, that hold about ``share`` of each class: (N,) bool; and notes.

    Groups come in random order; one is set aside if that brings the hold-out closer to its share of every
    class, and leaves two groups of each of its classes. A class of few or large groups may therefore have
    less, or nothing, which a note says. Raises TooFewGroupsError where nothing can be set aside.
    """
    if not share:
        return np.zeros(len(label_N), bool), ["no hold-out (select.outer=0): no figure is an honest one"]
    classes, label = np.unique(label_N, return_inverse=True)
    groups, group = np.unique(group_N, return_inverse=True)
    count_GC = np.zeros((len(groups), len(classes)))
    np.add.at(count_GC, (group, label), 1)
    taken_G = _draw(count_GC, share, np.random.default_rng(seed))
    if not taken_G.any():
        fewest = (count_GC > 0).sum(axis=0)
        raise TooFewGroupsError(
            f"No group can be set aside to judge what is found: the classes have {fewest.min()} to "
            f"{fewest.max()} groups, of which {KEPT} are needed for the search.",
            cure="Give more groups, or --set select.outer=0 and have no honest figure.",
        )
    absent = [f"'{c}'" for c, n in zip(classes, count_GC[taken_G].sum(axis=0), strict=True) if not n]
    few = f"too few groups to set one aside of class {', '.join(absent[:5])}: the hold-out lacks it"
    return np.asarray(taken_G[group]), [few] if absent else []


def _draw(count_GC: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    total_C = count_GC.sum(axis=0)
    left_C = (count_GC > 0).sum(axis=0)
    lack_C = np.full(len(total_C), share)
    taken_G = np.zeros(len(count_GC), bool)
    for g in rng.permutation(len(count_GC)):
        gives_C = count_GC[g] / total_C
        in_it = gives_C > 0
        closer = ((lack_C - gives_C) ** 2).sum() < (lack_C**2).sum()
        if closer and (left_C[in_it] > KEPT).all():
            taken_G[g] = True
            lack_C -= gives_C
            left_C -= in_it
    return taken_G
