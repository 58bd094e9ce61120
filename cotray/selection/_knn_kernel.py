"""Compiled loops of the k-nearest-neighbour engine: distances moved by a few features, and their votes.

All arithmetic is on integers and therefore exact: the same distances come out whatever the order of the
updates, the machine or the number of workers. Q queries, T training rows, F changed features (an even
number), R repeats (ways of folding), K neighbours, C classes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

FAR = np.int32(np.iinfo(np.int32).max)
"""Larger than any distance: engines scale their data so that every sum stays below."""
NEAR = np.int32(0)
BLOCK = 32
"""Training rows looked at together."""


@numba.njit(cache=True, nogil=True)
def _square(value: Any, other: Any, sign: Any) -> Any:
    """The squared gap, negated if ``sign`` is -1 (and not if 0): x ^ s - s needs no multiplication."""
    gap = np.int32(value - other)
    return np.int32((np.int32(gap * gap) ^ sign) - sign)


@numba.njit(cache=True, nogil=True)
def _first(
    target_T: Any, source_T: Any, value1: Any, row1_T: Any, s1: Any, value2: Any, row2_T: Any, s2: Any
) -> None:
    """Distances of one query with two features more or less."""
    for j in range(len(target_T)):
        change = np.int32(_square(value1, row1_T[j], s1) + _square(value2, row2_T[j], s2))
        target_T[j] = np.int32(source_T[j] + change)


@numba.njit(cache=True, nogil=True)
def _next(target_T: Any, value1: Any, row1_T: Any, s1: Any, value2: Any, row2_T: Any, s2: Any) -> None:
    """The same in place: a loop of its own, because compilers do not vectorise what may overlap."""
    for j in range(len(target_T)):
        change = np.int32(_square(value1, row1_T[j], s1) + _square(value2, row2_T[j], s2))
        target_T[j] = np.int32(target_T[j] + change)


@numba.njit(cache=True, nogil=True)
def _least(distance_T: Any, fold_T: Any, fold: Any) -> Any:
    """The smallest distance to a row of another fold."""
    least = FAR
    for j in range(len(distance_T)):
        least = min(least, np.int32(distance_T[j] | (FAR if fold_T[j] == fold else NEAR)))
    return least


@numba.njit(cache=True, nogil=True)
def _nearest(distance_T: Any, fold_T: Any, fold: Any, bound: Any, near_K: Any, away_K: Any) -> None:
    """The K nearest rows of other folds, by (distance, row), into ``near_K``; -1 where there are fewer.

    ``bound`` is larger than the K-th smallest distance; the closer, the faster.
    """
    k, size = len(near_K), len(distance_T)
    away_K[:] = bound
    near_K[:] = -1
    for at in range(0, size, BLOCK):
        end = min(size, at + BLOCK)
        if _least(distance_T[at:end], fold_T[at:end], fold) >= away_K[k - 1]:
            continue
        for j in range(at, end):
            away = distance_T[j]
            if away < away_K[k - 1] and fold_T[j] != fold:
                place = k - 1
                while place > 0 and away_K[place - 1] > away:
                    away_K[place], near_K[place] = away_K[place - 1], near_K[place - 1]
                    place -= 1
                away_K[place], near_K[place] = away, j


@numba.njit(cache=True, nogil=True)
def _bound(distance_T: Any, near_K: Any) -> Any:
    """Just above the farthest of K known rows of other folds: the K nearest are within it."""
    bound = NEAR
    for near in near_K:
        if near < 0:
            return FAR
        bound = max(bound, distance_T[near])
    return np.int32(bound + 1)


@numba.njit(cache=True, nogil=True)
def _vote(near_K: Any, label_T: Any, count_C: Any) -> Any:
    """The most frequent class among the neighbours; of equals the first."""
    count_C[:] = 0
    for near in near_K:
        if near >= 0:
            count_C[label_T[near]] += 1
    return np.argmax(count_C)


@numba.njit(cache=True, nogil=True)
def evaluate(
    source_QT: Any,
    target_QT: Any,
    keep: bool,
    query_QF: Any,
    train_FT: Any,
    sign_F: Any,
    fold_RQ: Any,
    fold_RT: Any,
    label_T: Any,
    hint_RQK: Any,
    near_RQK: Any,
    called_RQ: Any,
    votes_RQ: Any,
    truth_Q: Any,
    classes: int,
) -> None:
    """Move distances by F features, and let the K nearest rows of other folds vote.

    ``source_QT`` of one row is that of every query. ``keep``: write the distances to ``target_QT``, else
    its first row is scratch. ``hint_RQK``: neighbours before the move, which bound the search; -1 where
    unknown. Fills ``near_RQK`` (neighbours), ``called_RQ`` (class called) and ``votes_RQ`` (share of the
    votes for the true class). Queries of fold -1 are not asked.
    """
    repeats, queries, k = near_RQK.shape
    away_K = np.empty(k, np.int32)
    count_C = np.zeros(classes, np.int64)
    for i in range(queries):
        row_T, source_T = target_QT[i if keep else 0], source_QT[min(i, len(source_QT) - 1)]
        value_F = query_QF[i]
        for f in range(0, len(sign_F), 2):
            g = f + 1
            if f == 0:
                _first(
                    row_T, source_T, value_F[f], train_FT[f], sign_F[f], value_F[g], train_FT[g], sign_F[g]
                )
            else:
                _next(row_T, value_F[f], train_FT[f], sign_F[f], value_F[g], train_FT[g], sign_F[g])
        if len(sign_F):
            source_T = row_T
        for r in range(repeats):
            fold = fold_RQ[r, i]
            if fold >= 0:
                bound = _bound(source_T, hint_RQK[r, i])
                _nearest(source_T, fold_RT[r], fold, bound, near_RQK[r, i], away_K)
                called_RQ[r, i] = _vote(near_RQK[r, i], label_T, count_C)
                votes_RQ[r, i] = count_C[truth_Q[i]] / max(1, count_C.sum())
