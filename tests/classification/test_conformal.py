"""Conformal sets: the promised coverage by simulation, quantiles by hand, answers that do not contradict."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.classification.conformal import (
    ClassSets,
    fit_sets,
    group_quantile,
    needed_groups,
    set_figures,
)
from cotray.errors import DataError

Images = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]


def groups(count: int, rng: np.random.Generator, noise: float = 1.0) -> Images:
    """Labels, probabilities and groups of a classifier that is better on some subjects than on others.

    A subject is of one class, has 1 to 30 images, and its own shift; subjects with many images are harder.
    """
    size_K = rng.integers(1, 31, count)
    label_K = (rng.uniform(size=count) < 0.6).astype(np.int64)
    shift_K = rng.normal(0, 0.5 + 0.1 * size_K) * noise
    group_N = np.repeat(np.arange(count), size_K)
    logit_N = (2.0 * label_K[group_N] - 1) * 2 + shift_K[group_N] + rng.normal(0, 0.5, len(group_N))
    return label_K[group_N], 1 / (1 + np.exp(-logit_N)), group_N


def covered(sets: ClassSets, images: Images) -> float:
    """Share of images whose set holds the truth, groups weighing alike (written out)."""
    label, prob, group = images
    score, limit = np.where(label == 1, 1 - prob, prob), np.array(sets.limits)[label]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    return float(
        (np.add.reduceat((score <= limit).astype(float), first) / np.diff([*first, len(group)])).mean()
    )


def average_coverage(calibrating: int, alpha: float, per_class: bool = False, repeats: int = 400) -> float:
    """Over ``repeats`` fixed seeds, each with fresh validation groups and twenty new ones."""
    shares = []
    for seed in range(repeats):
        rng = np.random.default_rng([seed, calibrating])
        sets = fit_sets(*groups(calibrating, rng), alpha, per_class)
        shares.append(covered(sets, groups(20, rng)))
    return float(np.mean(shares))


TOLERANCE = 0.015
"""Three standard errors of a mean of 400 coverages that vary by about 0.1."""


@pytest.mark.parametrize(("calibrating", "alpha"), [(9, 0.1), (15, 0.1), (40, 0.1), (12, 0.2), (40, 0.3)])
def test_new_groups_are_covered_as_promised_and_not_much_more(calibrating: int, alpha: float) -> None:
    found = average_coverage(calibrating, alpha)
    assert found >= 1 - alpha - TOLERANCE
    assert found <= 1 - alpha + 2 / (calibrating + 1) + TOLERANCE


def test_counting_images_instead_of_groups_would_break_the_promise() -> None:
    """The naive quantile over images, where a few subjects bring most of them, covers too little."""
    shares = []
    for seed in range(400):
        rng = np.random.default_rng([seed, 9])
        label, prob, _ = groups(9, rng)
        naive = fit_sets(label, prob, np.arange(len(label)), 0.1)
        shares.append(covered(naive, groups(20, rng)))
    assert np.mean(shares) < 0.9 - TOLERANCE


def test_each_class_is_covered_where_that_is_asked() -> None:
    """Malignant images are the harder ones here: overall coverage hides that, per class does not."""

    def skewed(count: int, rng: np.random.Generator) -> Images:
        label, prob, group = groups(count, rng)
        return label, np.where(label == 1, prob**4, prob), group

    malignant: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        known, new = skewed(40, rng), skewed(20, rng)
        part = new[0] == 1
        for per_class, shares in malignant.items():
            shares.append(covered(fit_sets(*known, 0.1, per_class), tuple(x[part] for x in new)))
    assert np.mean(malignant[True]) >= 0.9 - TOLERANCE
    assert np.mean(malignant[False]) < 0.88


# ---- quantiles by hand -----------------------------------------------------------------------------------


def by_hand(score: list[float], group: list[int], alpha: Fraction) -> float:
    """The weighted quantile in exact fractions."""
    names = sorted(set(group))
    weight = {g: Fraction(1, (len(names) + 1) * group.count(g)) for g in names}
    for candidate in sorted(score):
        if sum(weight[g] for s, g in zip(score, group, strict=True) if s <= candidate) >= 1 - alpha:
            return candidate
    return 1.0


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12)), min_size=1, max_size=40),
       st.sampled_from([Fraction(1, 20), Fraction(1, 10), Fraction(1, 5), Fraction(2, 5)]))  # fmt: skip
def test_the_limit_is_the_quantile_in_fractions(pairs: list[tuple[int, int]], alpha: Fraction) -> None:
    score, group = [s / 50 for s, _ in pairs], [g for _, g in pairs]
    found = group_quantile(np.array(score), np.array(group), float(alpha))
    assert found == by_hand(score, group, alpha)


def test_one_image_per_group_is_the_textbook_quantile() -> None:
    """Split conformal: the ceil((n + 1)(1 - alpha))-th smallest of n scores."""
    score = np.random.default_rng(0).uniform(size=39)
    assert group_quantile(score, np.arange(39), 0.1) == np.sort(score)[36 - 1]


@pytest.mark.parametrize("alpha", [0.4, 0.25, 0.2, 0.1, 0.05])
def test_too_few_groups_promise_nothing_but_every_class(alpha: float) -> None:
    least = needed_groups(alpha)
    score = np.linspace(0.1, 0.4, 5 * least)
    assert group_quantile(score[: 5 * least], np.repeat(np.arange(least), 5), alpha) < 1.0
    assert group_quantile(score[: 5 * (least - 1)], np.repeat(np.arange(least - 1), 5), alpha) == 1.0
    assert group_quantile(np.zeros(0), np.zeros(0), alpha) == 1.0


def test_a_group_has_one_say_however_many_images_it_has() -> None:
    rng = np.random.default_rng(0)
    score, group = rng.uniform(size=30), np.arange(30)
    twice = np.concatenate([score, np.full(500, score[3])]), np.concatenate([group, np.full(500, 3)])
    assert group_quantile(*twice, 0.2) == group_quantile(score, group, 0.2)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_every_temperature_gives_the_same_sets(temperature: float) -> None:
    """Of one cell per image: scores keep their order, so a fitted temperature spoils no promise."""
    rng = np.random.default_rng(3)
    label, prob, group = groups(30, rng)
    _, new, _ = groups(50, rng)

    def warmed(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature))

    plain, warm = fit_sets(label, prob, group, 0.2), fit_sets(label, warmed(prob), group, 0.2)
    np.testing.assert_array_equal(plain.contains(new, 0.5), warm.contains(warmed(new), 0.5))


# ---- answers ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(low=st.floats(0, 1), high=st.floats(0, 1), threshold=st.floats(0.05, 0.95), prob=st.floats(0, 1))
def test_a_set_of_one_class_is_the_called_one(low: float, high: float, threshold: float, prob: float) -> None:
    sets = ClassSets(0.1, (low, high), (20, 20))
    inside = sets.contains(np.array([prob]), threshold)[0]
    plain = (prob <= low, 1 - prob <= high)
    assert all(now >= before for now, before in zip(inside, plain, strict=True)), "sets only ever grow"
    called = "malignant" if prob >= threshold else "normal"
    names = sets.names(prob, threshold)
    assert names in (["normal", "malignant"], [called])
    assert (names == [called]) == (inside.sum() == 1)
    assert inside.any() == any(plain)


@pytest.mark.parametrize(
    ("limit", "prob", "expected"),
    [
        (0.2, 0.1, ["normal"]),
        (0.2, 0.9, ["malignant"]),
        (0.2, 0.5, ["normal", "malignant"]),  # neither fits
        (0.6, 0.5, ["normal", "malignant"]),  # both fit
        (1.0, 0.001, ["normal", "malignant"]),  # too few groups
    ],
)
def test_names_of_a_set(limit: float, prob: float, expected: list[str]) -> None:
    assert ClassSets(0.1, (limit, limit), (20, 20)).names(prob, 0.5) == expected


def test_sets_travel_as_json() -> None:
    sets = fit_sets(*groups(30, np.random.default_rng(0)), 0.1, True)
    assert ClassSets.from_dict(json.loads(json.dumps(sets.as_dict()))) == sets
    assert sets.groups[0] + sets.groups[1] == 30


def test_figures_by_hand() -> None:
    label = np.array([0, 0, 0, 1, 1, 1])
    inside = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [0, 1], [0, 0]], bool)
    figures = set_figures(label, inside, np.array(["a", "a", "a", "b", "c", "c"]))
    assert figures["set_coverage"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert figures["set_coverage_normal"] == pytest.approx(2 / 3)
    assert figures["set_coverage_malignant"] == pytest.approx((1 + 1 / 2) / 2)
    assert figures["refer_rate"] == pytest.approx(2 / 6)
    assert figures["certain_accuracy"] == pytest.approx(3 / 4)


def test_figures_leave_out_what_is_not_there() -> None:
    figures = set_figures(np.array([0, 0]), np.ones((2, 2), bool), np.array([1, 2]))
    assert figures == {"set_coverage": 1.0, "set_coverage_normal": 1.0, "refer_rate": 1.0}


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError):
        fit_sets(np.array([0, 1]), np.array([0.5]), np.array([1, 2]), 0.1)
