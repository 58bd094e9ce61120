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
BLOCK = np.uint64(32)
"""Training rows looked at together."""


@numba.njit(cache=True, nogil=True)
def _square(value: Any, other: Any, sign: Any) -> Any:
    """The squared gap, negated if ``sign`` is -1 (and not if 0): x ^ s - s needs no multiplication."""
    gap = np.int32(value - other)
    return np.int32((np.int32(gap * gap) ^ sign) - sign)


@numba.njit(cache=True, nogil=True)
def _first(target_T: Any, source_T: Any, query_QF: Any, train_FT: Any, sign_F: Any, i: Any, f: Any) -> None:
    """Distances of query ``i`` with the features ``f`` and ``f + 1`` more or less."""
    g = f + np.uint64(1)
    value1, s1, value2, s2 = query_QF[i, f], sign_F[f], query_QF[i, g], sign_F[g]
    for j in range(np.uint64(len(target_T))):
        change = np.int32(_square(value1, train_FT[f, j], s1) + _square(value2, train_FT[g, j], s2))
        target_T[j] = np.int32(source_T[j] + change)


@numba.njit(cache=True, nogil=True)
def _next(target_T: Any, query_QF: Any, train_FT: Any, sign_F: Any, i: Any, f: Any) -> None:
    """The same in place: a loop of its own, because compilers do not vectorise what may overlap."""
    g = f + np.uint64(1)
    value1, s1, value2, s2 = query_QF[i, f], sign_F[f], query_QF[i, g], sign_F[g]
    for j in range(np.uint64(len(target_T))):
        change = np.int32(_square(value1, train_FT[f, j], s1) + _square(value2, train_FT[g, j], s2))
        target_T[j] = np.int32(target_T[j] + change)


@numba.njit(cache=True, nogil=True)
def _least(distance_T: Any, fold_RT: Any, fold: Any, r: Any, at: Any, end: Any) -> Any:
    """The smallest distance to a row of another fold among the rows ``at`` to ``end``."""
    least = FAR
    for j in range(at, end):
        least = min(least, np.int32(distance_T[j] | (FAR if fold_RT[r, j] == fold else NEAR)))
    return least


@numba.njit(cache=True, nogil=True)
def _nearest(
    distance_T: Any, fold_RT: Any, fold: Any, bound: Any, near_RQK: Any, away_K: Any, r: Any, i: Any
) -> None:
    """The K nearest rows of other folds, by (distance, row), into ``near_RQK[r, i]``; -1 where fewer.

    ``bound`` is larger than the K-th smallest distance; the closer, the faster.
    """
    k, size = len(away_K), np.uint64(len(distance_T))
    for n in range(k):
        away_K[n], near_RQK[r, i, n] = bound, -1
    last = bound
    for at in range(np.uint64(0), size, BLOCK):
        end = min(size, at + BLOCK)
        if _least(distance_T, fold_RT, fold, r, at, end) >= last:
            continue
        for j in range(at, end):
            away = distance_T[j]
            if away < last and fold_RT[r, j] != fold:
                place = k - 1
                while place > 0 and away_K[place - 1] > away:
                    away_K[place], near_RQK[r, i, place] = away_K[place - 1], near_RQK[r, i, place - 1]
                    place -= 1
                away_K[place], near_RQK[r, i, place] = away, j
                last = away_K[k - 1]


@numba.njit(cache=True, nogil=True)
def _bound(distance_T: Any, near_RQK: Any, r: Any, i: Any) -> Any:
    """Just above the farthest of K known rows of other folds: the K nearest are within it."""
    bound = NEAR
    for n in range(near_RQK.shape[2]):
        if near_RQK[r, i, n] < 0:
            return FAR
        bound = max(bound, distance_T[near_RQK[r, i, n]])
    return np.int32(bound + 1)


@numba.njit(cache=True, nogil=True)
def _vote(near_RQK: Any, label_T: Any, count_C: Any, r: Any, i: Any) -> Any:
    """(Most frequent class among the neighbours, of equals the first; how many neighbours there are)."""
    for c in range(len(count_C)):
        count_C[c] = 0
    found = 0
    for n in range(near_RQK.shape[2]):
        if near_RQK[r, i, n] >= 0:
            count_C[label_T[near_RQK[r, i, n]]] += 1
            found += 1
    most = 0
    for c in range(1, len(count_C)):
        if count_C[c] > count_C[most]:
            most = c
    return most, found


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
    # Unsigned indices throughout: one that may be negative (from the end) is not vectorised. And no slices
    # but two per query: each is counted by reference, which costs more than the work on it.
    repeats, queries, k = near_RQK.shape
    away_K = np.empty(k, np.int32)
    count_C = np.zeros(classes, np.int64)
    for i in range(np.uint64(queries)):
        row_T = target_QT[i if keep else np.uint64(0)]
        source_T = source_QT[i if len(source_QT) > 1 else np.uint64(0)]
        for f in range(np.uint64(0), np.uint64(len(sign_F)), np.uint64(2)):
            if f == 0:
                _first(row_T, source_T, query_QF, train_FT, sign_F, i, f)
            else:
                _next(row_T, query_QF, train_FT, sign_F, i, f)
        if len(sign_F):
            source_T = row_T
        for r in range(np.uint64(repeats)):
            fold = fold_RQ[r, i]
            if fold >= 0:
                bound = _bound(source_T, hint_RQK, r, i)
                _nearest(source_T, fold_RT, fold, bound, near_RQK, away_K, r, i)
                called, found = _vote(near_RQK, label_T, count_C, r, i)
                called_RQ[r, i] = called
                votes_RQ[r, i] = count_C[truth_Q[i]] / max(1, found)
