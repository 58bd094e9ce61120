"""Figures of a binary classifier from labels and probabilities. Label 1 = malignant (positive), 0 = normal.

Shapes: N samples (images, or cells).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cotray.errors import ClassError, DataError

ECE_BINS = 10
"""Equal-width bins [0, 0.1), ..., [0.9, 1] of the probability of malignant."""

NEEDS: dict[str, tuple[int, ...]] = {
    "accuracy": (),
    "balanced_accuracy": (0, 1),
    "precision": (1,),
    "recall": (1,),
    "specificity": (0,),
    "f1": (1,),
    "weighted_f1": (),
    "auroc": (0, 1),
    "brier": (),
    "ece": (),
}
"""Metric -> classes that must be present for it to mean anything; the order is the report's."""

LOWER_IS_BETTER = frozenset({"brier", "ece"})


def classification_metrics(
    labels_N: ArrayLike, prob_N: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """Every metric of :data:`NEEDS` whose classes are present; values are finite, in [0, 1].

    A sample is called malignant where ``prob >= threshold``. Where a class is absent, the metrics that
    need it are undefined (NaN) and are left out of the dict. Precision and F1 are 0 where nothing is
    called malignant, as in scikit-learn with ``zero_division=0``. ``brier`` is the mean squared error of
    the probability. ``ece`` is the expected calibration error, :func:`calibration_error`.

    Raises DataError where the inputs are empty, differ in length, or hold a probability outside [0, 1].
    """
    from sklearn import metrics as sk  # slow to import

    labels, prob = checked(labels_N, prob_N)
    called = (prob >= threshold).astype(np.int64)
    present = set(np.unique(labels).tolist())
    precision, recall, f1, count = sk.precision_recall_fscore_support(
        labels, called, labels=(0, 1), zero_division=0
    )
    values = {
        "accuracy": np.mean(labels == called),
        "precision": precision[1],
        "recall": recall[1],
        "specificity": recall[0],
        "f1": f1[1],
        "weighted_f1": np.average(f1, weights=count),
        "brier": np.mean((prob - labels) ** 2),
        "ece": calibration_error(labels, prob),
    }
    if present == {0, 1}:
        values["auroc"] = sk.roc_auc_score(labels, prob)
        values["balanced_accuracy"] = (values["recall"] + values["specificity"]) / 2
    return {name: float(values[name]) for name, needs in NEEDS.items() if present.issuperset(needs)}


def calibration_error(labels_N: ArrayLike, prob_N: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error of the probability of malignant.

    sum over bins b of (n_b / N) * |mean probability in b - share of malignant in b|, with ``bins``
    equal-width bins. This is the binary form: it looks at the probability that is shown to people,
    not at the confidence of the winning class.
    """
    labels, prob = checked(labels_N, prob_N)
    index = calibration_bin(prob, bins)
    gap_B = np.bincount(index, weights=prob - labels, minlength=bins)
    return float(np.abs(gap_B).sum() / len(labels))


def calibration_bin(prob_N: NDArray[np.float64], bins: int = ECE_BINS) -> NDArray[np.int64]:
    """(N,) number of the equal-width bin of each probability; 1.0 belongs to the last bin."""
    return np.minimum((prob_N * bins).astype(np.int64), bins - 1)


def best_threshold(labels_N: ArrayLike, prob_N: ArrayLike, tolerance: float = 0.0) -> float:
    """The operating point: the threshold with the greatest balanced accuracy on these (validation) samples.

    With a ``tolerance`` every threshold within that much of the greatest counts as equal.

    Candidates are 0.5 and the midpoints between neighbouring distinct probabilities, so that a new
    sample near a validation sample falls on its side. Among equals the one nearest to 0.5 wins: the
    threshold leaves 0.5 only where the validation samples ask for it. It is never moved beyond all samples,
    though calling everything alike would be better with probabilities that are worse than chance.

    Raises ClassError where a class is absent, DataError as :func:`classification_metrics`.
    """
    labels, prob = checked(labels_N, prob_N)
    if len(np.unique(labels)) < 2:
        raise ClassError("A threshold needs samples of both classes.", cure="Use 0.5, or give more samples.")
    distinct = np.unique(prob)
    candidates = np.append((distinct[1:] + distinct[:-1]) / 2, 0.5)
    malignant, normal = np.sort(prob[labels == 1]), np.sort(prob[labels == 0])
    recall = 1 - np.searchsorted(malignant, candidates, side="left") / len(malignant)
    specificity = np.searchsorted(normal, candidates, side="left") / len(normal)
    score = np.round((recall + specificity) / 2, 12)
    best = candidates[score >= score.max() - tolerance]
    return float(best[np.argmin(np.abs(best - 0.5))])


def steady_threshold(labels_N: ArrayLike, prob_N: ArrayLike) -> float:
    """:func:`best_threshold` by the one-standard-error rule (Breiman et al. 1984).

    Of all thresholds whose balanced accuracy is within one standard error of the best one's, the nearest
    to 0.5: a few dozen validation samples must not move it to the far end of the scale. Raises as there.
    """
    labels, prob = checked(labels_N, prob_N)
    best = best_threshold(labels, prob)
    return best_threshold(labels, prob, tolerance=_standard_error(labels, prob >= best))


def _standard_error(labels: NDArray[np.int64], called: NDArray[np.bool_]) -> float:
    """Of the balanced accuracy; shares are smoothed by one of each, so that none is certain."""
    variance = 0.0
    for label in (0, 1):
        right = called[labels == label] == bool(label)
        share = (right.sum() + 1) / (len(right) + 2)
        variance += share * (1 - share) / len(right)
    return float(np.sqrt(variance) / 2)


def checked(labels_N: ArrayLike, prob_N: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(labels, probabilities) as arrays. Raises DataError where they cannot be scored."""
    labels, prob = np.asarray(labels_N), np.asarray(prob_N, np.float64)
    if labels.ndim != 1 or labels.shape != prob.shape or not len(labels):
        raise DataError(
            f"Labels and probabilities must be two equally long vectors, got {labels.shape} and {prob.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError("Labels must be 0 (normal) or 1 (malignant).", cure="Leave unlabelled samples out.")
    if not ((prob >= 0) & (prob <= 1)).all():
        raise DataError("Probabilities must lie in [0, 1].", cure="Leave images without a cell (NaN) out.")
    return labels.astype(np.int64), prob


def error_order(labels_N: Sequence[int] | NDArray[np.int64], prob_N: ArrayLike) -> NDArray[np.int64]:
    """(N,) indices, from the most confidently wrong sample to the most confidently right one."""
    labels, prob = checked(labels_N, prob_N)
    return np.argsort(-np.abs(labels - prob), kind="stable")
