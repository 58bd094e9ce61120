"""Logistic regression: the error of masks, fitted to all folds at once from a start that costs nothing.

Two classes: log-odds that are linear in the features; more classes: softmax of a linear score each. The
penalty is on the weights, not on the intercepts.

A fit begins at the frequencies of the classes. There the Hessian is that of least squares (scatter matrix,
as `ridge` has it), so that the first step is a ridge solution, and L-BFGS learns from step to step how the
true Hessian differs. Every mask starts the same way: its value depends on nothing seen before.

N samples, S features of a mask, K targets, R repeats, B parts left out, V = K (S + 1) variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from cotray.selection.fitness import Values
from cotray.selection.lbfgs import minimise
from cotray.selection.linear import LinearFitness, Rest, Ridge

TOLERANCE = 1e-5
"""Largest gradient of a sample's mean loss that counts as 0; scikit-learn's is 1e-4."""
STEPS = 100
FARTHEST = 500.0
"""Log-odds beyond which the exponential would overflow."""


class LogisticFitness(LinearFitness):
    """Agrees with scikit-learn's LogisticRegression(C=1 / fitness.ridge); shares are probabilities."""

    def shares(self, score_RNK: Values) -> Values:
        """Probabilities."""
        return np.asarray(expit(score_RNK) if score_RNK.shape[2] == 1 else softmax(score_RNK, axis=2))

    def scores(self, mask_D: NDArray[np.bool_]) -> Values:
        """Log-odds of the second class, or each class' score: (R, N, K); 0 where not asked."""
        feat_SN = self.feat_DN[mask_D].astype(np.float64)
        score_RNK = np.zeros((*self.fold_RN.shape, len(self.target_KN)))
        for among in self.chunks(len(feat_SN)):
            parts = self.parts[among]
            learned_BN = np.stack([self.fold_RN[part.repeat] != part.fold for part in parts])
            loss = (binary_loss if self.classes == 2 else softmax_loss)(self.target_KN * learned_BN[:, None])
            fits = Fits(feat_SN, loss, self.rest(mask_D, feat_SN, among), self.cfg.ridge)
            start_BV = fits.start_BKV.reshape(len(parts), -1)
            found_BV = minimise(fits, fits.precondition, start_BV, TOLERANCE * fits.count_B, STEPS)
            self.place(fits.scores(found_BV), parts, score_RNK)
        return score_RNK


class Fits:
    """Penalised losses of B fits as functions of their variables: weights of centred features, intercept."""

    def __init__(self, feat_SN: Values, loss: Loss, rests: Sequence[Rest], penalty: float) -> None:
        self.feat_SN, self.loss, self.penalty = feat_SN, loss, penalty
        self.mean_BS = np.stack([rest.mean_S for rest in rests])
        self.count_B = np.array([rest.count for rest in rests])
        share_BK = (np.stack([rest.target_K for rest in rests]) + 1) / 2
        # As if half a sample more were of each class: one that is absent has some probability at the start.
        count_B1, classes = self.count_B[:, None], max(2, share_BK.shape[1])
        share_BK = (share_BK * count_B1 + 0.5) / (count_B1 + 0.5 * classes)
        self.curve_BK = share_BK * (1 - share_BK)
        self.ridges = [
            [Ridge(rest, penalty / curve) for curve in curve_K]
            for rest, curve_K in zip(rests, self.curve_BK, strict=True)
        ]
        self.start_BKV = np.zeros((*share_BK.shape, len(feat_SN) + 1))
        binary = share_BK.shape[1] == 1
        self.start_BKV[..., -1] = np.log(share_BK / (1 - share_BK) if binary else share_BK)

    def scores(self, at_BV: Values) -> Values:
        """Scores of all samples: (B, K, N)."""
        at_BKV = at_BV.reshape(self.start_BKV.shape)
        weight_BKS = at_BKV[..., :-1]
        shift_BK = at_BKV[..., -1] - np.vecdot(weight_BKS, self.mean_BS[:, None])
        score_XN = weight_BKS.reshape(-1, len(self.feat_SN)) @ self.feat_SN
        return np.asarray(score_XN.reshape(*shift_BK.shape, -1) + shift_BK[..., None])

    def __call__(self, at_BV: Values) -> tuple[Values, Values]:
        """Losses (B,) and gradients (B, V)."""
        loss_B, wrong_BKN = self.loss(self.scores(at_BV))
        weight_BKS = at_BV.reshape(self.start_BKV.shape)[..., :-1]
        slope_BKV = np.empty_like(self.start_BKV)
        slope_BKV[..., -1] = wrong_BKN.sum(axis=2)
        data_XS = wrong_BKN.reshape(-1, wrong_BKN.shape[2]) @ self.feat_SN.T
        slope_BKV[..., :-1] = data_XS.reshape(weight_BKS.shape) + self.penalty * weight_BKS
        slope_BKV[..., :-1] -= slope_BKV[..., -1:] * self.mean_BS[:, None]
        size_B = np.square(weight_BKS).sum(axis=(1, 2))
        return loss_B + self.penalty / 2 * size_B, slope_BKV.reshape(len(at_BV), -1)

    def precondition(self, slope_BV: Values) -> Values:
        """The inverse Hessian at the start, target by target, times a gradient."""
        slope_BKV = slope_BV.reshape(self.start_BKV.shape)
        step_BKV = slope_BKV / self.curve_BK[..., None]
        step_BKV[..., -1] /= self.count_B[:, None]
        for b, ridges in enumerate(self.ridges):
            for k, ridge in enumerate(ridges):
                step_BKV[b, k, :-1] = ridge(step_BKV[b, k, :-1, None])[:, 0]
        return np.asarray(step_BKV.reshape(len(slope_BV), -1))


Loss = Callable[[Values], tuple[Values, Values]]
"""Scores (B, K, N) -> losses (B,), and their derivatives by the scores (B, K, N)."""


def binary_loss(code_BKN: Values) -> Loss:
    """Of log-odds; the code is -1 or 1, and 0 for samples that are not learned from."""
    unlearned_B = np.count_nonzero(code_BKN[:, 0] == 0, axis=1)

    def loss(score_BKN: Values) -> tuple[Values, Values]:
        small_BKN = np.exp(-np.maximum(code_BKN * score_BKN, -FARTHEST))
        sum_BKN = 1 + small_BKN
        loss_B = np.log(sum_BKN).sum(axis=(1, 2)) - unlearned_B * np.log(2)
        return loss_B, -code_BKN * small_BKN / sum_BKN

    return loss


def softmax_loss(code_BKN: Values) -> Loss:
    """Of a score for each class; the code is 1 for the true class, and 0 where not learned from."""
    truth_BKN = np.maximum(code_BKN, 0)
    learned_B1N = np.abs(code_BKN[:, :1])

    def loss(score_BKN: Values) -> tuple[Values, Values]:
        score_BKN = score_BKN - score_BKN.max(axis=1, keepdims=True)
        power_BKN = np.exp(score_BKN)
        sum_B1N = power_BKN.sum(axis=1, keepdims=True)
        own_B = (truth_BKN * score_BKN).sum(axis=(1, 2))
        loss_B = (learned_B1N * np.log(sum_B1N)).sum(axis=(1, 2)) - own_B
        return loss_B, learned_B1N * power_BKN / sum_B1N - truth_BKN

    return loss
