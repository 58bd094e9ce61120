"""Indexes: recall against the exact search, the same neighbours again from a kept state."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from cotray.config import GrafrConfig
from cotray.errors import FeatureError
from cotray.features import neighbours
from cotray.features.grafr import GraFR, propose
from cotray.features.neighbours import INDEXES, build_index, evenly, lists_of

Matrix = NDArray[np.float32]


def cells(count: int, width: int = 24, seed: int = 0) -> Matrix:
    """Cells of forty kinds of unlike size and spread."""
    rng, kinds = np.random.default_rng(seed), np.random.default_rng(99)
    centre, spread = kinds.normal(size=(40, width)) * 2, kinds.uniform(0.3, 1.5, 40)
    which = rng.choice(40, count, p=kinds.dirichlet(np.ones(40)))
    return (centre[which] + rng.normal(size=(count, width)) * spread[which, None]).astype(np.float32)


def nearest(queries: Matrix, bank: Matrix, k: int) -> NDArray[np.int64]:
    """By sorting all distances."""
    away = ((queries[:, None].astype(float) - bank[None].astype(float)) ** 2).sum(axis=2)
    return np.argsort(away, axis=1)[:, :k]


def test_every_index_of_the_settings_is_there() -> None:
    literal = GrafrConfig.model_fields["index"].annotation
    assert {*INDEXES, "auto"} == set(literal.__args__)


@pytest.mark.parametrize(("name", "least"), [("exact", 1.0), ("ivf", 0.95), ("hnsw", 0.95)])
def test_recall_of_ten_neighbours(name: str, least: float) -> None:
    bank, queries = cells(4000), cells(100, seed=1)
    index = INDEXES[name](bank, {})
    rows, right = propose(index, bank, queries, 10), nearest(queries, bank, 10)
    found = [len(set(a) & set(b)) for a, b in zip(rows.tolist(), right.tolist(), strict=True)]
    assert np.mean(found) / 10 >= least


def test_auto_is_exact_up_to_the_stated_size() -> None:
    bank, cfg = cells(300), GrafrConfig(exact_up_to=300)
    assert isinstance(build_index(cfg, bank, {}), neighbours.Exact)
    assert isinstance(build_index(cfg.model_copy(update={"exact_up_to": 299}), bank, {}), neighbours.Ivf)
    assert isinstance(build_index(GrafrConfig(index="hnsw"), bank, {}), neighbours.Hnsw)


def test_an_index_from_its_kept_state_finds_the_same_without_learning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank, queries = cells(3000), cells(50, seed=1)
    cfg = GrafrConfig(index="ivf")
    first = GraFR(cfg).fit(bank)
    state = first.state()
    assert {name: value.dtype for name, value in state.items()} == {"means": np.float32, "lists": np.int32}

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("k-means runs again")

    monkeypatch.setattr(faiss, "Kmeans", refuse)
    again = GraFR(cfg).fit(bank, state)
    np.testing.assert_array_equal(again.transform(queries), first.transform(queries))
    assert all(np.array_equal(again.state()[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_building_twice_gives_the_same_neighbours(name: str) -> None:
    bank, queries = cells(2500), cells(60, seed=1)
    one, two = (INDEXES[name](bank, {}).search(queries, 12) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_another_bank_s_state_is_refused() -> None:
    state = GraFR(GrafrConfig(index="ivf")).fit(cells(400)).state()
    with pytest.raises(FeatureError, match="not that of this bank"):
        GraFR(GrafrConfig(index="ivf")).fit(cells(300), state)
    with pytest.raises(FeatureError, match="not that of this bank"):
        GraFR(GrafrConfig(index="ivf")).fit(cells(400, width=7), state)
    state["lists"] = state["lists"] + 1000
    with pytest.raises(FeatureError, match="not that of this bank"):
        GraFR(GrafrConfig(index="ivf")).fit(cells(400), state)


def test_where_lists_hold_too_few_the_search_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "PROBES", 1)
    bank, queries = cells(2000), cells(40, seed=1)
    index = INDEXES["ivf"](bank, {})
    rows = propose(index, bank, queries, 400)
    short = [list(a) for a in rows.tolist() if -1 not in a]
    assert len(short) > 20, "lists of about fifty rows do not hold four hundred"
    assert ((rows >= 0).sum(axis=1) >= 400).all()


def test_building_leaves_the_number_of_threads() -> None:
    before = faiss.omp_get_max_threads()
    INDEXES["hnsw"](cells(200), {})
    assert faiss.omp_get_max_threads() == before


def test_a_bank_on_disk_is_indexed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = cells(900), cells(20, seed=1)
    whole = INDEXES["ivf"](bank, {}).search(queries, 8)
    np.save(tmp_path / "bank.npy", bank)
    monkeypatch.setattr(neighbours, "BLOCK", 100 * 24)
    parts = INDEXES["ivf"](np.load(tmp_path / "bank.npy", mmap_mode="r"), {}).search(queries, 8)
    np.testing.assert_array_equal(parts, whole)


def test_lists_have_rows_enough_to_learn_from() -> None:
    assert [lists_of(n) for n in (1, 38, 39, 390, 10_000, 1_000_000)] == [1, 1, 1, 10, 100, 1000]


def test_even_samples_reach_from_end_to_end() -> None:
    bank = np.arange(1000, dtype=np.float32)[:, None]
    sample = evenly(bank, 7)[:, 0]
    assert sample[0] == 0 and sample[-1] == 999 and len(sample) == 7
    assert np.ptp(np.diff(sample)) <= 1
    np.testing.assert_array_equal(evenly(bank, 5000), bank)
