"""Transfer functions: probabilities by sampling, repair, reflection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cotray.selection.transfer import TRANSFER, Masks, Positions, reflect, repair

UNIT = st.floats(0, 1) | st.sampled_from([0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)])


def share_taken(name: str, position: float, taken: bool) -> float:
    """Share of 20,000 draws in which a coordinate's bit comes out set."""
    draws = np.random.default_rng(0).uniform(size=(1, 20_000))
    got = TRANSFER[name](np.full_like(draws, position), np.full(draws.shape, taken), draws)
    return float(got.mean())


@pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 0.62, 1.0])
@pytest.mark.parametrize("taken", [False, True])
def test_sigmoid_takes_with_its_probability_whatever_the_mask(position: float, taken: bool) -> None:
    expected = 1 / (1 + np.exp(-10 * (position - 0.5)))
    assert share_taken("sigmoid", position, taken) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 0.62, 1.0])
@pytest.mark.parametrize("taken", [False, True])
def test_vshaped_flips_with_its_probability(position: float, taken: bool) -> None:
    flips = abs(np.tanh(5 * (position - 0.5)))
    assert share_taken("vshaped", position, taken) == pytest.approx(abs(taken - flips), abs=0.015)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(TRANSFER)), arrays(float, (3, 5), elements=UNIT), arrays(bool, (3, 5)))
def test_transfer_leaves_its_arguments(name: str, position: Positions, mask: Masks) -> None:
    before = position.copy(), mask.copy()
    TRANSFER[name](position, mask, np.full((3, 5), 0.4))
    np.testing.assert_array_equal(position, before[0])
    np.testing.assert_array_equal(mask, before[1])


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (4, 6)), st.integers(0, 2**32))
def test_repair_gives_empty_masks_one_feature_and_leaves_others(mask: Masks, seed: int) -> None:
    before = mask.copy()
    mended = repair(mask, np.random.default_rng(seed))
    empty = ~before.any(axis=1)
    np.testing.assert_array_equal(mended[~empty], before[~empty])
    assert (mended[empty].sum(axis=1) == 1).all()


def test_repair_reaches_every_feature() -> None:
    mended = repair(np.zeros((400, 5), bool), np.random.default_rng(1))
    assert (mended.sum(axis=0) > 40).all()


@settings(deadline=None, max_examples=40)
@given(arrays(float, 8, elements=UNIT), arrays(bool, 8))
def test_reflected_position_has_the_mask_and_keeps_its_distance(position: Positions, mask: Masks) -> None:
    moved = reflect(position, mask)
    np.testing.assert_array_equal(moved > 0.5, mask)
    np.testing.assert_allclose(np.abs(moved - 0.5), np.abs(position - 0.5), atol=1e-15)
    assert ((moved >= 0) & (moved <= 1)).all()


@settings(deadline=None, max_examples=40)
@given(arrays(float, 8, elements=UNIT))
def test_a_position_on_its_side_stays(position: Positions) -> None:
    np.testing.assert_array_equal(reflect(position, position > 0.5), position)
