"""Bootstrap intervals over groups (subjects, or blocks of near-duplicates): images of one patient are no
independent evidence, so whole groups are drawn, never single images.

Shapes: N images, G groups, R resamples, K distinct probabilities, B calibration bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cotray.errors import DataError
from cotray.evaluation.metrics import (
    ECE_BINS,
    LOWER_IS_BETTER,
    NEEDS,
    calibration_bin,
    checked,
    classification_metrics,
)

Array = NDArray[np.float64]
Intervals = dict[str, tuple[float, float]]
_CHUNK = 4_000_000
"""Most weights (resamples x images) held at once: 32 MB."""


@dataclass(frozen=True)
class _Groups:
    """Groups as strata that are resampled apart from one another."""

    of_image_N: NDArray[np.int64]
    strata: tuple[NDArray[np.int64], ...]
    with_class: tuple[int, int]
    """How many groups hold at least one image of class 0, of class 1."""


def bootstrap_intervals(
    labels: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike,
    threshold: float,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """metric -> (low, high) at ``confidence``, from ``n`` resamples of whole groups; the threshold is fixed.

    Percentile intervals, with three provisos for the few subjects that such data have:

    - Where every group has one class only (a patient is ill or not), groups are drawn within each class,
      so that no resample loses a class. Otherwise all groups are drawn together, and a resample without
      a class has no say on the metrics that need it.
    - Quantiles are widened for the number of groups as a t quantile is against a normal one
      (Hesterberg, The American Statistician 69, 2015, section 5.3).
    - Where every resample gives exactly 1 (or 0), the bootstrap would claim certainty; the exact binomial
      bound of "no miss in G groups" stands in: 1 - (alpha/2)^(1/G).

    An interval always holds the figure itself (calibration error is biased upwards under resampling).
    A metric is left out where a class is absent, or a class it needs comes from a single group: one
    subject says nothing about how subjects differ. Same seed, same intervals.

    Raises DataError as :func:`classification_metrics`, and where ``groups`` has another length.
    """
    label_N, prob_N = checked(labels, prob)
    known = _groups(label_N, np.asarray(groups))
    point = classification_metrics(label_N, prob_N, threshold)
    rng = np.random.default_rng(seed)
    drawn = [
        weighted_metrics(label_N, prob_N, weight_RN, threshold) for weight_RN in _resamples(known, n, rng)
    ]
    out: Intervals = {}
    for name, value in point.items():
        evidence = min((known.with_class[c] for c in NEEDS[name]), default=_count(known))
        if evidence >= 2:
            values_R = np.concatenate([chunk[name] for chunk in drawn])
            out[name] = _interval(name, value, values_R, evidence, 1 - confidence)
    return out


def weighted_metrics(
    label_N: NDArray[np.int64], prob_N: Array, weight_RN: Array, threshold: float
) -> dict[str, Array]:
    """metric -> (R,): :func:`classification_metrics` of R samples in which image i occurs ``weight_RN[:, i]``
    times. NaN where a resample lacks a class the metric needs."""
    positive, called = label_N == 1, prob_N >= threshold
    cells = np.stack([positive & called, ~positive & called, positive & ~called, ~positive & ~called], axis=1)
    tp, fp, fn, tn = (weight_RN @ cells.astype(np.float64)).T
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    f1, f1_normal = 2 * tp / np.maximum(2 * tp + fp + fn, 1), 2 * tn / np.maximum(2 * tn + fp + fn, 1)
    total = weight_RN.sum(axis=1)
    ill = tp + fn > 0
    return {
        "accuracy": (tp + tn) / total,
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": np.where(ill, tp / np.maximum(tp + fp, 1), np.nan),
        "recall": recall,
        "specificity": specificity,
        "f1": np.where(ill, f1, np.nan),
        "weighted_f1": ((tp + fn) * f1 + (tn + fp) * f1_normal) / total,
        "auroc": _auroc(positive, prob_N, weight_RN),
        "brier": weight_RN @ (prob_N - label_N) ** 2 / total,
        "ece": _calibration_error(label_N, prob_N, weight_RN) / total,
    }


def _auroc(positive_N: NDArray[np.bool_], prob_N: Array, weight_RN: Array) -> Array:
    """Share of (malignant, normal) pairs in the right order, ties half: the Mann-Whitney form."""
    order = np.argsort(prob_N, kind="stable")
    starts_K = np.unique(prob_N[order], return_index=True)[1]
    sorted_RN, positive = weight_RN[:, order], positive_N[order]
    pos_RK = np.add.reduceat(sorted_RN * positive, starts_K, axis=1)
    neg_RK = np.add.reduceat(sorted_RN * ~positive, starts_K, axis=1)
    below_RK = np.cumsum(neg_RK, axis=1) - neg_RK
    won = (pos_RK * (below_RK + neg_RK / 2)).sum(axis=1)
    return _ratio(won, pos_RK.sum(axis=1) * neg_RK.sum(axis=1))


def _calibration_error(label_N: NDArray[np.int64], prob_N: Array, weight_RN: Array) -> Array:
    gap_NB = np.zeros((len(prob_N), ECE_BINS))
    gap_NB[np.arange(len(prob_N)), calibration_bin(prob_N)] = prob_N - label_N
    return np.asarray(np.abs(weight_RN @ gap_NB).sum(axis=1))


def _ratio(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


def _groups(label_N: NDArray[np.int64], name_N: NDArray[np.generic]) -> _Groups:
    if name_N.shape != label_N.shape:
        raise DataError(f"Each image needs one group, got {label_N.shape} images and {name_N.shape} groups.")
    of_image = np.unique(name_N, return_inverse=True)[1].astype(np.int64)
    ill = np.bincount(of_image, weights=label_N)
    size = np.bincount(of_image)
    has_normal, has_malignant = ill < size, ill > 0
    single_class = not (has_normal & has_malignant).any()
    parts = (has_normal, has_malignant) if single_class else (np.ones(len(size), bool),)
    strata = tuple(np.flatnonzero(part) for part in parts if part.any())
    return _Groups(of_image, strata, (int(has_normal.sum()), int(has_malignant.sum())))


def _count(groups: _Groups) -> int:
    return sum(len(stratum) for stratum in groups.strata)


def _resamples(groups: _Groups, n: int, rng: np.random.Generator) -> Iterator[Array]:
    """Chunks of weights (R, N): how often each resample drew the group of each image."""
    size = max(1, _CHUNK // len(groups.of_image_N))
    for start in range(0, n, size):
        times_RG = np.zeros((min(size, n - start), _count(groups)))
        for stratum in groups.strata:
            share = np.full(len(stratum), 1 / len(stratum))
            times_RG[:, stratum] = rng.multinomial(len(stratum), share, size=len(times_RG))
        yield times_RG[:, groups.of_image_N]


def tail_of(groups: int, alpha: float) -> float:
    """Share of resamples to leave out at each end: alpha / 2, made smaller where there are few groups.

    As a t quantile is to a normal one (Hesterberg, The American Statistician 69, 2015, section 5.3); at
    least two groups.
    """
    from scipy import stats  # slow to import

    wide = np.sqrt(groups / (groups - 1)) * stats.t.ppf(1 - alpha / 2, groups - 1)
    return float(stats.norm.cdf(-wide))


def _interval(name: str, value: float, values_R: Array, groups: int, alpha: float) -> tuple[float, float]:
    values = values_R[~np.isnan(values_R)]
    tail = tail_of(groups, alpha)
    low, high = np.quantile(values, (tail, 1 - tail))
    if name not in LOWER_IS_BETTER and low == high and low in (0.0, 1.0):
        miss = 1 - (alpha / 2) ** (1 / groups)
        low, high = (1 - miss, 1.0) if low == 1.0 else (0.0, miss)
    return float(min(low, value)), float(max(high, value))
