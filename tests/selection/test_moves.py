"""Which bits few-bit steps touch: drawn by rank, never one twice, never the last one out."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cotray.selection.moves import Prior, some, step
from cotray.selection.transfer import Masks

MASKS = st.integers(1, 14).flatmap(lambda dim: arrays(bool, dim))


def weights(score: list[float]) -> list[float]:
    """1 / (rank + 10), the best of rank 0; one feature at a time."""
    return [1 / (sum(other > own for other in score) + 10) for own in score]


def test_weights_fall_with_the_rank() -> None:
    score = [0.3, 9.0, -1.0, 4.0]
    np.testing.assert_allclose(Prior(np.array(score), 4).weight_D, weights(score))
    np.testing.assert_allclose(Prior(None, 3).weight_D, [0.1] * 3)


@settings(deadline=None, max_examples=200)
@given(MASKS, st.integers(0, 16), st.integers(0, 2**32), st.booleans())
def test_drawn_features_are_free_different_and_as_many_as_there_are(
    taken: Masks, count: int, seed: int, scored: bool
) -> None:
    dim = len(taken)
    prior = Prior(np.arange(float(dim)) if scored else None, dim)
    drawn = prior.draw(count, taken, np.random.default_rng(seed))
    assert drawn.dtype == np.int64
    assert not taken[drawn].any()
    assert len(set(drawn.tolist())) == len(drawn) == min(count, dim - int(taken.sum()))


@pytest.mark.parametrize("taken", [[], [0, 1], [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13]])
def test_draws_follow_the_weights_one_after_the_other(taken: list[int]) -> None:
    """Pairs come as in drawing without replacement, by rejection (few taken) and exactly (most taken)."""
    score, rounds = [float(-(i % 7) * 20 - i) for i in range(14)], 6000
    weight = weights(score)
    mask = np.isin(np.arange(14), taken)
    free = [i for i in range(14) if i not in taken]
    total = sum(weight[i] for i in free)
    expected = {(i, j): weight[i] / total * weight[j] / (total - weight[i]) for i, j in permutations(free, 2)}
    prior, rng = Prior(np.array(score), 14), np.random.default_rng(5)
    seen = [tuple(sorted(prior.draw(2, mask, rng).tolist())) for _ in range(rounds)]
    pairs = {tuple(sorted(pair)) for pair in expected}
    assert set(seen) == pairs
    chi = 0.0
    for pair in pairs:
        share = (expected[pair] + expected[pair[::-1]]) * rounds
        chi += (seen.count(pair) - share) ** 2 / share
    free_degrees = len(pairs) - 1
    assert chi < free_degrees + 5 * np.sqrt(2 * free_degrees)


def test_good_ranks_are_drawn_more_often() -> None:
    prior, rng = Prior(-np.arange(1000.0), 1000), np.random.default_rng(0)
    first = [int(prior.draw(1, np.zeros(1000, bool), rng)[0]) for _ in range(2000)]
    share = sum(np.array(weights([-float(i) for i in range(1000)]))[:50]) / Prior(None, 1).weight_D[0]
    expected = share / (sum(1 / (i + 10) for i in range(1000)) / 0.1)
    assert np.mean(np.array(first) < 50) == pytest.approx(expected, abs=0.04)


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(0, 16), st.integers(0, 2**32))
def test_some_are_taken_and_different(mask: Masks, count: int, seed: int) -> None:
    drawn = some(mask, count, np.random.default_rng(seed)).tolist()
    assert mask[drawn].all()
    assert len(set(drawn)) == len(drawn) == min(count, int(mask.sum()))


def test_some_are_all_alike() -> None:
    rng = np.random.default_rng(0)
    mask = np.array([True, False, True, True])
    often = np.bincount(np.concatenate([some(mask, 2, rng) for _ in range(1500)]), minlength=4)
    np.testing.assert_allclose(often / 1500, [2 / 3, 0, 2 / 3, 2 / 3], atol=0.05)


@settings(deadline=None, max_examples=300)
@given(MASKS, st.integers(1, 9), st.integers(0, 2**32))
def test_a_step_flips_as_many_in_as_out_and_never_empties_a_mask(mask: Masks, count: int, seed: int) -> None:
    mask[0] |= not mask.any()
    dim, size = len(mask), int(mask.sum())
    flipped = step(mask, count, Prior(None, dim), np.random.default_rng(seed))
    assert len(set(flipped.tolist())) == len(flipped) <= count
    after = mask.copy()
    after[flipped] ^= True
    assert after.any()
    out, into = int(mask[flipped].sum()), int((~mask[flipped]).sum())
    if count > 1:
        assert into == min(count - count // 2, dim - size)
        assert out == min(count // 2, size if into else max(0, size - 1))
    else:
        assert out + into == 1 or size in (1, dim), "only the last one is kept, and a full mask takes none"


@pytest.mark.parametrize("mask", [[True], [True, True], [True, False], [False, True]])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_narrowest_data(mask: list[bool], count: int) -> None:
    for seed in range(40):
        flipped = step(np.array(mask), count, Prior(None, len(mask)), np.random.default_rng(seed))
        after = np.array(mask)
        after[flipped] ^= True
        assert after.any()


def test_one_bit_goes_in_or_out_with_equal_chance() -> None:
    mask, prior, rng = np.arange(20) < 6, Prior(None, 20), np.random.default_rng(1)
    flipped = [step(mask, 1, prior, rng) for _ in range(2000)]
    assert {len(f) for f in flipped} == {1}
    assert np.mean([mask[f[0]] for f in flipped]) == pytest.approx(0.5, abs=0.04)
