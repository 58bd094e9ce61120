"""The loop between a search and whoever evaluates: budgets, memory; neither changes what is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import KINDS, Values, cheap, planted, run_out, search_of

from cotray.config import AbhcConfig, Config, ScaConfig
from cotray.selection.budget import Budget
from cotray.selection.drive import Memo, drive, make_search
from cotray.selection.islands import Islands
from cotray.selection.rivals import GeneticSearch
from cotray.selection.search import Search, SelectionResult, SelectionSearch
from cotray.selection.transfer import Masks
from cotray.stages.state import pack, unpack

ANY_KIND = st.sampled_from(list(KINDS))
EVERY_KIND = pytest.mark.parametrize("kind", list(KINDS))
Evaluate = Callable[[Masks], Values]


class Ledger:
    """Evaluates, and keeps a list of what was asked."""

    def __init__(self, evaluate: Evaluate = cheap) -> None:
        self.evaluate = evaluate
        self.masks: list[bytes] = []
        self.values: list[float] = []

    def __call__(self, mask_PD: Masks) -> Values:
        values = self.evaluate(mask_PD)
        self.masks += [mask.tobytes() for mask in mask_PD]
        self.values += values.tolist()
        return values


def assert_same(one: SelectionResult, other: SelectionResult) -> None:
    assert one.history == other.history
    assert one.fitness == other.fitness
    np.testing.assert_array_equal(one.mask, other.mask)


# -- without and with a budget ----------------------------------------------------------------------------


@EVERY_KIND
def test_without_a_budget_a_search_runs_to_its_end(kind: str) -> None:
    search, alone = search_of(kind), search_of(kind)
    run_out(alone)
    assert_same(drive(search, cheap), alone.result)
    assert search.done


@settings(deadline=None, max_examples=150)
@given(ANY_KIND, st.integers(1, 160), st.integers(0, 99))
def test_a_budget_of_evaluations_is_never_exceeded(kind: str, evaluations: int, seed: int) -> None:
    """And used up, but for what a search at its end leaves; what is reported was scored, and is the best."""
    budget, ledger = Budget(evaluations=evaluations), Ledger()
    search = search_of(kind, seed, budget=budget)
    found = drive(search, ledger, budget)
    assert len(ledger.masks) == search.evaluations == found.history[-1]["evaluations"] <= evaluations
    assert len(ledger.masks) == evaluations or search.done
    assert "end" in kind or len(ledger.masks) == evaluations
    assert found.fitness == min(ledger.values) == found.history[-1]["best_fitness"]
    assert ledger.values[ledger.masks.index(found.mask.tobytes())] == found.fitness
    assert found.history[-1]["best_size"] == found.mask.sum()
    assert (np.diff([row["best_fitness"] for row in found.history]) <= 0).all()
    assert np.isfinite([list(row.values()) for row in found.history]).all()


def test_a_refinement_at_the_end_takes_place_within_the_budget() -> None:
    budget = Budget(evaluations=100)
    search = search_of("at the end", budget=budget)
    drive(search, cheap, budget)
    assert search.done and isinstance(search, SelectionSearch) and search.climb.begun
    assert 100 - 4 < search.evaluations <= 100


@pytest.mark.parametrize("evaluations", [1, 2, 5])
@EVERY_KIND
def test_a_search_goes_on_after_its_budget_with_another(kind: str, evaluations: int) -> None:
    """What was left out is infinitely bad and never comes back as a find."""
    search, ledger = search_of(kind), Ledger()
    drive(search, ledger, Budget(evaluations=evaluations))
    found = drive(search, ledger, Budget(evaluations=60))
    assert len(ledger.masks) == search.evaluations <= 60
    assert ledger.values[ledger.masks.index(found.mask.tobytes())] == found.fitness == min(ledger.values)
    assert np.isfinite([list(row.values()) for row in found.history]).all()


def test_a_finished_search_is_asked_nothing() -> None:
    search, ledger = search_of("default"), Ledger()
    run_out(search)
    assert_same(drive(search, ledger), search.result)
    assert not ledger.masks and len(search.history) == 5


@EVERY_KIND
@pytest.mark.parametrize("evaluations", [None, 1, 30])
def test_every_line_of_history_is_told_once(kind: str, evaluations: int | None) -> None:
    told: list[dict[str, float]] = []
    found = drive(search_of(kind), cheap, Budget(evaluations), lambda s: told.append(s.history[-1]))
    assert told == found.history
    assert len({row["evaluations"] for row in told}) == len(told)


@settings(deadline=None, max_examples=40)
@given(ANY_KIND, st.integers(1, 30), st.integers(31, 90))
def test_goes_on_from_a_state_saved_at_any_iteration(kind: str, cut: int, evaluations: int) -> None:
    budget = Budget(evaluations=evaluations)
    whole, begun, resumed = (search_of(kind, seed, budget=budget) for seed in (0, 0, 1))
    expected = drive(whole, cheap, budget)
    states = [begun.state_dict()]
    drive(
        begun, cheap, budget, lambda s: states.append(s.state_dict()) if s.evaluations < evaluations else None
    )
    resumed.load_state_dict(unpack(pack(states[min(cut, len(states) - 1)])))
    assert_same(drive(resumed, cheap, budget), expected)


# -- seconds ----------------------------------------------------------------------------------------------


class Paced(SelectionSearch):
    """Keeps the shares it is told."""

    def pace(self, share: float) -> None:
        self.shares = [*getattr(self, "shares", []), share]
        super().pace(share)


def test_the_share_of_time_stands_for_the_share_of_iterations() -> None:
    budget = Budget(seconds=0.2)
    search = Paced(8, ScaConfig(agents=4, iterations=10**9), AbhcConfig(when="off"), seed=0)
    found = drive(search, cheap, budget)
    assert search.shares == sorted(search.shares)
    assert 0 <= search.shares[0] < search.shares[-1]
    assert len(search.shares) == len(found.history) > 1
    assert search.sca.progress == min(1.0, search.shares[-1])


@pytest.mark.parametrize("kind", ["default", "every agent", "ga", "pso", "random", "islands"])
def test_seconds_end_a_search_where_every_mask_is_known(kind: str) -> None:
    """Two features, three masks: all iterations but the first cost nothing."""
    budget, ledger = Budget(seconds=0.1), Ledger()
    search = search_of(kind, dim=2, budget=budget)
    found = drive(search, Memo(ledger), budget)
    assert len(set(ledger.masks)) == len(ledger.masks) <= 3
    assert not search.done
    assert found.fitness == min(ledger.values)


@EVERY_KIND
def test_the_shortest_time_still_scores_something(kind: str) -> None:
    """Never is an unscored mask reported, let alone an empty one."""
    ledger, budget = Ledger(), Budget(seconds=1e-12)
    found = drive(search_of(kind, budget=budget), ledger, budget)
    assert found.mask.any()
    assert ledger.values[ledger.masks.index(found.mask.tobytes())] == found.fitness == min(ledger.values)
    assert len(found.history) == 1


def test_seconds_end_a_search_whose_masks_are_worth_no_number() -> None:
    search = search_of("default", budget=Budget(seconds=0.05))
    found = drive(search, lambda masks: np.full(len(masks), np.nan), Budget(seconds=0.05))
    assert (found.fitness, search.evaluations) == (np.inf, 0)


def test_with_seconds_a_refinement_at_the_end_begins_late() -> None:
    search = search_of("at the end", budget=Budget(seconds=1.0))
    assert isinstance(search, SelectionSearch)
    for share in (0.0, 0.5, 0.85):
        search.pace(share)
        search.tell(cheap(search.ask()))
        assert not search.climb.begun
    search.pace(0.95)
    for _ in range(4):
        assert not search.done
        search.tell(cheap(search.ask()))
    assert search.done
    assert len(search.history) == 4
    assert search.evaluations == 4 * 4 + 3 * 2


# -- the memory -------------------------------------------------------------------------------------------


def test_nothing_is_evaluated_twice_not_even_within_a_batch() -> None:
    ledger = Ledger()
    memo = Memo(ledger)
    a, b, c = np.eye(3, 11, dtype=bool)
    np.testing.assert_array_equal(memo(np.stack([b, a, a, b])), cheap(np.stack([b, a, a, b])))
    assert ledger.masks == [b.tobytes(), a.tobytes()], "each once, in the order of the batch"
    np.testing.assert_array_equal(memo(np.stack([a, c, c])), cheap(np.stack([a, c, c])))
    assert ledger.masks[2:] == [c.tobytes()]
    memo(np.stack([a, b, c]))
    assert memo.scored == len(ledger.masks) == 3


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), max_size=6), st.integers(1, 17))
def test_a_memory_answers_as_who_evaluates(batches: list[list[int]], dim: int) -> None:
    """Whatever comes twice; a new mask is told on once, with its value, as soon as it is known."""
    pool = np.random.default_rng(dim).uniform(size=(41, dim)) < 0.5
    told: list[tuple[bytes, float]] = []

    def on_scored(masks: Masks, values: Values) -> None:
        told.extend(zip([mask.tobytes() for mask in masks], values.tolist(), strict=True))

    memo, ledger = Memo(ledger := Ledger(), on_scored), ledger
    for batch in batches:
        np.testing.assert_array_equal(memo(pool[batch]), cheap(pool[batch]))
        assert told == list(zip(ledger.masks, ledger.values, strict=True))
    assert len(set(ledger.masks)) == len(ledger.masks) == memo.scored
    assert set(ledger.masks) == {pool[i].tobytes() for batch in batches for i in batch}


def test_what_was_learned_is_not_evaluated_nor_counted_nor_told() -> None:
    told: list[int] = []
    memo = Memo(ledger := Ledger(), lambda masks, values: told.append(len(masks)))
    known = np.eye(4, 9, dtype=bool)
    memo.learn(known[:3], np.array([7.0, 8.0, 9.0]))
    np.testing.assert_array_equal(memo(known), [7, 8, 9, cheap(known[3:])[0]])
    assert ledger.masks == [known[3].tobytes()]
    assert (memo.scored, told) == (1, [1])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**32))
def test_the_fittest_known(dim: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    memo = Memo(lambda masks: np.round(cheap(masks)))
    masks = np.unique(rng.uniform(size=(20, dim)) < 0.5, axis=0)
    for batch in np.array_split(rng.permutation(masks), 3):
        if len(batch):
            memo(batch)
    found, values = memo.fittest(most, dim)
    expected = sorted((round(float(cheap(m[None])[0])), m.tolist()) for m in masks)[:most]
    assert values.tolist() == [value for value, _ in expected]
    assert found.tolist() == [mask for _, mask in expected], "of equals the lower bits first"


@EVERY_KIND
def test_memory_changes_nothing_but_the_cost(kind: str) -> None:
    plain, kept = Ledger(), Ledger()
    assert_same(drive(search_of(kind, dim=6), plain), drive(search_of(kind, dim=6), Memo(kept)))
    assert len(kept.masks) < len(plain.masks)


@EVERY_KIND
def test_a_search_told_from_memory_repeats_without_evaluating(kind: str) -> None:
    """A killed search is replayed from its seed: half of it is known, and half of it is done."""
    scored: list[tuple[Masks, Values]] = []
    memo = Memo(Ledger(), lambda masks, values: scored.append((masks.copy(), values)))
    expected = drive(search_of(kind), memo)
    again = Memo(ledger := Ledger())
    half = len(scored) // 2
    for masks, values in scored[:half]:
        again.learn(masks, values)
    assert_same(drive(search_of(kind), again), expected)
    assert ledger.masks == [m.tobytes() for masks, _ in scored[half:] for m in masks]


# -- who evaluates ----------------------------------------------------------------------------------------


def in_pieces(size: int, order: int) -> Evaluate:
    """The planted engine's values, asked in pieces, backwards or forwards, each time of another copy."""
    fitness, _ = planted()
    copies = [unpickled(fitness) for _ in range(3)]

    def evaluate(mask_PD: Masks) -> Values:
        values = np.empty(len(mask_PD))
        for n, start in enumerate(range(0, len(mask_PD), size)[::order]):
            piece = slice(start, start + size)
            values[piece] = copies[n % 3](mask_PD[piece])
        return values

    return evaluate


def unpickled(fitness: object) -> Evaluate:
    """What another process would have of it."""
    import pickle

    copied: Evaluate = pickle.loads(pickle.dumps(fitness))
    return copied


@pytest.mark.parametrize("kind", ["default", "printed", "ga", "islands"])
@pytest.mark.parametrize(("size", "order"), [(1, 1), (3, -1)])
def test_how_batches_are_cut_changes_nothing(kind: str, size: int, order: int) -> None:
    fitness, score_D = planted()
    whole, pieces = (search_of(kind, 2, len(score_D), score_D, iterations=4) for _ in range(2))
    assert_same(drive(whole, fitness), drive(pieces, in_pieces(size, order)))


# -- from settings to a search ----------------------------------------------------------------------------


def made(select: dict[str, object], seed: int = 0, budget: Budget | None = None) -> Search:
    config = Config.model_validate({"select": select, "sca": {"iterations": 7, "patience": 3}})
    return make_search(9, config, budget or Budget(), seed=seed, init_scores=None)


def test_settings_name_the_search() -> None:
    assert isinstance(made({}), SelectionSearch)
    assert isinstance(made({"optimizer": "ga"}), GeneticSearch)
    islands = made({"optimizer": "ga", "islands": 3, "migrate": 4})
    assert isinstance(islands, Islands)
    assert [type(island) for island in islands.islands] == [GeneticSearch] * 3
    assert (islands.migrate, islands.iterations, islands.patience, islands.dim) == (4, 7, 3, 9)


def test_islands_differ_and_repeat() -> None:
    one, again, other = (made({"islands": 3}, seed) for seed in (1, 1, 2))
    asked = one.ask()
    np.testing.assert_array_equal(asked, again.ask())
    assert (asked != other.ask()).any()
    pieces = np.split(asked, 3)
    assert (pieces[0] != pieces[1]).any() and (pieces[1] != pieces[2]).any()


def test_a_budget_sets_the_schedule() -> None:
    budget = Budget(evaluations=310)
    assert made({}, budget=budget).iterations == 10
    assert made({"islands": 2}, budget=budget).iterations == 5
    assert made({"optimizer": "pso"}, budget=budget).iterations == 16
