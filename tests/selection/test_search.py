"""The whole search: what it finds, that it repeats, and that it goes on from any saved state."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import AbhcConfig, FitnessConfig, ScaConfig
from cotray.selection.fitness import KnnFitness
from cotray.selection.scores import anova_f
from cotray.selection.search import SelectionSearch
from cotray.selection.transfer import Masks
from cotray.stages.state import pack, unpack

WHEN = ("iteration", "end", "off")
TRANSFERS = ("sigmoid", "vshaped")
DIM, GOOD = 40, 5
Values = NDArray[np.float64]


@cache
def planted() -> tuple[KnnFitness, Values]:
    """120 cells in 20 groups; the first five of forty features tell the classes apart."""
    rng = np.random.default_rng(7)
    label = np.arange(120) % 2
    feat = rng.normal(size=(120, DIM)).astype(np.float32)
    feat[:, :GOOD] += 1.3 * label[:, None]
    group = np.array([f"{i // 12}-{i % 2}" for i in range(120)])
    return KnnFitness(feat, label, group, FitnessConfig(), 0), anova_f(feat, label)


def cheap(masks_PD: Masks) -> Values:
    """A value with ties and no data: wrong features taken, and right ones missing."""
    return masks_PD[:, 3:].mean(axis=1) + (~masks_PD[:, :3]).sum(axis=1)


def search_of(when: str, transfer: str, seed: int = 0, **sca: object) -> SelectionSearch:
    setting = {"agents": 4, "iterations": 5, "transfer": transfer, **sca}
    abhc = AbhcConfig.model_validate({"when": when, "steps": 3})
    return SelectionSearch(
        12, ScaConfig.model_validate(setting), abhc, seed=seed, init_scores=np.arange(12.0)
    )


def drive(search: SelectionSearch) -> list[Masks]:
    """Every mask asked from here to the end."""
    asked = []
    while not search.done:
        asked.append(search.ask().copy())
        search.tell(cheap(asked[-1]))
    return asked


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("init", ["random", "ranked"])
def test_finds_planted_features_better_than_chance(transfer: str, init: str) -> None:
    fitness, scores = planted()
    cfg = ScaConfig.model_validate({"agents": 10, "iterations": 12, "transfer": transfer, "init": init})
    search = SelectionSearch(DIM, cfg, AbhcConfig(steps=5), seed=3, init_scores=scores)
    while not search.done:
        search.tell(fitness(search.ask()))
    rng = np.random.default_rng(4)
    rivals = rng.uniform(size=(search.evaluations, DIM)) < rng.uniform(0.02, 0.6, (search.evaluations, 1))
    found = search.result
    assert found.fitness < fitness(rivals).min()
    assert found.mask[:GOOD].mean() > 2 * found.mask[GOOD:].mean()
    assert found.fitness == fitness(found.mask[None])[0]


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("when", WHEN)
def test_same_seed_same_trajectory(when: str, transfer: str) -> None:
    first, again, other = (search_of(when, transfer, seed) for seed in (5, 5, 6))
    asked = drive(first)
    for a, b in zip(asked, drive(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.history == again.history
    assert (asked[0] != drive(other)[0]).any()


@settings(deadline=None, max_examples=40)
@given(when=st.sampled_from(WHEN), transfer=st.sampled_from(TRANSFERS), cut=st.integers(0, 30),
       patience=st.integers(0, 2), seed=st.integers(0, 99))  # fmt: skip
def test_goes_on_exactly_from_any_saved_state(
    when: str, transfer: str, cut: int, patience: int, seed: int
) -> None:
    """Cut between any two tells, in the middle of a refinement too; written and read as the stage does."""
    whole = search_of(when, transfer, seed, patience=patience)
    masks = drive(whole)
    cut %= len(masks) + 1
    begun = search_of(when, transfer, seed, patience=patience)
    for expected in masks[:cut]:
        np.testing.assert_array_equal(begun.ask(), expected)
        begun.tell(cheap(expected))
    resumed = search_of(when, transfer, seed + 1, patience=patience)
    resumed.load_state_dict(unpack(pack(begun.state_dict())))
    for expected, got in zip(masks[cut:], drive(resumed), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert resumed.history == whole.history
    assert resumed.result.fitness == whole.result.fitness
    np.testing.assert_array_equal(resumed.result.mask, whole.result.mask)


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("cut", range(9))
def test_a_search_saved_while_waiting_takes_the_answer(cut: int, transfer: str) -> None:
    """Saved between ask and tell: the masks asked need not be asked again."""
    whole, resumed = search_of("iteration", transfer), search_of("iteration", transfer, seed=1)
    for _ in range(cut):
        whole.tell(cheap(whole.ask()))
    worth = cheap(whole.ask())
    resumed.load_state_dict(unpack(pack(whole.state_dict())))
    for search in (whole, resumed):
        search.tell(worth)
    for a, b in zip(drive(whole), drive(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(resumed.result.mask, whole.result.mask)


def test_a_state_in_memory_is_not_touched_by_going_on() -> None:
    search = search_of("iteration", "vshaped")
    for _ in range(5):
        search.tell(cheap(search.ask()))
    state = search.state_dict()
    before = pack(state)
    drive(search)
    assert pack(state) == before


@pytest.mark.parametrize(
    ("when", "expected"), [("iteration", 5 * (4 + 3)), ("end", 5 * 4 + 3), ("off", 5 * 4)]
)
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_evaluations_are_counted(when: str, expected: int, transfer: str) -> None:
    search = search_of(when, transfer)
    asked = drive(search)
    assert search.evaluations == sum(map(len, asked)) == expected
    assert search.history[-1]["evaluations"] == expected
    assert len(search.history) == search.sca.iteration == 5


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(WHEN), st.sampled_from(TRANSFERS), st.integers(0, 2**40))
def test_masks_are_never_empty_and_history_never_worsens(when: str, transfer: str, seed: int) -> None:
    search = search_of(when, transfer, seed)
    asked = np.concatenate(drive(search))
    assert asked.any(axis=1).all()
    best = [row["best_fitness"] for row in search.history]
    assert (np.diff(best) <= 0).all()
    assert search.result.fitness == best[-1] == cheap(asked).min()
    np.testing.assert_allclose(cheap(search.result.mask[None]), best[-1])
    assert search.history[-1]["best_size"] == search.result.mask.sum()


def test_one_feature_is_enough() -> None:
    search = SelectionSearch(1, ScaConfig(agents=3, iterations=4), AbhcConfig(steps=4), seed=0)
    while not search.done:
        search.tell(search.ask().mean(axis=1))
    assert search.result.mask.tolist() == [True]


@pytest.mark.parametrize(("when", "rows"), [("iteration", 3), ("end", 3), ("off", 3)])
def test_patience_ends_a_search_that_finds_nothing_better(when: str, rows: int) -> None:
    search = search_of(when, "sigmoid", iterations=50, patience=2)
    asked = []
    while not search.done:
        asked.append(len(search.ask()))
        search.tell(np.ones(asked[-1]))
    assert len(search.history) == rows
    assert asked.count(1) == {"iteration": 9, "end": 3, "off": 0}[when]


@pytest.mark.parametrize("when", WHEN)
def test_patience_waits_while_it_gets_better(when: str) -> None:
    search = search_of(when, "sigmoid", iterations=6, patience=1)
    step = 0
    while not search.done:
        step += 1
        search.tell(np.full(len(search.ask()), 1.0 / step))
    assert len(search.history) == 6


def test_history_tells_the_agents_mean() -> None:
    search = search_of("off", "sigmoid")
    worth = cheap(search.ask())
    search.tell(worth)
    assert search.history == [
        {
            "best_fitness": worth.min(),
            "best_size": float(search.sca.mask_PD[worth.argmin()].sum()),
            "mean_fitness": worth.mean(),
            "evaluations": 4.0,
        }
    ]
