"""Where populations start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.selection.initial import INITIAL, sizes


@pytest.mark.parametrize(
    ("agents", "dim", "expected"),
    [
        (8, 10_000, [2, 4, 8, 16, 32, 64, 128, 256]),
        (4, 31, [2, 4, 8, 16]),
        (3, 4, [2, 2, 2]),
        (3, 3, [2, 2, 2]),
        (3, 2, [2, 2, 2]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_sizes_double_up_to_256_or_half_of_narrow_data(agents: int, dim: int, expected: list[int]) -> None:
    assert sizes(agents, dim).tolist() == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 40), st.integers(1, 3000))
def test_sizes_rise_and_are_possible(agents: int, dim: int) -> None:
    size = sizes(agents, dim)
    assert len(size) == agents
    assert (np.diff(size) >= 0).all()
    assert 1 <= size[0] <= size[-1] <= min(dim, 256)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(INITIAL)), st.integers(2, 9), st.integers(1, 60), st.integers(0, 2**32))
def test_positions_are_in_the_unit_box_and_repeat(name: str, agents: int, dim: int, seed: int) -> None:
    score = np.random.default_rng(seed).normal(size=dim)
    position = INITIAL[name](score, agents, dim, np.random.default_rng(seed))
    assert position.shape == (agents, dim)
    assert ((position >= 0) & (position <= 1)).all()
    np.testing.assert_array_equal(position, INITIAL[name](score, agents, dim, np.random.default_rng(seed)))


def test_ranked_agents_take_the_best_features_of_their_size() -> None:
    score = np.random.default_rng(2).permutation(200).astype(float)
    taken = INITIAL["ranked"](score, 12, 200, np.random.default_rng(3)) > 0.5
    for row, size in zip(taken, sizes(12, 200), strict=True):
        np.testing.assert_array_equal(row, score >= 200 - size)


def test_ranked_equals_come_in_their_order() -> None:
    taken = INITIAL["ranked"](np.zeros(9), 3, 9, np.random.default_rng(0)) > 0.5
    assert taken.tolist() == [[d < size for d in range(9)] for size in sizes(3, 9)]


def test_sparse_agents_have_the_sizes_and_random_features() -> None:
    position = INITIAL["sparse"](np.arange(50.0), 300, 50, np.random.default_rng(1))
    taken = position > 0.5
    np.testing.assert_array_equal(taken.sum(axis=1), sizes(300, 50))
    share = taken.mean(axis=0)
    assert share.min() > 0.6 * share.mean() and share.max() < 1.4 * share.mean()
    assert len({row.tobytes() for row in taken[-50:]}) == 50, "agents do not share one permutation"


def test_ranked_without_scores_is_sparse() -> None:
    ranked, sparse = (INITIAL[name](None, 5, 30, np.random.default_rng(4)) for name in ("ranked", "sparse"))
    np.testing.assert_array_equal(ranked, sparse)


def test_random_takes_half_whatever_the_scores() -> None:
    with_scores, without = (
        INITIAL["random"](score, 40, 50, np.random.default_rng(3)) for score in (np.arange(50.0), None)
    )
    np.testing.assert_array_equal(with_scores, without)
    assert (with_scores > 0.5).mean() == pytest.approx(0.5, abs=0.04)
    assert np.histogram(with_scores, 4, (0, 1))[0].min() > 420, "uniform"
