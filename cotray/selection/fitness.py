"""What a mask is worth: w * error + (1 - w) * |S| / D, smaller is better.

The error is that of a classifier under group-disjoint folds of the training samples. An engine is a
picklable callable from masks (P, D) to values (P,), so that a loop, Ray actors or a GPU can drive it; a
mask's value depends on the mask alone.

N samples, D features, S features in a mask, P masks, R repeats, Q samples asked, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from cotray.config import FitnessConfig
from cotray.selection.problem import Problem

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]
Codes = NDArray[np.int64]


class Fitness(ABC):
    """Labels, folds and weighing; subclasses give the errors."""

    def __init__(self, problem: Problem, cfg: FitnessConfig) -> None:
        self.cfg, self.classes, self.width = cfg, problem.classes, problem.width
        self.label_N = problem.label_N
        self.answers_given = int(np.count_nonzero(problem.fold_RN[0] >= 0))
        """Samples that a repeat asks."""

    @abstractmethod
    def errors(self, mask_PD: Masks) -> Values:
        """Error of each mask in each repeat: (P, R)."""

    def __call__(self, mask_PD: Masks) -> Values:
        """Fitness of each mask: (P,) float64."""
        return self.weigh(mask_PD, self.errors(mask_PD).mean(axis=1))

    def weigh(self, mask_PD: Masks, error_P: Values) -> Values:
        """Fitness from errors and sizes."""
        share_P = np.count_nonzero(mask_PD, axis=1) / mask_PD.shape[1]
        return np.asarray(self.cfg.weight * error_P + (1 - self.cfg.weight) * share_P)

    def score(self, called_RQ: Codes, given_RQ: Values, asked_Q: Codes) -> Values:
        """Error of each repeat: (R,).

        ``called``: class called for each sample asked, -1 where a repeat does not ask it. ``given``: share
        (votes, probability) given to the true class.
        """
        truth_Q = self.label_N[asked_Q]
        soft = self.cfg.soft
        wrong_RQ = (1 - soft) * (called_RQ != truth_Q) + soft * (1 - given_RQ)
        return np.array([self._mean(truth_Q[a], w[a]) for w, a in zip(wrong_RQ, called_RQ >= 0, strict=True)])

    def _mean(self, truth_Q: Codes, wrong_Q: Values) -> float:
        """Mean error; with `balanced`, of the classes' mean errors.

        An imbalanced training split must not buy fitness by guessing.
        """
        if self.cfg.metric == "plain":
            return float(wrong_Q.mean())
        asked_C = np.bincount(truth_Q)
        wrong_C = np.bincount(truth_Q, wrong_Q)[asked_C > 0] / asked_C[asked_C > 0]
        return float(wrong_C.mean())
