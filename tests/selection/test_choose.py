"""Which mask is reported and how steady a selection is, against formulas written out over sets."""

from __future__ import annotations

import math
import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from planted import Values

from cotray.selection.choose import consensus_candidates, frequency, halves, jaccard, one_se, stability
from cotray.selection.transfer import Masks

MEMBERS = st.tuples(st.integers(1, 7), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


def sets(mask_MD: Masks) -> list[set[int]]:
    return [set(np.flatnonzero(mask).tolist()) for mask in mask_MD]


# -- one standard error -----------------------------------------------------------------------------------


def one_se_by_hand(masks: Masks, fitness: Values, errors: Values, samples: int) -> int:
    """Breiman's rule: the least size, and of equal sizes the fittest, within one SE of the fittest's."""
    best = min(range(len(masks)), key=lambda p: fitness[p])
    own = errors[best].tolist()
    if len(own) > 1:
        spread = statistics.stdev(own) / math.sqrt(len(own))
    else:
        spread = math.sqrt(own[0] * (1 - own[0]) / samples)
    limit = statistics.fmean(own) + spread
    within = [p for p in range(len(masks)) if statistics.fmean(errors[p].tolist()) <= limit + 1e-12]
    return min(within, key=lambda p: (int(masks[p].sum()), fitness[p]))


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(2, 300), st.integers(0, 2**32))
def test_one_se_is_the_rule_written_out(candidates: int, repeats: int, samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.uniform(size=(candidates, 20)) < rng.uniform(0.1, 0.9, (candidates, 1))
    errors = np.round(rng.uniform(0.2, 0.4, (candidates, repeats)), 3)
    fitness = 0.99 * errors.mean(axis=1) + 0.01 * masks.mean(axis=1)
    assert one_se(masks, fitness, errors, samples) == one_se_by_hand(masks, fitness, errors, samples)


def test_one_answer_of_a_hundred_is_within_the_binomial_error() -> None:
    """sqrt(0.1 * 0.9 / 100) = 0.03: 0.13 is within, 0.14 is not."""
    masks = np.arange(6) < np.array([[6], [3], [2]])
    errors = np.array([[0.10], [0.1299], [0.14]])
    assert one_se(masks, errors[:, 0], errors, 100) == 1
    assert one_se(masks, errors[:, 0], errors, 25) == 2
    assert one_se(masks, errors[:, 0], errors, 10_000) == 0


def test_over_repeats_it_is_the_standard_error_of_the_mean() -> None:
    """Repeats of 0.1, 0.2 and 0.3: deviation 0.1, standard error 0.0577."""
    masks = np.arange(6) < np.array([[6], [3], [2]])
    errors = np.array([[0.1, 0.2, 0.3], [0.25, 0.25, 0.25], [0.26, 0.26, 0.26]])
    assert one_se(masks, errors.mean(axis=1), errors, 10**9) == 1


def test_without_error_only_equals_are_within() -> None:
    masks = np.arange(6) < np.array([[6], [3], [4], [1]])
    errors = np.array([[0.0], [0.0], [0.0], [0.01]])
    assert one_se(masks, errors[:, 0] + 0.01 * masks.mean(axis=1), errors, 50) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(2, 12))
def test_the_fittest_is_within_its_own_error(values: list[float], repeats: int) -> None:
    """Also where repeats agree, so that the error is 0 but for rounding."""
    errors = np.repeat(np.array(values)[:, None], repeats, axis=1)
    masks = np.ones((len(values), 3), bool)
    assert one_se(masks, errors.mean(axis=1), errors, 10) == int(errors.mean(axis=1).argmin())


# -- consensus --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(MEMBERS, st.integers(0, 2**32))
def test_candidates_take_features_by_how_often_they_were_chosen(members: Masks, seed: int) -> None:
    score = np.random.default_rng(seed).permutation(members.shape[1]).astype(float)
    often = [sum(d in one for one in sets(members)) for d in range(members.shape[1])]
    order = sorted(range(members.shape[1]), key=lambda d: (-often[d], -score[d]))
    chosen = max(1, sum(n > 0 for n in often))
    expected = [set(order[:size]) for size in range(1, chosen + 1)]
    assert sets(consensus_candidates(members, score)) == expected


def test_many_features_are_tried_at_fewer_sizes() -> None:
    members = np.random.default_rng(0).uniform(size=(5, 3000)) < 0.3
    sizes = consensus_candidates(members, np.arange(3000.0)).sum(axis=1)
    assert sizes[:40].tolist() == list(range(1, 41))
    assert sizes[-1] == members.any(axis=0).sum()
    assert 50 < len(sizes) <= 80
    ratio = sizes[41:] / sizes[40:-1]
    assert (ratio > 1).all() and (ratio < 1.3).all()


def test_members_that_chose_nothing_leave_the_best_score() -> None:
    """Their features may all lie outside the pool."""
    assert sets(consensus_candidates(np.zeros((3, 4), bool), np.array([1.0, 0, 7, 2]))) == [{2}]


# -- stability --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(MEMBERS)
def test_frequency_and_jaccard_are_those_of_sets(members: Masks) -> None:
    chosen = sets(members)
    expected = [sum(d in one for one in chosen) / len(chosen) for d in range(members.shape[1])]
    np.testing.assert_allclose(frequency(members), expected)
    pairs = [len(a & b) / len(a | b) if a | b else 0.0 for a, b in combinations(chosen, 2)]
    if pairs:
        assert jaccard(members) == pytest.approx(statistics.fmean(pairs))
    else:
        assert math.isnan(jaccard(members))


def nogueira(members: Masks) -> float:
    """Nogueira, Sechidis & Brown (2018), Definition 4: 1 - (mean of s_f^2) / (k/d (1 - k/d))."""
    m, d = members.shape
    variance = 0.0
    for f in range(d):
        p = sum(bool(mask[f]) for mask in members) / m
        variance += m / (m - 1) * p * (1 - p) / d
    k = sum(int(mask.sum()) for mask in members) / m
    return 1 - variance / (k / d * (1 - k / d))


@settings(deadline=None, max_examples=80)
@given(MEMBERS)
def test_stability_is_nogueiras(members: Masks) -> None:
    if len(members) < 2 or members.all() or not members.any():
        assert math.isnan(stability(members))
    else:
        assert stability(members) == pytest.approx(nogueira(members), abs=1e-12)


def test_stability_is_1_for_equals_and_0_for_chance() -> None:
    rng = np.random.default_rng(0)
    one = rng.uniform(size=200) < 0.2
    assert stability(np.tile(one, (6, 1))) == pytest.approx(1.0)
    assert jaccard(np.tile(one, (6, 1))) == 1.0
    chance = np.stack([rng.permutation(np.arange(200) < 40) for _ in range(60)])
    assert stability(chance) == pytest.approx(0.0, abs=0.02)
    assert jaccard(chance) == pytest.approx(0.2 / (2 - 0.2), abs=0.02)


# -- halves of the data -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4), st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(0, 2**32))
def test_halves_are_half_of_each_class_groups_whole(cells: int, groups: list[int], seed: int) -> None:
    label = np.concatenate([np.full(n * cells, c) for c, n in enumerate(groups)])
    group = np.concatenate([[f"{c}-{g}"] * cells for c, n in enumerate(groups) for g in range(n)])
    shuffled = np.random.default_rng(seed).permutation(len(label))
    label, group = label[shuffled], group[shuffled]
    for rows in halves(label, group, 3, seed):
        assert (np.diff(rows) > 0).all()
        kept = set(group[rows])
        np.testing.assert_array_equal(rows, np.flatnonzero([g in kept for g in group]))
        for c, n in enumerate(groups):
            assert len({g for g in kept if g.startswith(f"{c}-")}) == min(n, max(2, (n + 1) // 2))


def test_halves_repeat_differ_and_reach_every_group() -> None:
    label, group = np.repeat([0, 1], 40), np.arange(80) // 4
    first, again, other = (halves(label, group, 12, seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other, strict=True))
    assert len({rows.tobytes() for rows in first}) > 9
    assert set(np.concatenate(first)) == set(range(80))


def test_a_group_of_two_classes_comes_whole() -> None:
    label, group = np.array([0, 0, 0, 1, 1, 1] * 3), np.repeat([0, 1, 2], 6)
    for rows in halves(label, group, 5, 0):
        assert np.bincount(group[rows]).max() == 6 and set(np.bincount(group[rows])) <= {0, 6}
