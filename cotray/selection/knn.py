"""Exact k-nearest-neighbour error of masks, incremental where a mask differs little from one seen.

Features are rounded to whole numbers, so that squared distances are sums of integers: adding and taking
away features is exact for ever (no drift, nothing to re-anchor), in any order, on any machine. A mask is
worth the same whoever evaluates it and whatever was evaluated before.

Ties: of equally distant neighbours the one of the lower row comes first; of equally frequent classes the
lower code. Q queries, T training rows, D features, S features of a mask, F changed ones, R repeats,
K neighbours, P masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import FitnessConfig
from cotray.selection import _knn_kernel as kernel
from cotray.selection.fitness import Codes, Fitness, Values
from cotray.selection.problem import Problem
from cotray.selection.transfer import Masks

Ints = NDArray[np.int32]
LARGE = 48
"""Features from which one matrix product is faster than adding them two by two."""
CLOSE = 6
"""Changes that are made on the way, without keeping the new distances."""


@dataclass
class _Anchor:
    """Distances under one mask, and the nearest rows found there."""

    mask_D: Masks
    distance_QT: Ints
    near_RQK: Ints
    used: int = 0


class KnnFitness(Fitness):
    """Majority vote of the k nearest samples of other folds."""

    def __init__(self, problem: Problem, cfg: FitnessConfig) -> None:
        super().__init__(problem, cfg)
        fold_RN = problem.fold_RN
        asked_N = np.asarray((fold_RN >= 0).any(axis=0))
        # With a single hold-out some rows are only asked and the others only learned from: a smaller table.
        once = len(fold_RN) == 1 and not asked_N.all() and len(np.unique(fold_RN[:, asked_N])) == 1
        self.query_Q = np.flatnonzero(asked_N)
        train = np.flatnonzero(~asked_N) if once else np.arange(len(asked_N))
        self.resolution = resolution(problem.feat_ND)
        grid_DN = np.rint(problem.feat_ND.T * np.float64(self.resolution)).astype(np.int32)
        self.query_DQ, self.train_DT = grid_DN[:, self.query_Q], grid_DN[:, train]
        self.fold_RQ, self.fold_RT = fold_RN[:, self.query_Q].copy(), fold_RN[:, train].copy()
        self.label_T = problem.label_N[train]
        self._forget()

    def errors(self, mask_PD: Masks) -> Values:
        """Error of each mask in each repeat: (P, R)."""
        return np.stack([self.score(*self.answers(mask_D), self.query_Q) for mask_D in mask_PD])

    def answers(self, mask_D: Masks) -> tuple[Codes, Values]:
        """Class called for each query in each repeat, and share of votes for its true class: both (R, Q).

        The class is -1 where a repeat does not ask the query.
        """
        source = self._closest(mask_D)
        changed = np.flatnonzero(source.mask_D ^ mask_D)
        if len(changed) > LARGE:
            source = _Anchor(mask_D.copy(), self._product(mask_D), self._unknown_RQK.copy())
            changed = changed[:0]
            self._keep(source)
        keep = len(changed) > CLOSE and self._most > 0
        target = self._place(source) if keep else self._scratch
        answers = self._run(source, target, keep, mask_D, changed)
        if keep:
            target.mask_D = mask_D.copy()
            self._keep(target)
        return answers

    def _run(
        self, source: _Anchor, target: _Anchor, keep: bool, mask_D: Masks, changed: Codes
    ) -> tuple[Codes, Values]:
        """Go from the source's distances to the mask's, into ``target``."""
        even = np.append(changed, changed[:1]) if len(changed) % 2 else changed
        query_QF = np.ascontiguousarray(self.query_DQ[even].T)
        train_FT = self.train_DT[even]
        if len(even) > len(changed):  # the one that makes the number even changes nothing
            query_QF[:, -1], train_FT[-1] = 0, 0
        sign_F = np.where(mask_D[even], 0, -1).astype(np.int32)
        called_RQ, votes_RQ = np.full(self.fold_RQ.shape, -1, np.int64), np.zeros(self.fold_RQ.shape)
        kernel.evaluate(
            *(source.distance_QT, target.distance_QT, keep, query_QF, train_FT, sign_F),
            *(self.fold_RQ, self.fold_RT, self.label_T, source.near_RQK, target.near_RQK),
            *(called_RQ, votes_RQ, self.label_N[self.query_Q], self.classes),
        )
        return called_RQ, votes_RQ

    def _product(self, mask_D: Masks) -> Ints:
        """All distances at once. Whole numbers below 2^53: double precision is exact."""
        query_SQ, train_ST = (
            self.query_DQ[mask_D].astype(np.float64),
            self.train_DT[mask_D].astype(np.float64),
        )
        distance_QT = query_SQ.T @ train_ST
        distance_QT *= -2.0
        distance_QT += np.einsum("sq,sq->q", query_SQ, query_SQ)[:, None]
        distance_QT += np.einsum("st,st->t", train_ST, train_ST)[None]
        return distance_QT.astype(np.int32)

    # -- distances kept for later masks: they save time and decide nothing -----------------------------

    def _forget(self) -> None:
        queries, rows = len(self.query_Q), len(self.label_T)
        self._anchors: list[_Anchor] = []
        self._seen_AD, self._stale, self._clock = np.zeros((0, len(self.query_DQ)), bool), True, 0
        self._most = min(64, int(self.cfg.cache_mb * 2**20 // (4 * queries * rows)))
        self._unknown_RQK = np.full((len(self.fold_RQ), queries, self.cfg.k), -1, np.int32)
        one_1T = np.zeros((1, rows), np.int32)
        self._nothing = _Anchor(np.zeros(len(self.query_DQ), bool), one_1T, self._unknown_RQK)
        self._scratch = _Anchor(self._nothing.mask_D, one_1T.copy(), self._unknown_RQK.copy())

    def _closest(self, mask_D: Masks) -> _Anchor:
        """The kept mask that differs least, or none at all if starting from nothing takes fewer changes."""
        if not self._anchors:
            return self._nothing
        self._seen_AD = np.stack([a.mask_D for a in self._anchors]) if self._stale else self._seen_AD
        self._stale = False
        away_A = np.count_nonzero(self._seen_AD ^ mask_D, axis=1)
        closest = int(np.argmin(away_A))
        if away_A[closest] >= np.count_nonzero(mask_D):
            return self._nothing
        self._clock += 1
        self._anchors[closest].used = self._clock
        return self._anchors[closest]

    def _place(self, source: _Anchor) -> _Anchor:
        """Room for new distances: new, or that of the anchor that was unused for longest."""
        if len(self._anchors) < self._most:
            shape = (len(self.query_Q), len(self.label_T))
            return _Anchor(source.mask_D, np.empty(shape, np.int32), self._unknown_RQK.copy())
        self._stale = True
        return self._anchors.pop(min(range(self._most), key=lambda a: self._anchors[a].used))

    def _keep(self, anchor: _Anchor) -> None:
        if not self._most:
            return
        while len(self._anchors) >= self._most:
            self._place(anchor)
        self._clock, self._stale = self._clock + 1, True
        anchor.used = self._clock
        self._anchors.append(anchor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


def resolution(feat_ND: NDArray[np.float32]) -> int:
    """Steps per standard deviation, as many as leave every squared distance within 32 bits."""
    span_D = np.ptp(feat_ND.astype(np.float64), axis=0)
    # Rounding moves each end of a span by half a step: (s * span + 1)^2 summed must stay below the limit.
    square, twice, ones = (span_D**2).sum(), 2 * span_D.sum(), float(len(span_D))
    limit = float(kernel.FAR) - 1.0
    if not square:
        return 1
    steps = (-twice + np.sqrt(twice**2 + 4 * square * max(0.0, limit - ones))) / (2 * square)
    return max(1, int(steps))
