"""GraFR against Eq. 10-13 written out, cell by cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import GrafrConfig
from cotray.errors import FeatureError
from cotray.features.grafr import CHUNK, GraFR

Matrix = NDArray[np.float32]


def grafr_of(k: int | None, mode: str = "replace") -> GraFR:
    return GraFR(GrafrConfig.model_validate({"k": k, "mode": mode}))


def cells(count: int, width: int = 6, seed: int = 0, offset: float = 0.0) -> Matrix:
    return (np.random.default_rng(seed).normal(size=(count, width)) + offset).astype(np.float32)


def by_hand(
    queries: Matrix, bank: Matrix, k: int | None, own: bool, eps: float = 1e-6
) -> NDArray[np.float64]:
    """Distance to each (Eq. 10), similarity (11), the k most similar (12), their weighted mean (13)."""
    made = []
    for q, query in enumerate(queries.astype(float)):
        near = []
        for n, node in enumerate(bank.astype(float)):
            if not (own and n == q):
                near.append((float(np.sqrt(((query - node) ** 2).sum())), n))
        near = sorted(near)[:k]
        similarity = [1 / (distance + eps) for distance, _ in near]
        mean = sum(s * bank[n].astype(float) for s, (_, n) in zip(similarity, near, strict=True))
        made.append(mean / sum(similarity))
    return np.array(made)


@pytest.mark.parametrize("k", [1, 3, 10, None])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_bank_is_reconstructed_as_in_the_equations(k: int | None, offset: float) -> None:
    """An offset shared by all is where squared distances by inner products lose their digits."""
    bank = cells(60, offset=offset)
    made = grafr_of(k).fit_transform(bank)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, by_hand(bank, bank, k, own=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 10, None])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_queries_are_reconstructed_from_the_bank(k: int | None, offset: float) -> None:
    bank, queries = cells(40, offset=offset), cells(30, seed=1, offset=offset)
    made = grafr_of(k).fit(bank).transform(queries)
    np.testing.assert_allclose(made, by_hand(queries, bank, k, own=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [2, None])
def test_concat_puts_the_features_first(k: int | None) -> None:
    bank, queries = cells(20), cells(5, seed=1)
    both, made = grafr_of(k, "concat").fit(bank), grafr_of(k).fit(bank)
    np.testing.assert_array_equal(
        both.transform(queries), np.concatenate([queries, made.transform(queries)], axis=1)
    )
    assert both.fit_transform(bank).shape == (20, 12)


@pytest.mark.parametrize("k", [1, 4, None])
def test_a_bank_cell_is_not_its_own_neighbour(k: int | None) -> None:
    bank = cells(30)
    made = grafr_of(k).fit_transform(bank)
    assert np.abs(made - bank).max(axis=1).min() > 0.01
    as_query = grafr_of(k).fit(bank).transform(bank)
    np.testing.assert_allclose(as_query, bank, atol=1e-3)


@pytest.mark.parametrize("k", [1, 2, 7, None])
def test_exact_duplicates_are_each_others_neighbours(k: int | None) -> None:
    """Each of the five copies leaves out one copy, itself: the others weigh all but everything."""
    bank = cells(30)
    bank[[3, 8, 9, 17, 25]] = bank[3]
    made = grafr_of(k).fit_transform(bank)
    np.testing.assert_allclose(made[[3, 8, 9, 17, 25]], bank[[3] * 5], atol=1e-4)
    others = np.setdiff1d(np.arange(30), [3, 8, 9, 17, 25])
    np.testing.assert_allclose(made[others], by_hand(bank, bank, k, own=True)[others], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [3, None])
def test_a_bank_of_one_cell_many_times(k: int | None) -> None:
    bank = np.repeat(cells(1), 12, axis=0)
    np.testing.assert_allclose(grafr_of(k).fit_transform(bank), bank, rtol=1e-6)


@pytest.mark.parametrize("k", [3, None])
def test_queries_do_not_enter_the_bank(k: int | None) -> None:
    grafr, queries = grafr_of(k).fit(cells(20)), cells(8, seed=1)
    first = grafr.transform(queries)
    np.testing.assert_array_equal(grafr.transform(queries), first)
    assert grafr.bank_ND.shape == (20, 6)
    np.testing.assert_array_equal(grafr.bank_ND, cells(20))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), bank_size=st.integers(2, 25), k=st.none() | st.integers(1, 30),
       own=st.booleans())  # fmt: skip
def test_a_reconstruction_lies_among_its_neighbours(
    seed: int, bank_size: int, k: int | None, own: bool
) -> None:
    """A weighted mean is within the range of the bank in every feature, and along any direction."""
    bank = cells(bank_size, 4, seed)
    made = grafr_of(k).fit_transform(bank) if own else grafr_of(k).fit(bank).transform(cells(7, 4, seed + 1))
    directions = np.concatenate([np.eye(4), np.random.default_rng(seed).normal(size=(5, 4))])
    ours, theirs = made @ directions.T, bank @ directions.T
    assert (ours >= theirs.min(axis=0) - 1e-4).all()
    assert (ours <= theirs.max(axis=0) + 1e-4).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), k=st.sampled_from([1, 5, None]), cut=st.integers(1, 59))
def test_row_order_and_batch_size_do_not_count(seed: int, k: int | None, cut: int) -> None:
    bank, queries = cells(50, seed=seed), cells(60, seed=seed + 1)
    order = np.random.default_rng(seed).permutation(50)
    grafr = grafr_of(k).fit(bank)
    whole = grafr.transform(queries)
    parts = np.concatenate([grafr.transform(queries[:cut]), grafr.transform(queries[cut:])])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    np.testing.assert_allclose(grafr_of(k).fit(bank[order]).transform(queries), whole, atol=1e-5)
    mixed, straight = grafr_of(k).fit_transform(bank[order]), grafr_of(k).fit_transform(bank)
    np.testing.assert_allclose(mixed, straight[order], atol=1e-5)


@pytest.mark.parametrize("k", [2, None])
def test_more_cells_than_a_chunk(k: int | None) -> None:
    bank = cells(CHUNK + 40, 3)
    made = grafr_of(k).fit_transform(bank)
    places = [0, CHUNK - 1, CHUNK, CHUNK + 39]
    for place in places:
        rest = np.delete(bank, place, axis=0)
        expected = by_hand(bank[place : place + 1], rest, k, own=False)
        np.testing.assert_allclose(made[place : place + 1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [3, None])
def test_a_lone_cell_stays_as_it_is(k: int | None) -> None:
    bank = cells(1)
    np.testing.assert_array_equal(grafr_of(k).fit_transform(bank), bank)
    made = grafr_of(k).fit(bank).transform(cells(4, seed=1))
    np.testing.assert_allclose(made, np.repeat(bank, 4, axis=0), rtol=1e-6)


def test_more_neighbours_than_the_bank_has_are_all_of_them() -> None:
    bank, queries = cells(9), cells(5, seed=1)
    for k in (8, 9, 500):
        np.testing.assert_allclose(
            grafr_of(k).fit_transform(bank), grafr_of(None).fit_transform(bank), atol=1e-5
        )
    many, all_of_them = grafr_of(500).fit(bank), grafr_of(None).fit(bank)
    np.testing.assert_allclose(many.transform(queries), all_of_them.transform(queries), atol=1e-5)


@pytest.mark.parametrize("mode", ["replace", "concat"])
def test_no_queries_no_rows(mode: str) -> None:
    made = grafr_of(3, mode).fit(cells(5)).transform(np.zeros((0, 6), np.float32))
    assert made.shape == (0, 12 if mode == "concat" else 6)


@pytest.mark.parametrize(
    "bank", [np.zeros((0, 6)), np.zeros(6), np.full((3, 6), np.nan), np.full((3, 6), np.inf)]
)
def test_unusable_banks(bank: NDArray[np.float64]) -> None:
    with pytest.raises(FeatureError):
        grafr_of(3).fit(bank.astype(np.float32))


@pytest.mark.parametrize("k", [3, None])
@pytest.mark.parametrize("queries", [np.zeros((2, 5)), np.zeros(6), np.full((2, 6), np.nan)])
def test_unusable_queries(queries: NDArray[np.float64], k: int | None) -> None:
    with pytest.raises(FeatureError):
        grafr_of(k).fit(cells(10)).transform(queries.astype(np.float32))


def test_before_a_bank_there_is_nothing_to_ask() -> None:
    with pytest.raises(FeatureError):
        grafr_of(3).transform(cells(2))


# ---- large banks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, None])
def test_wide_features_are_gathered_in_smaller_parts(k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many queries and bank rows are in memory at a time changes no result."""
    bank, queries = cells(40), cells(30, seed=1)
    whole, inside = grafr_of(k).fit(bank).transform(queries), grafr_of(k).fit_transform(bank)
    monkeypatch.setattr("cotray.features.grafr.GATHERED", 7 * 4 * 6)
    monkeypatch.setattr("cotray.features.neighbours.BLOCK", 7 * 6)
    np.testing.assert_allclose(grafr_of(k).fit(bank).transform(queries), whole, atol=1e-6)
    np.testing.assert_allclose(grafr_of(k).fit_transform(bank), inside, atol=1e-6)


def test_the_bank_may_lie_on_disk(tmp_path: Path) -> None:
    """Neither copied nor changed: the array that is used is the mapped one."""
    np.save(tmp_path / "bank.npy", cells(50))
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    grafr = grafr_of(3).fit(mapped)
    assert np.shares_memory(grafr.bank_ND, mapped)
    np.testing.assert_array_equal(
        grafr.transform(cells(9, seed=1)), grafr_of(3).fit(cells(50)).transform(cells(9, seed=1))
    )


def clustered(count: int, width: int = 16, seed: int = 0) -> Matrix:
    """Cells of 30 kinds."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(7).normal(size=(30, width)) * 3
    return (kinds[rng.integers(30, size=count)] + rng.normal(size=(count, width))).astype(np.float32)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_neighbours_reconstruct_nearly_the_same(index: str) -> None:
    bank, queries = clustered(3000), clustered(200, seed=1)
    exact, near = (
        GraFR(GrafrConfig.model_validate({"mode": "replace", "index": i})) for i in ("exact", index)
    )
    right, made = exact.fit(bank).transform(queries), near.fit(bank).transform(queries)
    np.testing.assert_allclose(np.linalg.norm(made - right, axis=1).mean(), 0, atol=0.02)
    inside, own = exact.fit_transform(bank), near.fit_transform(bank)
    assert np.linalg.norm(own - inside, axis=1).mean() < 0.02
    assert np.linalg.norm(own - bank, axis=1).min() > 0.1, "no cell is its own neighbour"


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
@pytest.mark.parametrize("count", [1, 2, 5, 60])
def test_approximate_search_of_small_banks_is_the_exact_one(index: str, count: int) -> None:
    bank, queries = cells(count), cells(8, seed=1)
    near = GraFR(GrafrConfig.model_validate({"mode": "replace", "index": index, "k": 3}))
    exact = grafr_of(3).fit(bank)
    np.testing.assert_allclose(near.fit(bank).transform(queries), exact.transform(queries), atol=1e-5)
    np.testing.assert_allclose(near.fit_transform(bank), exact.fit_transform(bank), atol=1e-5)
