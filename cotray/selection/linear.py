"""What linear classifiers share: exact sums over the training rows of every fold, and scores as answers.

Features are rounded to a binary grid, some millionths of a deviation fine: fine enough to change no answer,
and coarse enough that sums of products over the samples are exact in double precision, in any order. So it
makes no difference whether the sums of a fold are kept from before or made on the way, nor that they are
those of all rows minus those of the fold. The rest is done by one thread: a mask is worth the same whatever
was evaluated before and however many threads a worker has. (Machines of another make may differ in the
last bits.)

N samples, D features, S features of a mask, C classes, K targets (C; 1 for two classes), R repeats, P masks,
B parts (a fold of a repeat, left out), Z = S + K + 1 (features, targets, and a one for sums and counts).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs
from threadpoolctl import ThreadpoolController

from cotray.config import FitnessConfig
from cotray.selection.fitness import Codes, Fitness, Masks, Values
from cotray.selection.problem import Features, Problem

EXACT = 52
"""Bits of a whole number in double precision, less one for the rounding of the features."""
NOTHING = -2
"""A fold of no sample: nothing is left out."""
AT_ONCE = 16
AT_ONCE_BYTES = 256 * 2**20
"""Parts that are fitted together, and most memory for their sums."""


class Part(NamedTuple):
    """What is left out: a fold of a repeat."""

    repeat: int
    fold: int


@dataclass(frozen=True)
class Rest:
    """The n rows that a part leaves to learn from, as far as linear classifiers need them."""

    count: float
    mean_S: Values
    target_K: Values
    """Mean of the targets."""
    scatter_SS: Values | None = None
    """Sums of products of centred features; None where there are more features than samples."""
    cross_SK: Values | None = None
    """Sums of products of centred features and targets."""
    centred_Sn: Values | None = None
    """The centred features themselves, where there are more of them than samples."""

    @property
    def square(self) -> Values:
        """The smaller one of X X' (S, S) and X' X (n, n), X being the centred features (S, n)."""
        if self.centred_Sn is not None:
            return self.centred_Sn.T @ self.centred_Sn
        assert self.scatter_SS is not None
        return self.scatter_SS


class LinearFitness(Fitness):
    """A classifier that calls the class of the highest score; subclasses give the scores.

    Two classes are one target, -1 or 1, whose score is above 0 for the second class; of more classes each is
    a target.
    """

    def __init__(self, problem: Problem, cfg: FitnessConfig) -> None:
        super().__init__(problem, cfg)
        self.fold_RN = problem.fold_RN.copy()
        feat_ND = to_grid(problem.feat_ND, learned_rows(problem.fold_RN))
        self.feat_DN = np.ascontiguousarray(feat_ND.T, np.float32)
        names = np.arange(1, 2) if self.classes == 2 else np.arange(self.classes)
        self.target_KN = np.where(self.label_N == names[:, None], 1.0, -1.0)
        self.parts = self.all_parts()
        self._forget()

    def all_parts(self) -> list[Part]:
        """What is left out in turn."""
        return [
            Part(r, int(f)) for r, fold_N in enumerate(self.fold_RN) for f in np.unique(fold_N[fold_N >= 0])
        ]

    def errors(self, mask_PD: Masks) -> Values:
        """Error of each mask in each repeat: (P, R)."""
        asked_Q = np.arange(len(self.label_N))
        return np.stack([self.score(*self.answers(mask_D), asked_Q) for mask_D in mask_PD])

    def answers(self, mask_D: NDArray[np.bool_]) -> tuple[Codes, Values]:
        """Class called for each sample in each repeat, and share given to its true class: both (R, N).

        The class is -1 where a repeat does not ask the sample.
        """
        with _threads().limit(limits=1):
            score_RNK = self.scores(mask_D)
        share_RNK = self.shares(score_RNK)
        if self.classes == 2:
            called_RN = (score_RNK[..., 0] > 0).astype(np.int64)
            given_RN = np.where(self.label_N == 1, share_RNK[..., 0], 1 - share_RNK[..., 0])
        else:
            called_RN = score_RNK.argmax(axis=2)
            given_RN = np.take_along_axis(share_RNK, self.label_N[None, :, None], axis=2)[..., 0]
        return np.where(self.fold_RN >= 0, called_RN, -1), given_RN

    @abstractmethod
    def scores(self, mask_D: NDArray[np.bool_]) -> Values:
        """Score of each target, by what learned from the other folds: (R, N, K); 0 where not asked."""

    @abstractmethod
    def shares(self, score_RNK: Values) -> Values:
        """Scores as shares in [0, 1] of each target's class."""

    def place(self, score_BKN: Values, parts: Sequence[Part], score_RNK: Values) -> None:
        """Of each part's scores take those of the samples it leaves out; of all samples if it leaves none."""
        for score_KN, (repeat, fold) in zip(score_BKN, parts, strict=True):
            fold_N = self.fold_RN[repeat]
            rows = np.flatnonzero(fold_N >= 0 if fold == NOTHING else fold_N == fold)
            score_RNK[repeat, rows] = score_KN.take(rows, axis=1).T

    # -- sums over training rows: kept where they fit into `cache_mb` and are worth it ------------------

    def chunks(self, size: int) -> Iterator[slice]:
        """Parts to be fitted together to ``size`` features."""
        # Not by `cache_mb`: the shape of a product decides how it is rounded.
        each = 8 * size * min(size, len(self.label_N))
        most = int(np.clip(AT_ONCE_BYTES // max(1, each), 1, AT_ONCE))
        yield from (slice(b, b + most) for b in range(0, len(self.parts), most))

    def rest(self, mask_D: NDArray[np.bool_], feat_SN: Values, among: slice) -> list[Rest]:
        """What each of some parts leaves to learn from."""
        size = len(feat_SN)
        if size > feat_SN.shape[1]:
            return [self._wide(feat_SN, part) for part in self.parts[among]]
        found = []
        for sums_ZZ in self._raw(mask_D, feat_SN, among):
            count, sum_Z = max(1.0, float(sums_ZZ[-1, -1])), sums_ZZ[-1, :-1]
            mean_Z = sum_Z / count
            centred_SZ = sums_ZZ[:size, :-1] - sum_Z[:size, None] * mean_Z
            found.append(
                Rest(count, mean_Z[:size], mean_Z[size:], centred_SZ[:, :size], centred_SZ[:, size:])
            )
        return found

    def _wide(self, feat_SN: Values, part: Part) -> Rest:
        rows_N = self.fold_RN[part.repeat] != part.fold
        feat_Sn, target_Kn = feat_SN[:, rows_N], self.target_KN[:, rows_N]
        mean_S = feat_Sn.mean(axis=1)
        return Rest(float(rows_N.sum()), mean_S, target_Kn.mean(axis=1), centred_Sn=feat_Sn - mean_S[:, None])

    def _raw(self, mask_D: NDArray[np.bool_], feat_SN: Values, among: slice) -> Values:
        """Sums of products of features, targets and one: (B, Z, Z)."""
        # Keeping all sums costs as much as making those of D^2 pairs of features: pay when that is spent.
        self._spent += len(feat_SN) ** 2
        if self._kept_BZZ is None and self._fits and self._spent >= len(self.feat_DN) ** 2:
            self._kept_BZZ = self._sums(self.feat_DN.astype(np.float64), self.parts)
        if self._kept_BZZ is None:
            return self._sums(feat_SN, self.parts[among])
        taken = np.append(np.flatnonzero(mask_D), len(mask_D) + np.arange(len(self.target_KN) + 1))
        kept_BZZ: Values = self._kept_BZZ[among]
        return kept_BZZ[np.arange(len(kept_BZZ))[:, None, None], taken[:, None], taken]

    def _sums(self, feat_SN: Values, parts: Sequence[Part]) -> Values:
        table_ZN = np.concatenate([feat_SN, self.target_KN, np.ones((1, feat_SN.shape[1]))])
        sums_BZZ = np.empty((len(parts), len(table_ZN), len(table_ZN)))
        for repeat in sorted({part.repeat for part in parts}):
            mine = [b for b, part in enumerate(parts) if part.repeat == repeat]
            if len(mine) == 1:  # there may be rows that nobody learns from: they stay out of the sums
                rest_ZN = table_ZN[:, self.fold_RN[repeat] != parts[mine[0]].fold]
                sums_BZZ[mine[0]] = rest_ZN @ rest_ZN.T
                continue
            all_ZZ = table_ZN @ table_ZN.T
            for b in mine:
                own_ZN = table_ZN[:, self.fold_RN[repeat] == parts[b].fold]
                sums_BZZ[b] = all_ZZ - own_ZN @ own_ZN.T
        return sums_BZZ

    def _forget(self) -> None:
        side = len(self.feat_DN) + len(self.target_KN) + 1
        self._fits = (len(self.parts) + 1) * side**2 * 8 <= self.cfg.cache_mb * 2**20
        self._spent, self._kept_BZZ = 0, None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    _kept_BZZ: Values | None
    _spent: int


class Ridge:
    """(X X' + penalty I)^-1 of centred features X (S, n), by the smaller of X X' and X' X."""

    def __init__(self, rest: Rest, penalty: float) -> None:
        self.centred_Sn, square = rest.centred_Sn, rest.square
        side = len(square)
        # A penalty below the rounding of what it is added to is none.
        self.penalty = max(penalty, 16 * side * np.finfo(float).eps * float(np.trace(square)))
        self.factor, failed = dpotrf(square + self.penalty * np.eye(side), lower=1)
        if failed:
            raise np.linalg.LinAlgError(f"a penalty of {penalty} is too small")

    def __call__(self, right_SK: Values) -> Values:
        """The inverse times ``right_SK``: (S, K)."""
        if self.centred_Sn is None:
            return self.inner(right_SK)
        # Woodbury: (X X' + a)^-1 = (1 - X (X' X + a)^-1 X') / a
        return (right_SK - self.centred_Sn @ self.inner(self.centred_Sn.T @ right_SK)) / self.penalty

    def inner(self, right: Values) -> Values:
        """The inverse of the smaller matrix, plus the penalty, times ``right``."""
        return np.asarray(dpotrs(self.factor, right, lower=1)[0])


def learned_rows(fold_RN: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Rows that some fold of some repeat learns from: (N,)."""
    # With a single fold to ask, its rows are never learned from.
    used_RN = [(fold_N < 0) | (len(np.unique(fold_N[fold_N >= 0])) > 1) for fold_N in fold_RN]
    return np.asarray(np.any(used_RN, axis=0))


def to_grid(feat_ND: Features, learned_N: NDArray[np.bool_]) -> Features:
    """Features as multiples of a power of two, so that sums of products of the rows learned are exact."""
    most = np.square(feat_ND[learned_N], dtype=np.float64).sum(axis=0).max(initial=1.0)
    bits = int((EXACT - np.log2(max(most, len(feat_ND)))) // 2)
    return np.asarray(np.ldexp(np.rint(np.ldexp(feat_ND.astype(np.float64), bits)), -bits), np.float32)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
