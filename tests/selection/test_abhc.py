"""Adaptive beta-hill climbing against Eq. 16-17."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.config import AbhcConfig
from cotray.selection.abhc import HillClimb, beta, reach


def climb_from(position: list[float], seed: int = 0, **settings: object) -> HillClimb:
    climb = HillClimb(AbhcConfig.model_validate(settings), np.random.default_rng(seed))
    start = np.array(position)
    climb.start(start, start > 0.5, 1.0)
    return climb


@pytest.mark.parametrize(
    ("step", "steps", "p", "expected"),
    [(0, 8, 2.0, 1.0), (2, 8, 2.0, 0.5), (8, 8, 2.0, 0.0), (1, 8, 3.0, 0.5), (3, 4, 1.0, 0.25)],
)
def test_reach_is_equation_16(step: int, steps: int, p: float, expected: float) -> None:
    assert reach(step, steps, p) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "steps", "low", "high", "expected"),
    [(0, 10, 0.1, 0.5, 0.1), (10, 10, 0.1, 0.5, 0.5), (5, 10, 0.1, 0.5, 0.3), (3, 4, 0.0, 1.0, 0.75)],
)
def test_beta_is_equation_17(step: int, steps: int, low: float, high: float, expected: float) -> None:
    assert beta(step, steps, low, high) == pytest.approx(expected)


def test_neighbour_is_within_reach_and_on_its_masks_side() -> None:
    """Without beta, every coordinate of the neighbour lies within N(t) of the parent's."""
    parent = np.random.default_rng(1).uniform(size=400)
    climb = climb_from(parent.tolist(), steps=4, beta_min=0, beta_max=0)
    for step in range(1, 5):
        mask = climb.ask()[0]
        far = np.abs(climb.candidate_D - parent)
        assert far.max() <= 1 - (step / 4) ** 0.5 + 1e-12
        assert far.max() >= 0.9 * min(1 - (step / 4) ** 0.5, 0.5)
        np.testing.assert_array_equal(climb.candidate_D > 0.5, mask)
        climb.tell(2.0)


def test_beta_redraws_its_share_anywhere() -> None:
    """At the last step N(t) is 0: only coordinates drawn by beta differ from the parent's."""
    climb = climb_from([0.9] * 4000, steps=1, beta_min=0, beta_max=0.3, beta_rule="redraw")
    climb.ask()
    changed = climb.candidate_D != 0.9
    assert changed.mean() == pytest.approx(0.3, abs=0.03)
    assert climb.candidate_D[changed].mean() == pytest.approx(0.5, abs=0.03)


def test_beta_reverts_its_share_to_the_parent() -> None:
    wide = climb_from([0.6] * 4000, steps=2, beta_min=0, beta_max=0.8, beta_rule="revert")
    wide.ask()
    assert (wide.candidate_D == 0.6).mean() == pytest.approx(beta(1, 2, 0, 0.8), abs=0.03)
    last = climb_from([0.6] * 50, steps=1, beta_min=1, beta_max=1, beta_rule="revert")
    np.testing.assert_array_equal(last.ask()[0], np.ones(50, bool))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.lists(st.floats(0, 3), min_size=1, max_size=9),
    st.sampled_from(["redraw", "revert"]),
)
def test_never_gets_worse_and_keeps_what_it_was_told(seed: int, worth: list[float], rule: str) -> None:
    position = np.random.default_rng(seed).uniform(size=7)
    climb = climb_from(position.tolist(), seed, steps=len(worth), beta_rule=rule)
    best, mask = 1.0, climb.mask_D
    for value in worth:
        asked = climb.ask()[0].copy()
        climb.tell(value)
        if value <= best:
            best, mask = value, asked
        assert climb.fitness == best
        np.testing.assert_array_equal(climb.mask_D, mask)
    assert climb.done


def test_equal_fitness_moves_on() -> None:
    climb = climb_from([0.2, 0.8, 0.4, 0.6], steps=3)
    climb.ask()
    candidate = climb.candidate_D.copy()
    climb.tell(1.0)
    np.testing.assert_array_equal(climb.position_D, candidate)


def test_done_after_its_steps() -> None:
    climb = HillClimb(AbhcConfig(steps=3), np.random.default_rng(0))
    assert climb.done
    climb.start(np.array([0.7, 0.2]), np.array([False, True]), 0.5)
    np.testing.assert_array_equal(climb.mask_D, [False, True])
    for _ in range(3):
        assert not climb.done
        assert climb.ask().shape == (1, 2)
        climb.tell(0.4)
    assert climb.done


def test_masks_are_never_empty() -> None:
    climb = climb_from([0.51, 0.49], steps=60)
    for _ in range(60):
        assert climb.ask().any()
        climb.tell(0.0)
