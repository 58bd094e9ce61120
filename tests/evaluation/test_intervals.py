from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.errors import DataError
from cotray.evaluation.intervals import bootstrap_intervals, weighted_metrics
from cotray.evaluation.metrics import NEEDS, classification_metrics


def simulate(
    rng: np.random.Generator, groups: int, size: int, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Single-class groups; each has its own share of correct answers, 0.8 on average."""
    group = np.repeat(np.arange(groups), size)
    label = group % 2
    skill = np.clip(0.8 + spread * rng.choice([-1.0, 1.0], groups), 0, 1)[group]
    right = rng.random(len(group)) < skill
    return label, np.where(right == (label == 1), 0.9, 0.1), group


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=25))
@settings(deadline=None, max_examples=25)
def test_weights_are_repetitions(rows: list[tuple[int, int, int]]) -> None:
    label, prob = np.array([r[0] for r in rows]), np.array([r[1] / 8 for r in rows])
    weight = np.array([r[2] for r in rows])
    if not weight.any():
        return
    got = weighted_metrics(label, prob, weight[None].astype(float), 0.5)
    expected = classification_metrics(np.repeat(label, weight), np.repeat(prob, weight), 0.5)
    assert set(got) == set(NEEDS)
    for name, value in got.items():
        assert value[0] == pytest.approx(expected.get(name, np.nan), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("spread", [0.0, 0.18])
def test_covers_the_truth_about_as_often_as_it_says(spread: float) -> None:
    """True accuracy is 0.8; 120 simulated studies; the binomial error of the rate is 0.03."""
    rng = np.random.default_rng(1)
    hits = 0
    for study in range(120):
        label, prob, group = simulate(rng, 30, 8, spread)
        low, high = bootstrap_intervals(label, prob, group, 0.5, n=200, confidence=0.9, seed=study)[
            "accuracy"
        ]
        hits += low <= 0.8 <= high
    assert 0.82 <= hits / 120 <= 0.97


def test_clusters_are_worth_less_than_single_images() -> None:
    label, prob, group = simulate(np.random.default_rng(2), 30, 20, 0.19)
    honest = bootstrap_intervals(label, prob, group, 0.5)
    naive = bootstrap_intervals(label, prob, np.arange(len(label)), 0.5)
    for name in ("accuracy", "balanced_accuracy", "recall", "auroc"):
        assert np.ptp(honest[name]) > 1.5 * np.ptp(naive[name])


def test_same_seed_same_intervals() -> None:
    label, prob, group = simulate(np.random.default_rng(3), 20, 5, 0.1)
    one, two, other = (bootstrap_intervals(label, prob, group, 0.5, 200, seed=s) for s in (7, 7, 8))
    assert one == two
    assert one != other


def test_every_interval_holds_its_figure_and_few_groups_widen_it() -> None:
    label, prob, _ = simulate(np.random.default_rng(4), 8, 12, 0.1)
    few, many = np.arange(len(label)) // 12, np.arange(len(label)) // 2
    point = classification_metrics(label, prob, 0.5)
    wide = bootstrap_intervals(label, prob, few, 0.5)
    assert set(wide) == set(point) == set(bootstrap_intervals(label, prob, many, 0.5))
    assert all(0 <= low <= point[name] <= high <= 1 for name, (low, high) in wide.items())


def test_a_perfect_result_is_not_certainty() -> None:
    group = np.arange(40) // 4
    label = group % 2
    got = bootstrap_intervals(label, label * 0.98 + 0.01, group, 0.5)
    assert got["accuracy"] == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert got["recall"] == (pytest.approx(0.025 ** (1 / 5)), 1.0)


def test_stratified_resamples_never_lose_a_class() -> None:
    """Two malignant subjects among twenty: an unstratified draw would miss both in one case of nine."""
    group = np.arange(60) // 3
    label = (group < 2).astype(int)
    prob = np.where(np.arange(60) % 3 == 0, 1.0 - label, label) * 0.8 + 0.1
    got = bootstrap_intervals(label, prob, group, 0.5)
    assert set(got) == set(NEEDS)
    assert got["recall"] == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_one_subject_of_a_class_gives_no_interval_for_that_class() -> None:
    group = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
    label = (group == 0).astype(int)
    got = bootstrap_intervals(label, np.linspace(0.9, 0.1, 9), group, 0.5, 100)
    assert set(got) == {"accuracy", "specificity", "weighted_f1", "brier", "ece"}


def test_mixed_groups_are_drawn_together() -> None:
    rng = np.random.default_rng(5)
    label, group = rng.integers(0, 2, 60), np.arange(60) // 6
    got = bootstrap_intervals(label, np.clip(label * 0.3 + rng.random(60) * 0.7, 0, 1), group, 0.5, 200)
    assert set(got) == set(NEEDS)
    assert got["auroc"][0] < got["auroc"][1]


def test_group_names_may_be_text_and_must_fit() -> None:
    args = ([0, 1, 0, 1], [0.1, 0.9, 0.6, 0.7])
    named = bootstrap_intervals(*args, ["a", "b", "c", "d"], 0.5, 100)
    assert named == bootstrap_intervals(*args, [0, 1, 2, 3], 0.5, 100)
    with pytest.raises(DataError):
        bootstrap_intervals(*args, ["a"], 0.5, 100)


def test_a_thousand_resamples_of_a_thousand_images_take_seconds() -> None:
    rng = np.random.default_rng(6)
    label = rng.integers(0, 2, 1000)
    started = time.perf_counter()
    bootstrap_intervals(label, rng.random(1000), np.arange(1000) // 4, 0.5, n=1000)
    assert time.perf_counter() - started < 10
