"""The coreset: bounded, fair to classes, made of the bank's own cells, better than a random draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cotray.errors import FeatureError
from cotray.features.coreset import coreset, medoids, shares

Matrix = NDArray[np.float32]


def kinds(sizes: list[int], width: int = 8, seed: int = 0) -> Matrix:
    """So many cells of each kind, far apart."""
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(5).normal(size=(len(sizes), width)) * 20
    return np.concatenate(
        [c + rng.normal(size=(n, width)) for c, n in zip(centre, sizes, strict=True)]
    ).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=5), st.integers(5, 800))
def test_shares_are_proportional_and_none_is_empty(counts: list[int], size: int) -> None:
    got = shares(np.array(counts), size)
    assert got.sum() == size
    assert (got >= 1).all()
    exact = np.array(counts) / sum(counts) * size
    assert (got <= np.maximum(np.ceil(exact), 1)).all()
    assert (got >= np.floor(exact) - len(counts)).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**62), size=st.integers(2, 120))
def test_at_most_size_rows_distinct_and_in_order(seed: int, size: int) -> None:
    feat, label = kinds([60, 40], seed=seed % 1000), np.repeat([0, 1], [60, 40])
    rows = coreset(feat, label, size, seed)
    assert (np.diff(rows) > 0).all()
    assert rows.min() >= 0 and rows.max() < 100
    assert len(rows) == min(size, 100), "no two cells are equal, so no mean is without one"
    if size < 100:
        assert (label[rows] == 1).sum() == shares(np.array([60, 40]), size)[1]


def test_every_kind_of_cell_is_kept() -> None:
    """A random draw of twelve cells of 640 misses the rare kinds nine times of ten."""
    feat = kinds([500, 50, 50, 20, 20])
    rows = medoids(feat, 12, seed=0)
    nearest = cdist(feat, feat[rows]).min(axis=1)
    assert nearest.max() < 10, "no cell is a kind away from the nearest kept one"


def test_a_medoid_is_the_cell_nearest_to_its_mean() -> None:
    feat = kinds([80, 50, 30])
    rows = medoids(feat, 3, seed=0)
    for part in (slice(0, 80), slice(80, 130), slice(130, 160)):
        mean = feat[part].mean(axis=0, dtype=float)
        wanted = part.start + int(np.argmin(((feat[part] - mean) ** 2).sum(axis=1)))
        assert wanted in rows


def test_the_same_seed_keeps_the_same_rows() -> None:
    feat, label = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32), np.arange(400) % 2
    one, again, other = (coreset(feat, label, 40, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_equal_cells_are_kept_once() -> None:
    feat = np.repeat(kinds([1, 1, 1]), 30, axis=0)
    rows = coreset(feat, np.zeros(90, np.int64), 10, seed=0)
    assert len(rows) <= 10
    assert len(np.unique(feat[rows], axis=0)) == 3


def test_small_banks_are_kept_whole() -> None:
    feat = kinds([5, 4])
    np.testing.assert_array_equal(coreset(feat, np.repeat([0, 1], [5, 4]), 9, seed=0), np.arange(9))


def test_unusable_requests() -> None:
    feat = kinds([5, 4])
    with pytest.raises(FeatureError, match="no room for 3 classes"):
        coreset(feat, np.array([0, 0, 0, 1, 1, 1, -1, -1, -1]), 2, seed=0)
    with pytest.raises(FeatureError, match="needs a label"):
        coreset(feat, np.zeros(3, np.int64), 4, seed=0)
