"""Every search: what it finds, that it repeats, and that it goes on from any saved state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import GOOD, KINDS, cheap, planted, run_out, search_of

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.search import Search, SelectionSearch
from cotray.selection.transfer import Masks
from cotray.stages.state import pack, unpack

EVERY_KIND = pytest.mark.parametrize("kind", list(KINDS))
ANY_KIND = st.sampled_from(list(KINDS))
AT_END = [kind for kind in KINDS if "at the end" in kind]


def sca_search(when: str = "iteration", seed: int = 0, **settings: Any) -> SelectionSearch:
    """SCA with 4 agents, 5 iterations and 3 steps of refinement."""
    cfg = {"agents": 4, "iterations": 5} | settings
    abhc = AbhcConfig.model_validate({"when": when, "steps": 3})
    return SelectionSearch(12, ScaConfig.model_validate(cfg), abhc, seed=seed, init_scores=np.arange(12.0))


def assert_same_end(one: Search, other: Search) -> None:
    assert one.history == other.history
    assert one.evaluations == other.evaluations
    assert one.result.fitness == other.result.fitness
    np.testing.assert_array_equal(one.result.mask, other.result.mask)


# -- what it finds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random"])
def test_finds_planted_features_better_than_chance(kind: str) -> None:
    """Than random search with as many evaluations, in the mean of three seeds; without the scores' help."""
    fitness, score_D = planted()
    found, chance = [], []
    iterations = 10 if "every agent" in kind else 30  # they evaluate several times as often
    for seed in range(3):
        search = search_of(kind, seed, dim=len(score_D), agents=10, iterations=iterations)
        while not search.done:
            search.tell(fitness(search.ask()))
        found.append(search.result)
        rival = search_of("random", seed, dim=len(score_D), agents=search.evaluations, iterations=2)
        rival.tell(np.ones(len(rival.ask())))  # the starting population is not as random
        rival.tell(fitness(rival.ask()))
        chance.append(rival.result.fitness)
    assert np.mean([one.fitness for one in found]) < np.mean(chance)
    masks = np.stack([one.mask for one in found])
    assert masks[:, :GOOD].mean() > 2 * masks[:, GOOD:].mean()
    np.testing.assert_array_equal(fitness(masks), [one.fitness for one in found])


def test_scores_help() -> None:
    """Ranked starts and proposals by rank: a tenth of the evaluations finds better masks."""
    fitness, score_D = planted()
    best = []
    for scores, iterations in ((score_D, 2), (None, 20)):
        search = search_of("default", 1, len(score_D), scores, agents=10, iterations=iterations)
        while not search.done:
            search.tell(fitness(search.ask()))
        best.append(search.result.fitness)
    assert best[0] < best[1]


@settings(deadline=None, max_examples=80)
@given(ANY_KIND, st.integers(0, 2**40), st.integers(1, 12), st.booleans())
def test_the_best_is_the_best_of_all_asked_at_any_time(kind: str, seed: int, dim: int, scores: bool) -> None:
    """In the middle of a refinement too. No mask is empty, no reported mask was not scored."""
    search = search_of(kind, seed, dim, np.arange(float(dim)) if scores else None)
    worth: dict[bytes, float] = {}
    while not search.done:
        masks = search.ask().copy()
        assert masks.dtype == bool and masks.shape[1] == dim
        assert masks.any(axis=1).all()
        search.tell(cheap(masks))
        worth |= {mask.tobytes(): float(value) for mask, value in zip(masks, cheap(masks), strict=True)}
        mask, fitness = search.best
        assert fitness == min(worth.values())
        assert worth[mask.tobytes()] == fitness
    best = [row["best_fitness"] for row in search.history]
    assert (np.diff(best) <= 0).all()
    assert search.result.fitness == best[-1]
    assert search.history[-1]["best_size"] == search.result.mask.sum()


# -- that it repeats --------------------------------------------------------------------------------------


@EVERY_KIND
def test_same_seed_same_trajectory(kind: str) -> None:
    first, again, other = (search_of(kind, seed) for seed in (5, 5, 6))
    asked = run_out(first)
    for a, b in zip(asked, run_out(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same_end(first, again)
    differs = zip(asked, run_out(other), strict=False)
    assert any(a.shape != b.shape or (a != b).any() for a, b in differs)


@settings(deadline=None, max_examples=120)
@given(kind=ANY_KIND, cut=st.integers(0, 60), waiting=st.booleans(), patience=st.integers(0, 2),
       seed=st.integers(0, 99))  # fmt: skip
def test_goes_on_exactly_from_any_saved_state(
    kind: str, cut: int, waiting: bool, patience: int, seed: int
) -> None:
    """Cut anywhere, in a refinement or between ask and tell too; written and read as a stage would."""
    whole = search_of(kind, seed, patience=patience)
    masks = run_out(whole)
    cut %= len(masks)
    begun = search_of(kind, seed, patience=patience)
    for expected in masks[:cut]:
        np.testing.assert_array_equal(begun.ask(), expected)
        begun.tell(cheap(expected))
    if waiting:
        begun.ask()
    resumed = search_of(kind, seed + 1, patience=patience)
    resumed.load_state_dict(unpack(pack(begun.state_dict())))
    if waiting:
        resumed.tell(cheap(masks[cut]))
        cut += 1
    for expected, got in zip(masks[cut:], run_out(resumed), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert_same_end(resumed, whole)


@EVERY_KIND
def test_goes_on_exactly_from_every_saved_state(kind: str) -> None:
    """Everything that a search remembers is in its state."""
    whole = search_of(kind, 1, iterations=8)
    states, masks = [whole.state_dict()], []
    while not whole.done:
        masks.append(whole.ask().copy())
        whole.tell(cheap(masks[-1]))
        states.append(whole.state_dict())
    for cut, state in enumerate(states[::3]):
        resumed = search_of(kind, 2, iterations=8)
        resumed.load_state_dict(state)
        for expected, got in zip(masks[3 * cut :], run_out(resumed), strict=True):
            np.testing.assert_array_equal(got, expected)
        assert_same_end(resumed, whole)


@EVERY_KIND
def test_a_finished_search_stays_finished(kind: str) -> None:
    whole, resumed = search_of(kind), search_of(kind, seed=1)
    run_out(whole)
    resumed.load_state_dict(unpack(pack(whole.state_dict())))
    assert resumed.done
    assert_same_end(resumed, whole)


@EVERY_KIND
def test_a_state_in_memory_is_not_touched_by_going_on(kind: str) -> None:
    search = search_of(kind)
    for _ in range(4):
        search.tell(cheap(search.ask()))
    state = search.state_dict()
    before = pack(state)
    run_out(search)
    assert pack(state) == before


# -- how long it takes ------------------------------------------------------------------------------------

EVALUATIONS = {
    "default": 5 * (4 + 3),
    "at the end": 5 * 4 + 3 * 2,
    "no refinement": 5 * 4,
    "every agent": 5 * (4 + 3 * 4 * 2),
    "every agent, at the end": 5 * 4 + 3 * 4,
    "wide": 5 * (4 + 3 * 5),
    "ga": 5 * 4,
    "pso": 5 * 4,
    "random": 5 * 4,
    "islands": 3 * 5 * (4 + 3),
    "islands, at the end": 2 * (5 * 4 + 3),
}


@pytest.mark.parametrize(("kind", "expected"), EVALUATIONS.items())
def test_evaluations_are_counted(kind: str, expected: int) -> None:
    search = search_of(kind)
    asked = run_out(search)
    assert search.evaluations == sum(map(len, asked)) == expected
    assert search.history[-1]["evaluations"] == expected
    assert len(search.history) == 5


@EVERY_KIND
def test_masks_that_nobody_scored_count_nowhere(kind: str) -> None:
    """What a budget no longer allows is told as infinitely bad: half of every batch here."""
    search = search_of(kind)
    known: dict[bytes, float] = {}
    scored = 0
    while not search.done:
        masks = search.ask().copy()
        worth = np.where(np.arange(len(masks)) <= len(masks) // 2, cheap(masks), np.inf)
        search.tell(worth)
        scored += int(np.isfinite(worth).sum())
        known |= {m.tobytes(): w for m, w in zip(masks, worth, strict=True) if np.isfinite(w)}
        mask, fitness = search.best
        assert fitness == known[mask.tobytes()] == min(known.values())
    assert search.evaluations == search.history[-1]["evaluations"] == scored
    assert all(np.isfinite(list(row.values())).all() for row in search.history)


@pytest.mark.parametrize(("when", "climbs"), [("iteration", 9), ("end", 3), ("off", 0)])
def test_patience_ends_a_search_that_finds_nothing_better(when: str, climbs: int) -> None:
    search = sca_search(when, iterations=50, patience=2)
    asked = []
    while not search.done:
        asked.append(len(search.ask()))
        search.tell(np.ones(asked[-1]))
    assert len(search.history) == 3
    assert asked.count(1) == climbs


@EVERY_KIND
def test_patience_ends_every_kind(kind: str) -> None:
    search = search_of(kind, iterations=50, patience=4)
    while not search.done:
        search.tell(np.ones(len(search.ask())))
    assert len(search.history) == 5


@EVERY_KIND
def test_patience_waits_while_it_gets_better(kind: str) -> None:
    search = search_of(kind, iterations=6, patience=1)
    step = 0
    while not search.done:
        size = len(search.ask())
        search.tell(1.0 / (1 + step + np.arange(size)))
        step += size
    assert len(search.history) == 6


def test_history_tells_the_agents_mean() -> None:
    search = sca_search("off")
    masks = search.ask().copy()
    worth = cheap(masks)
    search.tell(worth)
    assert search.history == [
        {
            "best_fitness": worth.min(),
            "best_size": float(masks[worth.argmin()].sum()),
            "mean_fitness": worth.mean(),
            "evaluations": 4.0,
        }
    ]


@pytest.mark.parametrize("when", ["iteration", "end"])
def test_the_mean_is_that_of_agents_not_of_a_refinement(when: str) -> None:
    search = sca_search(when, iterations=1)
    mean = None
    while not search.done:
        worth = cheap(search.ask())
        mean = float(worth.mean()) if mean is None else mean
        search.tell(worth)
    assert [row["mean_fitness"] for row in search.history] == [mean]


# -- refinement -------------------------------------------------------------------------------------------


def test_a_refinement_begins_at_the_best_and_its_find_is_the_destination() -> None:
    search = sca_search("iteration", moves="few")
    masks = search.ask().copy()
    search.tell(np.array([0.5, 0.2, 0.9, 0.4]))
    np.testing.assert_array_equal(search.climb.mask_AD, masks[[1]])
    found: list[Masks] = []
    for worth in (0.3, 0.1, 0.15):
        found.append(search.ask().copy())
        search.tell(np.array([worth]))
    np.testing.assert_array_equal(search.sca.best_mask_D, found[1][0])
    np.testing.assert_array_equal(search.sca.best_position_D > 0.5, found[1][0])
    assert search.sca.best_fitness == 0.1


def test_every_agent_goes_on_from_where_its_refinement_ended() -> None:
    search = search_of("every agent")
    assert isinstance(search, SelectionSearch)
    search.tell(cheap(search.ask()))
    before = search.sca.fitness_P.copy()
    while not search.climb.done:
        assert len(search.ask()) == 4 * 2
        search.tell(cheap(search.climb.ask()))
    np.testing.assert_array_equal(search.sca.mask_PD, search.climb.mask_AD)
    np.testing.assert_array_equal(search.sca.fitness_P, cheap(search.sca.mask_PD))
    assert (search.sca.fitness_P <= before).all() and (search.sca.fitness_P < before).any()
    assert search.sca.best_fitness == search.sca.fitness_P.min()


# -- what others found ------------------------------------------------------------------------------------


@EVERY_KIND
def test_a_mask_from_elsewhere_counts_if_it_is_better(kind: str) -> None:
    search = search_of(kind)
    search.tell(cheap(search.ask()))
    mask, fitness = search.best
    before = mask.copy()
    search.accept(np.ones(12, bool), fitness)
    np.testing.assert_array_equal(search.best[0], before)
    better = np.arange(12) < 3
    search.accept(better, cheap(better[None])[0])
    np.testing.assert_array_equal(search.best[0], better)
    run_out(search)
    assert search.result.fitness == 0.0
    np.testing.assert_array_equal(search.result.mask, better)
