"""Temperature scaling (Guo et al. 2017): one number that makes stated probabilities honest. N cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Vector = NDArray[np.float64]
LOG_RANGE = 3.0
"""Temperatures from exp(-3) to exp(3)."""
PRIOR = 0.5
"""Deviation of a normal prior on log T around 0: a few dozen perfectly separated validation cells would
otherwise drive T to its bound, and every probability to 0 or 1."""


def sigmoid(logit_N: Vector) -> Vector:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(expit(logit_N), np.float64)


def apply_temperature(logit_N: Vector, temperature: float) -> Vector:
    """Logits over the temperature."""
    return logit_N / temperature


def fit_temperature(logit_N: Vector, label_N: NDArray[np.int64]) -> float:
    """The temperature of greatest posterior on validation; 1.0 where a class is absent."""
    if len(np.unique(label_N)) < 2:
        return 1.0
    sign = np.where(label_N > 0, 1.0, -1.0)

    def cost(log_t: float) -> float:
        loss = np.logaddexp(0.0, -sign * logit_N / np.exp(log_t)).sum()
        return float(loss + 0.5 * (log_t / PRIOR) ** 2)

    from scipy.optimize import minimize_scalar  # slow to import

    best = minimize_scalar(cost, bounds=(-LOG_RANGE, LOG_RANGE), method="bounded")
    return float(np.exp(best.x))
