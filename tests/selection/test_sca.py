"""Sine-cosine algorithm against Eq. 14-15 written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.config import ScaConfig
from cotray.selection.sca import SineCosine, move, ranked_positions
from cotray.selection.transfer import Positions


def eq_14(positions: Positions, best: Positions, t: int, total: int, a: float, seed: int) -> Positions:
    """One coordinate at a time, with the same draws as the library: all r2, all r3, all r4."""
    rng = np.random.default_rng(seed)
    r2 = rng.uniform(0, 2 * math.pi, positions.shape)
    r3 = rng.uniform(0, 2, positions.shape)
    r4 = rng.uniform(0, 1, positions.shape)
    r1 = a - t * a / total  # Eq. 15
    moved = np.empty_like(positions)
    for i in range(positions.shape[0]):
        for d in range(positions.shape[1]):
            wave = math.sin(r2[i, d]) if r4[i, d] < 0.5 else math.cos(r2[i, d])
            x = positions[i, d] + r1 * wave * abs(r3[i, d] * best[d] - positions[i, d])
            moved[i, d] = min(1.0, max(0.0, x))
    return moved


@pytest.mark.parametrize("t", [1, 7, 20])
@pytest.mark.parametrize("a", [2.0, 0.7])
def test_move_is_equation_14(t: int, a: float) -> None:
    rng = np.random.default_rng(5)
    positions, best = rng.uniform(size=(4, 30)), rng.uniform(size=30)
    got = move(positions, best, t / 20, a, np.random.default_rng(9))
    np.testing.assert_allclose(got, eq_14(positions, best, t, 20, a, seed=9), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0.01, 50))
def test_positions_stay_in_the_unit_box(seed: int, progress: float, a: float) -> None:
    rng = np.random.default_rng(seed)
    moved = move(rng.uniform(size=(3, 9)), rng.uniform(size=9), progress, a, rng)
    assert ((moved >= 0) & (moved <= 1)).all()


def test_at_the_end_nothing_moves() -> None:
    positions = np.random.default_rng(0).uniform(size=(3, 9))
    np.testing.assert_array_equal(move(positions, np.ones(9), 1.0, 2.0, np.random.default_rng(1)), positions)


def test_ranked_positions_favour_good_scores_and_vary_density() -> None:
    rng = np.random.default_rng(2)
    score = rng.permutation(200).astype(float)
    positions = ranked_positions(score, 12, rng)
    assert positions.shape == (12, 200)
    assert ((positions >= 0) & (positions <= 1)).all()
    taken = positions > 0.5
    assert taken[:, score >= 180].mean() > 0.4 > 0.05 > taken[:, score < 100].mean()
    density = taken.mean(axis=1)
    assert density[0] < 0.06 and 0.4 < density[-1] < 0.6
    assert (np.diff(density) > -0.03).all()


@pytest.mark.parametrize("transfer", ["sigmoid", "vshaped"])
def test_first_masks_favour_good_scores_under_both_transfers(transfer: str) -> None:
    score = np.arange(100.0)
    sca = SineCosine(100, ScaConfig(agents=20, transfer=transfer), np.random.default_rng(3), score)
    masks = sca.ask()
    assert masks[:, 90:].mean() > 0.5 > 0.2 > masks[:, :50].mean()


def test_random_start_ignores_scores() -> None:
    cfg = ScaConfig(agents=20, init="random")
    with_scores = SineCosine(50, cfg, np.random.default_rng(3), np.arange(50.0))
    without = SineCosine(50, cfg, np.random.default_rng(3))
    np.testing.assert_array_equal(with_scores.ask(), without.ask())
    assert 0.4 < with_scores.mask_PD.mean() < 0.6


def test_later_agents_move_as_equation_14_towards_the_best() -> None:
    """The whole of ask: r1 falls with t/T, and the destination is the best position so far."""
    sca = SineCosine(12, ScaConfig(agents=4, iterations=5, init="random"), np.random.default_rng(4))
    worth = np.array([0.3, 0.1, 0.4, 0.2])
    sca.ask()
    sca.tell(worth)
    for t in (1, 2):
        before, best = sca.position_PD.copy(), sca.best_position_D.copy()
        sca.rng = np.random.default_rng(t)
        sca.ask()
        np.testing.assert_allclose(sca.position_PD, eq_14(before, best, t, 5, 2.0, seed=t), atol=1e-12)
        sca.tell(worth + 1)


def test_destination_is_the_best_so_far_only() -> None:
    sca = SineCosine(6, ScaConfig(agents=3), np.random.default_rng(0))
    first = sca.ask().copy()
    sca.tell(np.array([0.5, 0.2, 0.9]))
    np.testing.assert_array_equal(sca.best_mask_D, first[1])
    sca.ask()
    sca.tell(np.array([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(sca.best_mask_D, first[1])
    third = sca.ask().copy()
    sca.tell(np.array([0.3, 0.3, 0.1]))
    np.testing.assert_array_equal(sca.best_mask_D, third[2])
    assert sca.best_fitness == 0.1
