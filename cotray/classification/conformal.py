"""Sets of classes that hold the truth with a stated probability: split conformal prediction over groups.

A class is in the set of an image unless its probability is unusually low for a true class. What is unusual
is learned from validation images by hierarchical conformal prediction (Lee, Barber & Willett 2023,
arXiv:2306.06342): every group (a subject) has the same say however many images it has, one more group, the
new one, is counted as infinitely unusual, and the limit is the 1 - alpha quantile of that mixture.

What is promised: draw a new group, then one of its images at random. The set holds its true class with
probability at least 1 - alpha, for any classifier and any distribution, if the new group is exchangeable with
the validation groups and the images within a group with one another. The probability is over the drawing of
validation groups and of the new one: it is no promise for one patient, nor for another laboratory.

What weakens it here: the same validation groups chose the epochs of the networks and, where images hold
several cells, the temperature (with one cell per image every temperature gives the same sets). The
operating point only ever adds the called class to a set.

Shapes: N images, K groups; column 0 is normal, column 1 malignant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.errors import DataError

Vector = NDArray[np.float64]
CLASSES = ("normal", "malignant")
ROUNDING = 1e-9
"""Of sums of weights."""


@dataclass(frozen=True)
class ClassSets:
    """When a class belongs to the set of an answer."""

    alpha: float
    """Share of images whose set may lack the true class."""
    limits: tuple[float, float]
    """Per class: it is in the set where 1 - its probability is at most this; 1.0 = always."""
    groups: tuple[int, int]
    """Validation groups that each limit was learned from."""

    def contains(self, prob_N: Vector, threshold: float) -> NDArray[np.bool_]:
        """(N, 2): which classes are in the sets of images of these probabilities of malignant.

        A set that holds the other class alone gets the called one (``prob >= threshold``) too: an answer
        never contradicts itself, and a larger set breaks no promise. A set may be empty: no class fits.
        """
        prob = np.asarray(prob_N, np.float64)
        inside_N2 = np.stack([prob <= self.limits[0], 1 - prob <= self.limits[1]], axis=1)
        rows = np.flatnonzero(inside_N2.any(axis=1))
        inside_N2[rows, (prob[rows] >= threshold).astype(np.int64)] = True
        return inside_N2

    def names(self, probability: float, threshold: float) -> list[str]:
        """The set of one image as names, e.g. ``["malignant"]``; both where neither fits or both do."""
        inside_2 = self.contains(np.array([probability]), threshold)[0]
        return [name for name, inside in zip(CLASSES, inside_2, strict=True) if inside] or list(CLASSES)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ClassSets:
        """Inverse of :meth:`as_dict`."""
        limits, groups = (tuple(body[name]) for name in ("limits", "groups"))
        return cls(float(body["alpha"]), (limits[0], limits[1]), (groups[0], groups[1]))


def fit_sets(
    label_N: NDArray[np.int64], prob_N: Vector, group_N: NDArray[Any], alpha: float, per_class: bool = False
) -> ClassSets:
    """Learn the limits from labelled validation images that trained nothing.

    ``per_class``: the promise holds for normal and for malignant images each (a group counts for a class
    where it has images of it). Raises DataError where lengths differ.
    """
    if not len(label_N) == len(prob_N) == len(group_N):
        raise DataError("Each image needs a label, a probability and a group.")
    prob = np.asarray(prob_N, np.float64)
    score_N = np.where(label_N > 0, 1 - prob, prob)
    parts = [label_N == c for c in (0, 1)] if per_class else [np.ones(len(label_N), bool)] * 2
    limits = [group_quantile(score_N[part], group_N[part], alpha) for part in parts]
    groups = [len(np.unique(group_N[part])) for part in parts]
    return ClassSets(alpha, (limits[0], limits[1]), (groups[0], groups[1]))


def group_quantile(score_N: Vector, group_N: NDArray[Any], alpha: float) -> float:
    """Smallest score t for which a new group's score is at most t with probability 1 - alpha; else 1.0.

    Each score weighs 1 / ((K + 1) * images of its group); the K + 1st part lies at infinity.
    """
    if not len(score_N):
        return 1.0
    _, place_N, count_K = np.unique(group_N, return_inverse=True, return_counts=True)
    weight_N = 1.0 / ((len(count_K) + 1) * count_K[place_N])
    order = np.argsort(score_N, kind="stable")
    reached = np.flatnonzero(np.cumsum(weight_N[order]) >= 1 - alpha - ROUNDING)
    return float(score_N[order][reached[0]]) if len(reached) else 1.0


def needed_groups(alpha: float) -> int:
    """Fewest groups with which not every set holds every class: 1 / alpha - 1, rounded up."""
    return int(np.ceil(1 / alpha - 1 - ROUNDING))


def set_figures(
    label_N: NDArray[np.int64], inside_N2: NDArray[np.bool_], group_N: NDArray[Any]
) -> dict[str, float]:
    """How sets did on images that fitted nothing; values in [0, 1].

    - ``set_coverage``: share of images whose set holds the true class, each group with the same say: what
      1 - alpha is promised for. ``set_coverage_normal``, ``set_coverage_malignant``: of that class' images.
    - ``refer_rate``: share of images whose set holds both classes or none.
    - ``certain_accuracy``: of the others, the share whose one class is the true one.
    """
    held_N = inside_N2[np.arange(len(label_N)), label_N]
    certain_N = inside_N2.sum(axis=1) == 1
    figures = {"set_coverage": _by_group(held_N, group_N), "refer_rate": float(1 - certain_N.mean())}
    for number, name in enumerate(CLASSES):
        if (label_N == number).any():
            part = label_N == number
            figures[f"set_coverage_{name}"] = _by_group(held_N[part], group_N[part])
    if certain_N.any():
        figures["certain_accuracy"] = float(held_N[certain_N].mean())
    return figures


def _by_group(held_N: NDArray[np.bool_], group_N: NDArray[Any]) -> float:
    _, place_N, count_K = np.unique(group_N, return_inverse=True, return_counts=True)
    return float((np.bincount(place_N, weights=held_N) / count_K).mean())
