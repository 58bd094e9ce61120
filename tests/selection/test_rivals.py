"""The rivals of SCA: genetic algorithm, binary particle swarm and random search, written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from planted import cheap

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.rivals import SEARCHES, GeneticSearch, PopulationSearch, SwarmSearch
from cotray.selection.search import SelectionSearch

DIM = 14
RIVALS = ("ga", "pso", "random")


def rival(name: str, seed: int = 0, dim: int = DIM, **sca: Any) -> PopulationSearch:
    cfg = ScaConfig.model_validate({"agents": 6, "iterations": 8, "init": "sparse"} | sca)
    search = SEARCHES[name](dim, cfg, AbhcConfig(), seed=seed, init_scores=np.arange(float(dim)))
    assert isinstance(search, PopulationSearch)
    return search


def begun(name: str, rounds: int = 2, **settings: Any) -> PopulationSearch:
    search = rival(name, **settings)
    for _ in range(rounds):
        search.tell(cheap(search.ask()))
    return search


def test_names() -> None:
    assert set(SEARCHES) == {"sca", *RIVALS}
    assert isinstance(SEARCHES["sca"](3, ScaConfig(), AbhcConfig(), seed=0), SelectionSearch)


@pytest.mark.parametrize("name", RIVALS)
def test_they_start_where_sca_starts(name: str) -> None:
    """Rivals share the starting population, so that only the search differs."""
    for init in ("ranked", "sparse"):
        cfg = ScaConfig.model_validate({"agents": 6, "init": init})
        score_D = np.arange(float(DIM))
        mine, sca = (SEARCHES[n](DIM, cfg, AbhcConfig(), seed=5, init_scores=score_D) for n in (name, "sca"))
        np.testing.assert_array_equal(mine.ask(), sca.ask())


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("dim", [1, 2])
def test_the_narrowest_data(name: str, dim: int) -> None:
    search = rival(name, dim=dim, init="random")
    while not search.done:
        masks = search.ask()
        assert masks.any(axis=1).all()
        search.tell(cheap(masks))
    assert search.result.mask.all()


# -- genetic algorithm ------------------------------------------------------------------------------------


def test_children_are_crossed_winners_of_tournaments_mutated_by_one_over_d() -> None:
    search = begun("ga")
    population, worth = search.mask_PD.copy(), search.fitness_P.copy()
    rng = copy.deepcopy(search.rng)
    parents = []
    for _ in range(2):
        pairs = rng.integers(6, size=(6, 2))
        parents.append([a if worth[a] <= worth[b] else b for a, b in pairs])
    cross, mutation = rng.uniform(0, 1, (6, DIM)), rng.uniform(0, 1, (6, DIM))
    expected = np.zeros((6, DIM), bool)
    for i in range(6):
        for d in range(DIM):
            parent = parents[0][i] if cross[i, d] < 0.5 else parents[1][i]
            expected[i, d] = population[parent, d] ^ (mutation[i, d] < 1 / DIM)
        if not expected[i].any():
            expected[i, int(rng.integers(DIM, size=1)[0])] = True
    np.testing.assert_array_equal(search.ask(), expected)


def test_the_fitter_half_of_parents_and_children_stays() -> None:
    search = begun("ga", 1)
    for _ in range(6):
        parents = [(f, m.tobytes()) for f, m in zip(search.fitness_P, search.mask_PD, strict=True)]
        masks = search.ask().copy()
        search.tell(cheap(masks))
        children = [(f, m.tobytes()) for f, m in zip(cheap(masks), masks, strict=True)]
        kept = sorted(parents + children, key=lambda one: one[0])[:6]
        assert search.fitness_P.tolist() == [f for f, _ in kept]
        assert [m.tobytes() for m in search.mask_PD] == [m for _, m in kept]
    np.testing.assert_array_equal(search.fitness_P, cheap(search.mask_PD))


def test_a_first_generation_that_was_scored_in_part_keeps_that_part() -> None:
    """A search whose budget ended there, and that is given another one."""
    search = rival("ga")
    masks = search.ask().copy()
    search.tell(np.array([0.5, 0.25, *[np.inf] * 4]))
    search.ask()
    search.tell(np.ones(6))
    assert search.fitness_P.tolist() == [0.25, 0.5, 1, 1, 1, 1]
    np.testing.assert_array_equal(search.mask_PD[:2], masks[[1, 0]])


def test_a_migrant_takes_the_worst_ones_place_once() -> None:
    search = begun("ga")
    assert isinstance(search, GeneticSearch)
    worst, migrant = search.fitness_P.argmax(), np.arange(DIM) < 3
    others = np.delete(search.mask_PD, worst, axis=0)
    for _ in range(2):
        search.accept(migrant, 0.0)
        np.testing.assert_array_equal(search.mask_PD[worst], migrant)
        np.testing.assert_array_equal(np.delete(search.mask_PD, worst, axis=0), others)
        assert search.fitness_P[worst] == 0.0


# -- binary particle swarm --------------------------------------------------------------------------------


def test_particles_move_as_kennedy_and_eberhart_print_it() -> None:
    """v = 0.9 v + r1 (own best - x) + r2 (swarm's best - x), r in [0, 2], |v| <= 6; a bit by its sigmoid."""
    search = begun("pso", 3)
    assert isinstance(search, SwarmSearch)
    x, own, best, v = (a.astype(float) for a in (
        search.mask_PD, search.own_PD, search.best_mask_D, search.velocity_PD))  # fmt: skip
    rng = copy.deepcopy(search.rng)
    r1, r2, lot = rng.uniform(0, 2, x.shape), rng.uniform(0, 2, x.shape), rng.uniform(0, 1, x.shape)
    expected = np.zeros(x.shape, bool)
    for i, d in np.ndindex(x.shape):
        speed = 0.9 * v[i, d] + r1[i, d] * (own[i, d] - x[i, d]) + r2[i, d] * (best[d] - x[i, d])
        speed = max(-6.0, min(6.0, speed))
        expected[i, d] = lot[i, d] < 1 / (1 + math.exp(-speed))
        v[i, d] = speed
    for i in np.flatnonzero([not any(row) for row in expected]):
        expected[i, int(rng.integers(DIM, size=1)[0])] = True
    np.testing.assert_array_equal(search.ask(), expected)
    np.testing.assert_allclose(search.velocity_PD, v, atol=1e-12)


def test_particles_remember_their_own_best() -> None:
    search = rival("pso")
    assert isinstance(search, SwarmSearch)
    best: list[tuple[float, bytes]] = [(math.inf, b"")] * 6
    while not search.done:
        masks = search.ask().copy()
        worth = cheap(masks)
        search.tell(worth)
        best = [(w, m.tobytes()) if w < b[0] else b for w, m, b in zip(worth, masks, best, strict=True)]
        assert search.own_P.tolist() == [b[0] for b in best]
        assert [m.tobytes() for m in search.own_PD] == [b[1] for b in best]
        np.testing.assert_array_equal(search.mask_PD, masks)


# -- random search ----------------------------------------------------------------------------------------


def test_random_masks_are_of_any_size_and_content() -> None:
    search = begun("random", 1, agents=4000)
    masks = search.ask()
    size = masks.sum(axis=1)
    expected = 4000 / (DIM + 1)  # each size 0 to D is as likely; an empty mask gets one feature
    often = np.bincount(size, minlength=DIM + 1)
    assert often[0] == 0
    np.testing.assert_allclose(often[2:], expected, atol=5 * np.sqrt(expected))
    np.testing.assert_allclose(often[1], 2 * expected, atol=5 * np.sqrt(2 * expected))
    np.testing.assert_allclose(masks.mean(axis=0), masks.mean(), atol=0.03)
    np.testing.assert_array_equal(begun("random", 1, agents=50).ask(), begun("random", 1, agents=50).ask())


def test_random_search_learns_nothing() -> None:
    one, other = rival("random"), rival("random")
    while not one.done:
        np.testing.assert_array_equal(one.ask(), other.ask())
        one.tell(np.arange(6.0))
        other.tell(-np.arange(6.0))
