from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, brier_score_loss

from cotray.errors import ClassError, DataError
from cotray.evaluation.metrics import (
    NEEDS,
    best_threshold,
    calibration_error,
    classification_metrics,
    error_order,
    steady_threshold,
)

samples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=40)


def split(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs]), np.array([b / 20 for _, b in pairs])


def reference(labels: np.ndarray, prob: np.ndarray, threshold: float) -> dict[str, float]:
    """Plain counting, straight from the definitions."""
    tp = sum(1 for y, p in zip(labels, prob, strict=True) if y and p >= threshold)
    fp = sum(1 for y, p in zip(labels, prob, strict=True) if not y and p >= threshold)
    fn = sum(1 for y, p in zip(labels, prob, strict=True) if y and p < threshold)
    tn = sum(1 for y, p in zip(labels, prob, strict=True) if not y and p < threshold)
    pos, neg = tp + fn, tn + fp
    f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    f1_normal = 2 * tn / (2 * tn + fp + fn) if tn else 0.0
    out = {
        "accuracy": (tp + tn) / (pos + neg),
        "weighted_f1": (pos * f1 + neg * f1_normal) / (pos + neg),
        "brier": sum((p - y) ** 2 for y, p in zip(labels, prob, strict=True)) / (pos + neg),
    }
    if pos:
        out |= {"precision": tp / (tp + fp) if tp else 0.0, "recall": tp / pos, "f1": f1}
    if neg:
        out["specificity"] = tn / neg
    if pos and neg:
        out["balanced_accuracy"] = (tp / pos + tn / neg) / 2
        wins = sum(
            (a > b) + 0.5 * (a == b)
            for a, y in zip(prob, labels, strict=True)
            if y
            for b, z in zip(prob, labels, strict=True)
            if not z
        )
        out["auroc"] = wins / (pos * neg)
    return out


@given(samples, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(deadline=None, max_examples=25)
def test_metrics_are_their_definitions(pairs: list[tuple[int, int]], threshold: float) -> None:
    labels, prob = split(pairs)
    got = classification_metrics(labels, prob, threshold)
    expected = reference(labels, prob, threshold)
    assert set(got) == set(expected) | {"ece"}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name
    assert all(math.isfinite(v) and 0 <= v <= 1 for v in got.values())


def test_agrees_with_scikit_learn_where_it_has_another_form() -> None:
    rng = np.random.default_rng(0)
    labels, prob = rng.integers(0, 2, 200), rng.random(200)
    got = classification_metrics(labels, prob, 0.4)
    assert got["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, prob >= 0.4))
    assert got["brier"] == pytest.approx(brier_score_loss(labels, prob))
    assert list(got) == list(NEEDS)


@pytest.mark.parametrize(
    ("label", "absent"),
    [(1, {"auroc", "balanced_accuracy", "specificity"}),
     (0, {"auroc", "balanced_accuracy", "recall", "precision", "f1"})],
)  # fmt: skip
def test_what_an_absent_class_leaves_undefined_is_left_out(label: int, absent: set[str]) -> None:
    got = classification_metrics([label] * 3, [0.2, 0.6, 0.9])
    assert set(got) == set(NEEDS) - absent


def test_calibration_error_by_hand() -> None:
    # bin [0, .1): 0.0 and 0.05, one malignant; last bin: 0.95 and 1.0, both malignant.
    assert calibration_error([0, 1, 1, 1], [0.0, 0.05, 0.95, 1.0]) == pytest.approx(
        0.5 * abs(0.025 - 0.5) + 0.5 * abs(0.975 - 1.0)
    )
    assert calibration_error([0, 1], [0.0, 1.0]) == 0.0
    assert calibration_error([1, 0], [0.0, 1.0]) == 1.0


@pytest.mark.parametrize(
    ("labels", "prob"),
    [([], []), ([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, float("nan")]), ([0, 1], [0.1, 1.2])],
)
def test_refuses_what_cannot_be_scored(labels: list[int], prob: list[float]) -> None:
    with pytest.raises(DataError):
        classification_metrics(labels, prob)


@given(samples)
@settings(deadline=None, max_examples=25)
def test_best_threshold_beats_every_other(pairs: list[tuple[int, int]]) -> None:
    labels, prob = split([(0, 7), (1, 11), *pairs])
    chosen = classification_metrics(labels, prob, best_threshold(labels, prob))["balanced_accuracy"]
    for threshold in np.linspace(0, 1, 21):
        called = prob >= threshold
        other = (called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2
        calls_all_alike = called.all() or not called.any()
        assert chosen >= other - 1e-12 or calls_all_alike


def test_best_threshold_stays_at_half_unless_samples_ask() -> None:
    assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == 0.5
    assert best_threshold([0, 0, 1, 1], [0.6, 0.7, 0.8, 0.9]) == pytest.approx(0.75)
    with pytest.raises(ClassError):
        best_threshold([1, 1], [0.3, 0.4])


def test_worst_mistakes_come_first() -> None:
    assert error_order(np.array([1, 0, 0, 1]), [0.9, 0.8, 0.05, 0.3]).tolist() == [1, 3, 0, 2]


def test_steady_threshold_leaves_one_half_only_for_good_reason() -> None:
    few = np.array([0] * 6 + [1] * 6)
    prob = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.6, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert best_threshold(few, prob) == pytest.approx(0.75), "one of six asks for it"
    assert steady_threshold(few, prob) == 0.5, "one of six is no reason"
    many, probs = np.tile(few, 200), np.tile(prob, 200)
    assert steady_threshold(many, probs) == pytest.approx(0.75), "two hundred of twelve hundred are"


def test_steady_threshold_is_within_one_standard_error_of_the_best() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.repeat([0, 1], 30)
        prob = np.clip(rng.normal(0.6 + 0.2 * labels, 0.15), 0, 1)
        best, steady = (
            classification_metrics(labels, prob, choose(labels, prob))["balanced_accuracy"]
            for choose in (best_threshold, steady_threshold)
        )
        assert best - 0.07 <= steady <= best
