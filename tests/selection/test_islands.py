"""Islands: a ring of searches, against the same searches driven by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted import cheap, run_out, search_of

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.islands import Islands
from cotray.selection.rivals import SEARCHES
from cotray.selection.search import Search
from cotray.stages.state import pack, unpack

DIM = 12


def member(seed: int, optimizer: str = "sca", when: str = "iteration", **sca: Any) -> Search:
    cfg = ScaConfig.model_validate({"agents": 4, "iterations": 6, "init": "sparse"} | sca)
    abhc = AbhcConfig.model_validate({"when": when, "steps": 2})
    return SEARCHES[optimizer](DIM, cfg, abhc, seed=seed)


def ring(count: int = 3, migrate: int = 2, **settings: Any) -> Islands:
    return Islands([member(seed, **settings) for seed in range(count)], migrate)


@pytest.mark.parametrize("optimizer", ["sca", "ga", "pso", "random"])
@pytest.mark.parametrize("migrate", [1, 2, 4])
def test_a_ring_is_its_searches_and_every_so_often_each_offers_its_best_to_the_next(
    optimizer: str, migrate: int
) -> None:
    """What one hears of is what the others had before anyone heard of anything."""
    islands, alone = ring(3, migrate, optimizer=optimizer), [member(seed, optimizer) for seed in range(3)]
    while not islands.done:
        before = len(alone[0].history)
        masks = [search.ask() for search in alone]
        np.testing.assert_array_equal(islands.ask(), np.concatenate(masks))
        islands.tell(cheap(np.concatenate(masks)))
        for search, mask in zip(alone, masks, strict=True):
            search.tell(cheap(mask))
        if len(alone[0].history) > before and len(alone[0].history) % migrate == 0:
            best = [(mask.copy(), fitness) for mask, fitness in (search.best for search in alone)]
            for i, found in enumerate(best):
                alone[(i + 1) % 3].accept(*found)
    assert all(search.done for search in alone)
    assert len(islands.history) == 6
    assert islands.evaluations == sum(search.evaluations for search in alone)
    assert islands.best[1] == min(search.best[1] for search in alone)


@pytest.mark.parametrize("optimizer", ["sca", "ga", "pso"])
def test_what_others_found_changes_the_search(optimizer: str) -> None:
    """Migration is no mere report: from then on other masks are asked."""
    one, other = ring(2, 1, optimizer=optimizer), ring(2, 1000, optimizer=optimizer)
    together, apart = run_out(one), run_out(other)
    differs = zip(together, apart, strict=True)
    assert any((a != b).any() for a, b in differs)


def test_a_mask_given_to_one_island_reaches_all() -> None:
    islands = ring(3, 1, iterations=4)
    islands.tell(cheap(islands.ask()))
    best = np.arange(DIM) < 3
    islands.accept(best, 0.0)
    np.testing.assert_array_equal(islands.best[0], best)
    run_out(islands)
    assert [island.best[1] for island in islands.islands] == [0.0] * 3


@pytest.mark.parametrize(("when", "climb"), [("off", 0), ("iteration", 2), ("end", 2)])
def test_islands_may_end_at_different_times(when: str, climb: int) -> None:
    """The first finds nothing better and ends after three iterations; the other goes on to the last."""
    islands = ring(2, 1000, when=when, patience=2, iterations=7)
    first, other = islands.islands
    asked, value = 0, 1.0
    while not islands.done:
        went_on = not first.done
        masks = islands.ask()
        value *= 0.9
        mine = len(masks) // 2 if went_on and not other.done else len(masks) * went_on
        if went_on and len(masks) == 5:  # one refines, the other has four agents
            mine = 1
        islands.tell(np.where(np.arange(len(masks)) < mine, 1.0, value))
        asked += len(masks)
    assert (len(first.history), len(other.history), len(islands.history)) == (3, 7, 7)
    each = climb if when == "iteration" else 0
    last = climb if when == "end" else 0
    assert asked == islands.evaluations == 3 * (4 + each) + last + 7 * (4 + each) + last
    assert islands.history[-1]["evaluations"] == asked
    assert first.best[1] == 1.0
    assert islands.best[1] == islands.history[-1]["best_fitness"] == other.best[1] == value
    best = [row["best_fitness"] for row in islands.history]
    assert (np.diff(best) < 0).all()


def test_an_island_that_ended_is_asked_no_more_but_still_gives() -> None:
    islands = ring(2, 1, when="off", patience=1, iterations=5, optimizer="pso")
    first, other = islands.islands
    masks = islands.ask()
    islands.tell(np.where(np.arange(8) < 4, 0.25, 1.0))  # the first hands on 0.25
    found = first.best[0].copy()
    np.testing.assert_array_equal(other.best[0], found)
    assert len(masks) == 8
    islands.tell(np.ones(len(islands.ask())))
    assert first.done and not other.done
    assert len(islands.ask()) == 4


def test_the_mean_is_that_of_the_agents_of_all_islands() -> None:
    islands = ring(2, 1000, iterations=2)
    means = []
    while not islands.done:
        worth = cheap(islands.ask())
        if len(worth) == 8:
            means.append(worth.mean())
        islands.tell(worth)
    np.testing.assert_allclose([row["mean_fitness"] for row in islands.history], means)


def test_an_island_that_a_budget_left_out_has_no_best_to_give() -> None:
    islands = ring(3, 1, when="off")
    masks = islands.ask().copy()
    worth = np.full(12, np.inf)
    worth[:6] = cheap(masks[:6])
    islands.tell(worth)
    assert islands.evaluations == 6
    assert islands.best[1] == worth.min()
    assert np.isfinite(islands.history[-1]["mean_fitness"])
    for island in islands.islands[:2]:
        assert any((island.best[0] == mask).all() for mask in masks[:6])
    run_out(islands)
    assert np.isfinite([row["mean_fitness"] for row in islands.history]).all()


@pytest.mark.parametrize("cut", range(0, 20, 3))
@pytest.mark.parametrize("when", ["iteration", "end"])
def test_goes_on_from_a_state_where_some_have_ended(cut: int, when: str) -> None:
    """Saved while an answer is awaited, at any time; written and read as a stage would."""
    whole, resumed = (
        Islands([member(seed + i, when=when, patience=1) for i in range(2)], 3) for seed in (0, 2)
    )
    for _ in range(cut):
        if not whole.done:
            whole.tell(cheap(whole.ask()))
    worth = cheap(whole.ask()) if not whole.done else None
    resumed.load_state_dict(unpack(pack(whole.state_dict())))
    if worth is not None:
        whole.tell(worth)
        resumed.tell(worth)
    for a, b in zip(run_out(whole), run_out(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.history == resumed.history


def test_islands_of_one_seed_differ_from_one_another() -> None:
    asked = search_of("islands").ask()
    assert not (asked[:4] == asked[4:8]).all()
