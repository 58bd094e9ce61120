"""Ridge classifier: the error of masks in closed form.

Least squares on classes coded -1 and 1, with a penalty on the weights and none on the intercept (Hoerl &
Kennard 1970): w = (X X' + a I)^-1 X y, with X and y centred on the training rows. Where a mask has more
features than there are samples, the same weights come from the kernel: w = X (X' X + a I)^-1 y.

Where many groups are left out in turn, one fit answers for all: leaving out group G turns its residuals e
into (I - H_GG)^-1 e, H being the hat matrix of the fit to all (Cook & Weisberg 1982). That is exact: the fit
without G is the fit to all with G's targets replaced by what it says of them.

N samples, S features of a mask, K targets, R repeats, B parts left out; m groups of g samples each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from cotray.selection.fitness import Values
from cotray.selection.linear import NOTHING, LinearFitness, Part, Rest, Ridge

MANY = 20
"""Folds above which one fit to all samples is faster than one to the rest of each fold."""


class RidgeFitness(LinearFitness):
    """Agrees with scikit-learn's RidgeClassifier(alpha=fitness.ridge).

    A score of -1 to 1 becomes a share of 0 to 1, (1 + score) / 2: the class' probability as least squares
    estimate it, clipped.
    """

    def all_parts(self) -> list[Part]:
        """A repeat of many folds is one part: nothing is left out, and the hat matrix does the rest."""
        parts = super().all_parts()
        many_R = np.bincount([part.repeat for part in parts]) > MANY
        few = [part for part in parts if not many_R[part.repeat]]
        return few + [Part(int(r), NOTHING) for r in np.flatnonzero(many_R)]

    def shares(self, score_RNK: Values) -> Values:
        """Estimated probabilities, clipped."""
        return np.clip((1 + score_RNK) / 2, 0, 1)

    def scores(self, mask_D: NDArray[np.bool_]) -> Values:
        """Score of each target: (R, N, K); 0 where not asked."""
        feat_SN = self.feat_DN[mask_D].astype(np.float64)
        score_RNK = np.zeros((*self.fold_RN.shape, len(self.target_KN)))
        for among in self.chunks(len(feat_SN)):
            parts, rests = self.parts[among], self.rest(mask_D, feat_SN, among)
            ridges = [Ridge(rest, self.cfg.ridge) for rest in rests]
            fits = map(self._weights, parts, rests, ridges)
            weight_BKS = np.stack([weight_SK.T for weight_SK in fits])
            score_BKN = np.matmul(weight_BKS.reshape(-1, len(feat_SN)), feat_SN).reshape(
                *weight_BKS.shape[:2], -1
            )
            for b, (part, rest) in enumerate(zip(parts, rests, strict=True)):
                score_BKN[b] += (rest.target_K - weight_BKS[b] @ rest.mean_S)[:, None]
                if part.fold == NOTHING:
                    self._leave_each(part.repeat, rest, ridges[b], feat_SN, score_BKN[b])
            self.place(score_BKN, parts, score_RNK)
        return score_RNK

    def _weights(self, part: Part, rest: Rest, ridge: Ridge) -> Values:
        if rest.cross_SK is not None:
            return ridge(rest.cross_SK)
        assert rest.centred_Sn is not None
        target_Kn = self.target_KN[:, self.fold_RN[part.repeat] != part.fold] - rest.target_K[:, None]
        return rest.centred_Sn @ ridge.inner(target_Kn.T)

    def _leave_each(self, repeat: int, rest: Rest, ridge: Ridge, feat_SN: Values, score_KN: Values) -> None:
        """From scores of a fit to all, to those of fits without each fold in turn, in place."""
        residual_NK = (self.target_KN - score_KN).T
        blocks = unexplained(rest, ridge, feat_SN - rest.mean_S[:, None])
        for rows_mg in same_size(self.fold_RN[repeat]):
            left_mgK = np.linalg.solve(blocks(rows_mg), residual_NK[rows_mg])
            score_KN[:, rows_mg] = self.target_KN[:, rows_mg] - left_mgK.transpose(2, 0, 1)


Groups = NDArray[np.int64]


def unexplained(rest: Rest, ridge: Ridge, centred_SN: Values) -> Callable[[Groups], Values]:
    """I - H of a fit to all samples, by its blocks: rows of groups (m, g) -> (m, g, g)."""
    if rest.centred_Sn is not None:  # a (X' X + a)^-1 - 1/n
        all_NN = ridge.penalty * ridge.inner(np.eye(centred_SN.shape[1])) - 1 / rest.count
        return lambda rows_mg: all_NN[rows_mg[:, :, None], rows_mg[:, None]]
    half_NS = solve_triangular(ridge.factor, centred_SN, lower=True).T

    def blocks(rows_mg: Groups) -> Values:
        half_mgS = half_NS[rows_mg]
        own_gg = np.eye(rows_mg.shape[1]) - 1 / rest.count
        return np.asarray(own_gg - half_mgS @ half_mgS.transpose(0, 2, 1))

    return blocks


def same_size(fold_N: NDArray[np.int32]) -> list[Groups]:
    """Rows of all folds of one size, for each size that there is: (m, g)."""
    asked = np.flatnonzero(fold_N >= 0)
    rows = asked[np.argsort(fold_N[asked], kind="stable")]
    of_fold = np.split(rows, np.flatnonzero(np.diff(fold_N[rows])) + 1)
    sizes = sorted({len(fold) for fold in of_fold})
    return [np.stack([fold for fold in of_fold if len(fold) == size]) for size in sizes]
