"""Transfer functions against their published formulas, repair, reflection."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cotray.selection.transfer import ABOVE, TRANSFER, Masks, Positions, reflect, repair

UNIT = st.floats(0, 1) | st.sampled_from([0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)])

# Mirjalili & Lewis (2013), Table 1, of a velocity v; `sigmoid` and `vshaped` are the paper's.
S_SHAPED: dict[str, Callable[[float], float]] = {
    "s1": lambda v: 1 / (1 + math.exp(-2 * v)),
    "s2": lambda v: 1 / (1 + math.exp(-v)),
    "s3": lambda v: 1 / (1 + math.exp(-v / 2)),
    "s4": lambda v: 1 / (1 + math.exp(-v / 3)),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
}
V_SHAPED: dict[str, Callable[[float], float]] = {
    "v1": lambda v: abs(math.erf(math.sqrt(math.pi) / 2 * v)),
    "v2": lambda v: abs(math.tanh(v)),
    "v3": lambda v: abs(v / math.sqrt(1 + v * v)),
    "v4": lambda v: abs(2 / math.pi * math.atan(math.pi / 2 * v)),
    "vshaped": lambda v: abs(math.tanh(v / 2)),
}
TINY = 1e-9


def outcome(name: str, position: float, taken: bool, draw: float) -> bool:
    """The bit of one coordinate, for one uniform draw."""
    return bool(TRANSFER[name](np.array([[position]]), np.array([[taken]]), np.array([[draw]]))[0, 0])


def test_every_name_has_a_published_formula() -> None:
    assert set(TRANSFER) == set(S_SHAPED) | set(V_SHAPED)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(S_SHAPED)), UNIT, st.booleans())
def test_s_shapes_take_with_the_published_probability(name: str, position: float, taken: bool) -> None:
    """A draw just below the probability takes the feature and one just above does not, whatever its bit."""
    chance = S_SHAPED[name](10 * (position - 0.5))
    assert outcome(name, position, taken, chance - TINY)
    assert not outcome(name, position, taken, chance + TINY)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(V_SHAPED)), UNIT, st.booleans())
def test_v_shapes_flip_with_the_published_probability(name: str, position: float, taken: bool) -> None:
    chance = V_SHAPED[name](10 * (position - 0.5))
    assert outcome(name, position, taken, chance - TINY) is not taken
    assert outcome(name, position, taken, chance + TINY) is taken


@pytest.mark.parametrize("name", sorted(TRANSFER))
def test_whole_arrays_and_the_corners_of_the_box_raise_no_warning(name: str) -> None:
    """Warnings are errors here: no curve overflows on [0, 1]."""
    position = np.tile(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), (3, 1))
    mask, draw = np.zeros((3, 5), bool), np.random.default_rng(0).uniform(size=(3, 5))
    together = TRANSFER[name](position, mask, draw)
    alone = [[outcome(name, position[p, d], False, draw[p, d]) for d in range(5)] for p in range(3)]
    np.testing.assert_array_equal(together, alone)
    assert together.dtype == bool


def test_draws_give_the_papers_share() -> None:
    """Eq. for binary codes: a feature at x is taken with probability 1 / (1 + exp(-10 (x - 0.5)))."""
    draws = np.random.default_rng(0).uniform(size=(1, 20_000))
    got = TRANSFER["sigmoid"](np.full_like(draws, 0.62), np.zeros(draws.shape, bool), draws)
    assert got.mean() == pytest.approx(1 / (1 + math.exp(-1.2)), abs=0.015)


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


def test_the_middle_itself_is_not_taken() -> None:
    np.testing.assert_array_equal(reflect(np.full(2, 0.5), np.array([False, True])), [0.5, ABOVE])
    assert ABOVE > 0.5
