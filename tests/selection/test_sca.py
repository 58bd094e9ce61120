"""Sine-cosine algorithm against Eq. 14-15 written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PRINTED, Values, cheap

from cotray.config import ScaConfig
from cotray.selection.moves import Prior, some
from cotray.selection.sca import SineCosine, move
from cotray.selection.transfer import TRANSFER, Masks, Positions


def moved_by_hand(x: float, best: float, r1: float, r2: float, r3: float, r4: float) -> float:
    """Eq. 14 for one coordinate."""
    wave = math.sin(r2) if r4 < 0.5 else math.cos(r2)
    return min(1.0, max(0.0, x + r1 * wave * abs(r3 * best - x)))


def eq_14(
    positions: Positions, best: Positions, t: int, total: int, a: float, rng: np.random.Generator
) -> Positions:
    """One coordinate at a time, with the same draws as the library: all r2, all r3, all r4."""
    r2 = rng.uniform(0, 2 * math.pi, positions.shape)
    r3 = rng.uniform(0, 2, positions.shape)
    r4 = rng.uniform(0, 1, positions.shape)
    r1 = a - t * a / total  # Eq. 15
    moved = np.empty_like(positions)
    for at in np.ndindex(positions.shape):
        moved[at] = moved_by_hand(positions[at], best[at[-1]], r1, r2[at], r3[at], r4[at])
    return moved


def sca_of(dim: int = 12, seed: int = 4, scores: bool = True, **settings: Any) -> SineCosine:
    cfg = ScaConfig.model_validate({"agents": 4, "iterations": 5} | settings)
    return SineCosine(dim, cfg, np.random.default_rng(seed), np.arange(float(dim)) if scores else None)


# -- Eq. 14-15 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 7, 20])
@pytest.mark.parametrize("a", [2.0, 0.7])
def test_move_is_equation_14(t: int, a: float) -> None:
    rng = np.random.default_rng(5)
    positions, best = rng.uniform(size=(4, 30)), rng.uniform(size=30)
    got = move(positions, best, t / 20, a, np.random.default_rng(9))
    expected = eq_14(positions, best, t, 20, a, np.random.default_rng(9))
    np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0.01, 50))
def test_positions_stay_in_the_unit_box(seed: int, progress: float, a: float) -> None:
    rng = np.random.default_rng(seed)
    moved = move(rng.uniform(size=(3, 9)), rng.uniform(size=9), progress, a, rng)
    assert ((moved >= 0) & (moved <= 1)).all()


def test_at_the_end_nothing_moves() -> None:
    positions = np.random.default_rng(0).uniform(size=(3, 9))
    np.testing.assert_array_equal(move(positions, np.ones(9), 1.0, 2.0, np.random.default_rng(1)), positions)


def bit_by_hand(x: float, taken: bool, draw: float, transfer: str) -> bool:
    """The transfer of one coordinate: the paper's sigmoid, or a flip."""
    if transfer == "vshaped":
        return taken ^ bool(draw < abs(math.tanh(5 * (x - 0.5))))
    return bool(draw < 1 / (1 + math.exp(-10 * (x - 0.5))))


def printed_sca(dim: int, agents: int, total: int, transfer: str, rng: np.random.Generator) -> list[Masks]:
    """The algorithm as printed, agent by agent and feature by feature: the masks of every iteration."""
    x, bits = rng.uniform(0, 1, (agents, dim)), np.zeros((agents, dim), bool)
    best, best_worth, asked = np.full(dim, 0.5), math.inf, []
    for t in range(total):
        x = eq_14(x, best, t, total, 2.0, rng) if t else x
        draw = rng.uniform(0, 1, (agents, dim))
        for i, d in np.ndindex(agents, dim):
            bits[i, d] = bit_by_hand(x[i, d], bool(bits[i, d]), draw[i, d], transfer if t else "sigmoid")
        for i in np.flatnonzero([not any(row) for row in bits]):
            bits[i, int(rng.integers(dim, size=1)[0])] = True
        asked.append(bits.copy())
        for i, worth in enumerate(cheap(bits)):
            if worth < best_worth:
                best, best_worth = x[i].copy(), worth
    return asked


@pytest.mark.parametrize("transfer", ["sigmoid", "vshaped"])
@pytest.mark.parametrize("dim", [3, 15])
def test_as_printed_it_is_the_algorithm_written_out(transfer: str, dim: int) -> None:
    """The whole of it: start, r1 falling with t/T, destination, transfer, repair of empty masks."""
    expected = printed_sca(dim, 6, 12, transfer, np.random.default_rng(8))
    sca = sca_of(dim, 8, agents=6, iterations=12, transfer=transfer, **PRINTED)
    for masks in expected:
        np.testing.assert_array_equal(sca.ask(), masks)
        sca.tell(cheap(masks))


def test_the_share_of_a_budget_stands_for_t_over_T() -> None:
    timed, counted = (sca_of(iterations=n, **PRINTED) for n in (10**9, 5))
    for t in range(5):
        timed.pace = t / 5
        worth = cheap(timed.ask())
        np.testing.assert_array_equal(timed.asked_mask_PD, counted.ask())
        timed.tell(worth)
        counted.tell(worth)
    timed.pace = 1.7
    assert timed.progress == 1.0


# -- where it starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", sorted(TRANSFER))
def test_first_masks_are_the_best_features_under_every_transfer(transfer: str) -> None:
    masks = sca_of(100, agents=20, transfer=transfer).ask()
    for mask in masks:
        assert mask[100 - mask.sum() :].all()


def test_random_start_ignores_scores() -> None:
    with_scores, without = (sca_of(50, scores=scored, agents=20, init="random") for scored in (True, False))
    np.testing.assert_array_equal(with_scores.ask(), without.ask())
    assert 0.4 < with_scores.asked_mask_PD.mean() < 0.6


# -- few coordinates ---------------------------------------------------------------------------------------


def few_by_hand(sca: SineCosine, t: int, rng: np.random.Generator) -> tuple[Positions, Masks]:
    """Eq. 14 on features of the agent or the best, and on others by rank; coordinate by coordinate."""
    cfg, prior = sca.cfg, Prior(np.arange(float(sca.mask_PD.shape[1])), sca.mask_PD.shape[1])
    positions, masks = sca.position_PD.copy(), sca.mask_PD.copy()
    for i in range(cfg.agents):
        union = np.array([a or b for a, b in zip(masks[i], sca.best_mask_D, strict=True)])
        touched = [*some(union, math.ceil(cfg.few / 2), rng), *prior.draw(max(1, cfg.few // 2), union, rng)]
        moved = eq_14(positions[i, touched], sca.best_position_D[touched], t, cfg.iterations, cfg.a, rng)
        for d, x, draw in zip(touched, moved, rng.uniform(0, 1, len(touched)), strict=True):
            masks[i, d] = bit_by_hand(x, bool(masks[i, d]), draw, cfg.transfer)
            positions[i, d] = x
    for i in range(cfg.agents):
        if not masks[i].any():
            masks[i, int(rng.integers(masks.shape[1], size=1)[0])] = True
    return positions, masks


@pytest.mark.parametrize("transfer", ["sigmoid", "vshaped"])
@pytest.mark.parametrize(("dim", "few"), [(30, 4), (30, 7), (9, 1), (3, 4), (2, 9), (1, 4)])
def test_few_moves_are_equation_14_on_few_coordinates(transfer: str, dim: int, few: int) -> None:
    sca = sca_of(dim, iterations=6, few=few, transfer=transfer)
    sca.tell(cheap(sca.ask()))
    for t in range(1, 6):
        positions, masks = few_by_hand(sca, t, copy.deepcopy(sca.rng))
        np.testing.assert_array_equal(sca.ask(), masks)
        np.testing.assert_allclose(sca.asked_position_PD, positions, atol=1e-12)
        sca.tell(cheap(masks))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**32), st.sampled_from(sorted(TRANSFER)))
def test_few_moves_leave_the_others_alone(dim: int, few: int, seed: int, transfer: str) -> None:
    sca = sca_of(dim, seed, few=few, transfer=transfer, init="sparse")
    sca.tell(cheap(sca.ask()))
    for _ in range(4):
        before = sca.position_PD.copy(), sca.mask_PD.copy()
        masks = sca.ask()
        touched = (sca.asked_position_PD != before[0]) | (masks != before[1])
        repaired = masks.sum(axis=1) == 1
        assert (touched.sum(axis=1) <= max(2, few) + repaired).all()
        assert masks.any(axis=1).all()
        assert ((sca.asked_position_PD >= 0) & (sca.asked_position_PD <= 1)).all()
        sca.tell(cheap(masks))


# -- what is told ------------------------------------------------------------------------------------------


def test_destination_is_the_best_so_far_only() -> None:
    sca = sca_of(6, agents=3)
    first, position = sca.ask().copy(), sca.asked_position_PD[1].copy()
    sca.tell(np.array([0.5, 0.2, 0.9]))
    np.testing.assert_array_equal(sca.best_mask_D, first[1])
    sca.ask()
    sca.tell(np.array([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(sca.best_mask_D, first[1])
    np.testing.assert_array_equal(sca.best_position_D, position)
    third = sca.ask().copy()
    sca.tell(np.array([0.3, 0.3, 0.1]))
    np.testing.assert_array_equal(sca.best_mask_D, third[2])
    np.testing.assert_array_equal(sca.best_position_D, sca.asked_position_PD[2])
    assert sca.best_fitness == 0.1


def told(sca: SineCosine, worth: list[Values]) -> list[tuple[Positions, Masks, Values]]:
    """What is asked, and what agents are then."""
    seen = []
    for value in worth:
        sca.ask()
        sca.tell(value)
        seen.append((sca.asked_position_PD.copy(), sca.asked_mask_PD.copy(), value))
    return seen


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(["few", "all"]))
def test_greedy_agents_are_at_their_best_so_far(seed: int, moves: str) -> None:
    """Of equals at the latest one."""
    rng = np.random.default_rng(seed)
    sca = sca_of(seed=seed, moves=moves, greedy=True)
    seen = told(sca, [rng.integers(0, 4, 4) / 4 for _ in range(5)])
    for agent in range(4):
        at = min(range(5), key=lambda t: (seen[t][2][agent], -t))
        np.testing.assert_array_equal(sca.position_PD[agent], seen[at][0][agent])
        np.testing.assert_array_equal(sca.mask_PD[agent], seen[at][1][agent])
        assert sca.fitness_P[agent] == seen[at][2][agent]


@pytest.mark.parametrize("moves", ["few", "all"])
def test_others_move_on_whatever_they_found(moves: str) -> None:
    sca = sca_of(moves=moves, greedy=False)
    position, mask, worth = told(sca, [np.full(4, t) for t in (0.1, 0.4, 0.9)])[-1]
    np.testing.assert_array_equal(sca.position_PD, position)
    np.testing.assert_array_equal(sca.mask_PD, mask)
    np.testing.assert_array_equal(sca.fitness_P, worth)
    assert sca.best_fitness == 0.1


@pytest.mark.parametrize("greedy", [True, False])
def test_masks_that_nobody_scored_are_never_the_best(greedy: bool) -> None:
    """A budget that ends within a batch tells the rest as infinitely bad."""
    sca = sca_of(greedy=greedy)
    sca.ask()
    sca.tell(np.full(4, np.inf))
    assert sca.best_fitness == np.inf and not sca.best_mask_D.any()
    masks = sca.ask().copy()
    sca.tell(np.array([np.inf, 0.7, np.inf, np.inf]))
    np.testing.assert_array_equal(sca.best_mask_D, masks[1])
    sca.ask()
    sca.tell(np.full(4, np.inf))
    assert sca.best_fitness == 0.7


def test_agents_that_were_replaced_go_on_from_there() -> None:
    sca = sca_of(few=2)
    sca.tell(cheap(sca.ask()))
    masks, positions = np.eye(4, 12, dtype=bool), np.full((4, 12), 0.25)
    sca.replace(positions, masks, np.zeros(4))
    asked = sca.ask().copy()
    assert ((asked != masks).sum(axis=1) <= 3).all()
    assert ((sca.asked_position_PD != 0.25).sum(axis=1) <= 2).all()
    sca.tell(np.ones(4))
    np.testing.assert_array_equal(sca.mask_PD, masks)
    np.testing.assert_array_equal(positions, np.full((4, 12), 0.25))


def test_what_is_offered_counts_if_it_is_better() -> None:
    sca = sca_of()
    sca.tell(np.array([0.4, 0.3, 0.5, 0.6]) + 0 * cheap(sca.ask()))
    before = sca.best_mask_D.copy()
    sca.offer(np.ones(12), np.ones(12, bool), 0.3)
    np.testing.assert_array_equal(sca.best_mask_D, before)
    mask = np.arange(12) < 2
    sca.offer(np.where(mask, 0.9, 0.1), mask, 0.2)
    mask[:] = True
    assert sca.best_mask_D.sum() == 2 and sca.best_fitness == 0.2
