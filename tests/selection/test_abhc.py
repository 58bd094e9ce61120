"""Adaptive beta-hill climbing against Eq. 16-17."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Values

from cotray.config import AbhcConfig
from cotray.selection.abhc import HillClimb, beta, reach
from cotray.selection.moves import Prior
from cotray.selection.transfer import Masks, Positions
from cotray.stages.state import pack, unpack

MOVES = ("few", "one", "all")


def climb_from(positions: Any, seed: int = 0, worth: float = 1.0, **settings: Any) -> HillClimb:
    """A refinement of one position or of several, each worth the same."""
    climb = HillClimb(AbhcConfig.model_validate(settings), np.random.default_rng(seed))
    start = np.atleast_2d(np.array(positions, float))
    climb.start(start, start > 0.5, np.full(len(start), worth))
    return climb


# -- Eq. 16-17 ---------------------------------------------------------------------------------------------


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


def neighbour_by_hand(
    parent: Positions, cfg: AbhcConfig, t: int, rng: np.random.Generator
) -> tuple[Positions, Masks]:
    """Eq. 16 on all coordinates or on one, then Eq. 17; coordinate by coordinate, with the same draws."""
    rows, dim = parent.shape
    away = rng.uniform(-1, 1, parent.shape)
    chosen = rng.integers(dim, size=rows) if cfg.moves == "one" else None
    lot, fresh = rng.uniform(0, 1, parent.shape), rng.uniform(0, 1, parent.shape)
    candidate = np.empty_like(parent)
    for i in range(rows):
        for d in range(dim):
            moves = chosen is None or chosen[i] == d
            far = (1 - (t / cfg.steps) ** (1 / cfg.p)) if moves else 0.0
            candidate[i, d] = min(1.0, max(0.0, parent[i, d] + away[i, d] * far))
            if lot[i, d] < cfg.beta_min + t * (cfg.beta_max - cfg.beta_min) / cfg.steps:
                candidate[i, d] = fresh[i, d] if cfg.beta_rule == "redraw" else parent[i, d]
        if not (candidate[i] > 0.5).any():
            d = int(rng.integers(dim, size=1)[0])
            candidate[i, d] = 1 - candidate[i, d]
    return candidate, candidate > 0.5


@pytest.mark.parametrize("moves", ["all", "one"])
@pytest.mark.parametrize("rule", ["redraw", "revert"])
def test_neighbours_are_equations_16_and_17_written_out(moves: str, rule: str) -> None:
    start = np.random.default_rng(2).uniform(size=(3, 20))
    climb = climb_from(
        start, 1, moves=moves, beta_rule=rule, steps=5, p=3, beta_min=0.05, beta_max=0.4, width=2
    )
    for t in range(1, 6):
        parent = np.repeat(climb.position_AD, 2, axis=0)
        candidate, mask = neighbour_by_hand(parent, climb.cfg, t, copy.deepcopy(climb.rng))
        np.testing.assert_array_equal(climb.ask(), mask)
        np.testing.assert_allclose(climb.candidate_PD, candidate, atol=1e-12)
        climb.tell(np.linspace(1, 0, 6) / t)


def test_neighbour_is_within_reach_and_on_its_masks_side() -> None:
    """Without beta, every coordinate of the neighbour lies within N(t) of the parent's."""
    parent = np.random.default_rng(1).uniform(size=400)
    climb = climb_from(parent, moves="all", steps=4, beta_min=0, beta_max=0)
    for step in range(1, 5):
        mask = climb.ask()
        far = np.abs(climb.candidate_PD - parent)
        assert far.max() <= 1 - (step / 4) ** 0.5 + 1e-12
        assert far.max() >= 0.9 * min(1 - (step / 4) ** 0.5, 0.5)
        np.testing.assert_array_equal(climb.candidate_PD > 0.5, mask)
        climb.tell(np.array([2.0]))


def test_one_coordinate_moves_as_in_the_original() -> None:
    parent = np.random.default_rng(1).uniform(0.3, 0.7, size=30)
    climb = climb_from([parent] * 200, moves="one", steps=4, beta_min=0, beta_max=0)
    climb.ask()
    moved = climb.candidate_PD != parent
    assert (moved.sum(axis=1) == 1).all()
    assert (moved.sum(axis=0) > 0).all()
    assert np.abs(climb.candidate_PD - parent).max() <= 0.5


def test_beta_redraws_its_share_anywhere() -> None:
    """At the last step N(t) is 0: only coordinates drawn by beta differ from the parent's."""
    climb = climb_from([0.9] * 4000, moves="all", steps=1, beta_min=0, beta_max=0.3, beta_rule="redraw")
    climb.ask()
    changed = climb.candidate_PD != 0.9
    assert changed.mean() == pytest.approx(0.3, abs=0.03)
    assert climb.candidate_PD[changed].mean() == pytest.approx(0.5, abs=0.03)


def test_beta_reverts_its_share_to_the_parent() -> None:
    wide = climb_from([0.6] * 4000, moves="all", steps=2, beta_min=0, beta_max=0.8, beta_rule="revert")
    wide.ask()
    assert (wide.candidate_PD == 0.6).mean() == pytest.approx(beta(1, 2, 0, 0.8), abs=0.03)
    last = climb_from([0.6] * 50, moves="all", steps=1, beta_min=1, beta_max=1, beta_rule="revert")
    np.testing.assert_array_equal(last.ask()[0], np.ones(50, bool))


# -- few bits ----------------------------------------------------------------------------------------------


def test_one_or_two_bits_flip_two_with_probability_n() -> None:
    """At t = 1 of 16 with P = 2, N is 0.75: one in and one out; else one of either."""
    start = np.where(np.arange(60) < 20, 0.9, 0.1)
    climb = climb_from([start] * 3000, moves="few", steps=16, beta_min=0, beta_max=0)
    change = climb.ask() ^ (start > 0.5)
    out, into = change[:, :20].sum(axis=1), change[:, 20:].sum(axis=1)
    assert (out <= 1).all() and (into <= 1).all() and (out + into >= 1).all()
    assert (out + into == 2).mean() == pytest.approx(0.75, abs=0.03)
    assert out[out + into == 1].mean() == pytest.approx(0.5, abs=0.07)
    assert (change.sum(axis=0) > 10).all(), "every bit can flip"
    assert ((climb.candidate_PD >= 0) & (climb.candidate_PD <= 1)).all()
    same = np.isclose(climb.candidate_PD, start)
    np.testing.assert_array_equal(~same, change)


def test_bits_come_in_by_rank() -> None:
    cfg = AbhcConfig(moves="few", steps=16, beta_min=0, beta_max=0)
    climb = HillClimb(cfg, np.random.default_rng(0), Prior(-np.arange(200.0), 200))
    start = np.tile(np.where(np.arange(200) == 150, 0.9, 0.1), (2000, 1))
    climb.start(start, start > 0.5, np.ones(2000))
    into = (climb.ask() & (np.arange(200) != 150)).sum(axis=0)
    weight = np.array([0.0 if i == 150 else 1 / (i + 10) for i in range(200)])
    expected = weight[:20].sum() / weight.sum()
    assert into[:20].sum() / into.sum() == pytest.approx(expected, abs=0.05)


def test_beta_acts_on_taken_features_only() -> None:
    """At the last step one bit flips; of the taken features beta draws its share anew, half fall out."""
    start = np.where(np.arange(4000) < 3000, 0.9, 0.1)
    climb = climb_from(start, moves="few", steps=1, beta_min=0, beta_max=0.2)
    mask = climb.ask()[0]
    assert (climb.candidate_PD[0, :3000] != 0.9).mean() == pytest.approx(0.2, abs=0.03)
    assert mask[:3000].mean() == pytest.approx(0.9, abs=0.02)
    assert mask[3000:].sum() <= 1
    back = climb_from(start, moves="few", steps=1, beta_min=1, beta_max=1, beta_rule="revert")
    assert (back.ask()[0] != (start > 0.5)).sum() <= 1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(1, 4), st.sampled_from(MOVES), st.floats(0, 1), st.sampled_from([1, 3])
)
def test_masks_are_never_empty_and_positions_stay_in_the_box(
    seed: int, dim: int, moves: str, most: float, width: int
) -> None:
    """The narrowest data: the last feature never gets lost, a full mask takes no other."""
    start = np.where(np.random.default_rng(seed).uniform(size=(2, dim)) < 0.5, 0.51, 0.49)
    start[:, 0] = 0.51
    climb = climb_from(start, seed, moves=moves, steps=6, beta_min=0, beta_max=most, width=width)
    while not climb.done:
        mask = climb.ask()
        assert mask.shape == (2 * width, dim)
        assert mask.any(axis=1).all()
        assert ((climb.candidate_PD >= 0) & (climb.candidate_PD <= 1)).all()
        climb.tell(np.zeros(2 * width))
        np.testing.assert_array_equal(climb.mask_AD, climb.position_AD > 0.5)
        assert climb.mask_AD.any(axis=1).all()


# -- what is told ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    climbers=st.integers(1, 3),
    width=st.integers(1, 4),
    moves=st.sampled_from(MOVES),
    rule=st.sampled_from(["redraw", "revert"]),
)
def test_every_climber_keeps_the_best_of_what_it_was_told(
    seed: int, climbers: int, width: int, moves: str, rule: str
) -> None:
    """Of the neighbours of a step the first best one, if it is not worse; values as coarse as ties need."""
    rng = np.random.default_rng(seed)
    climb = climb_from(
        rng.uniform(size=(climbers, 7)), seed, moves=moves, steps=5, width=width, beta_rule=rule
    )
    best, masks = [1.0] * climbers, list(climb.mask_AD.copy())
    while not climb.done:
        asked, worth = climb.ask().copy(), rng.integers(0, 6, climbers * width) / 4
        climb.tell(worth)
        for c in range(climbers):
            w = min(range(c * width, (c + 1) * width), key=lambda row: worth[row])
            if worth[w] <= best[c]:
                best[c], masks[c] = worth[w], asked[w]
        np.testing.assert_array_equal(climb.fitness_A, best)
        np.testing.assert_array_equal(climb.mask_AD, masks)


def test_equal_fitness_moves_on() -> None:
    climb = climb_from([0.2, 0.8, 0.4, 0.6], steps=3)
    climb.ask()
    candidate = climb.candidate_PD.copy()
    climb.tell(np.array([1.0]))
    np.testing.assert_array_equal(climb.position_AD, candidate)


@pytest.mark.parametrize("moves", MOVES)
def test_neighbours_that_nobody_scored_are_not_moved_to(moves: str) -> None:
    climb = climb_from(np.random.default_rng(0).uniform(size=(2, 9)), moves=moves, steps=3, width=2)
    before = climb.mask_AD.copy()
    second = climb.ask()[1].copy()
    climb.tell(np.array([np.inf, 0.5, np.inf, np.inf]))
    np.testing.assert_array_equal(climb.mask_AD, [second, before[1]])
    np.testing.assert_array_equal(climb.fitness_A, [0.5, 1.0])


def test_done_after_its_steps() -> None:
    climb = HillClimb(AbhcConfig(steps=3), np.random.default_rng(0))
    assert climb.done and not climb.begun
    climb.start(np.array([[0.7, 0.2]]), np.array([[False, True]]), np.array([0.5]))
    assert climb.begun
    np.testing.assert_array_equal(climb.mask_AD, [[False, True]])
    for _ in range(3):
        assert not climb.done
        assert climb.ask().shape == (1, 2)
        climb.tell(np.array([0.4]))
    assert climb.done and climb.begun


def test_what_it_was_given_is_not_touched() -> None:
    position, mask, worth = np.full((2, 5), 0.7), np.ones((2, 5), bool), np.ones(2)
    climb = HillClimb(AbhcConfig(steps=4), np.random.default_rng(0))
    climb.start(position, mask, worth)
    while not climb.done:
        climb.ask()
        climb.tell(np.zeros(2))
    assert (position == 0.7).all() and mask.all() and (worth == 1).all()


def worth_of(mask_PD: Masks) -> Values:
    return np.asarray(mask_PD.mean(axis=1))


@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("waiting", [False, True])
def test_goes_on_from_its_state(moves: str, waiting: bool) -> None:
    """Saved between two steps, or between a question and its answer."""
    start = np.random.default_rng(3).uniform(size=(2, 12))
    whole = climb_from(start, moves=moves, steps=6, width=2)
    whole.tell(worth_of(whole.ask()))
    worth = worth_of(whole.ask()) if waiting else None
    resumed = HillClimb(whole.cfg, copy.deepcopy(whole.rng))
    resumed.load_state_dict(unpack(pack(whole.state_dict())))
    while not whole.done:
        for climb in (whole, resumed):
            climb.tell(worth_of(climb.ask()) if worth is None else worth)
        worth = None
        np.testing.assert_array_equal(resumed.position_AD, whole.position_AD)
        np.testing.assert_array_equal(resumed.fitness_A, whole.fitness_A)
    assert resumed.done
