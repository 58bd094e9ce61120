"""Nearest distances against sums done by hand and independent references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from cotray.synthesis.copying import BLOCK, Nearest, copy_figures, most_suspicious, nearest
from cotray.synthesis.variety import effective_number, variety_figures


def found(own: list[float], away: list[float]) -> Nearest:
    return Nearest(np.array(own), np.array(away), np.arange(len(away)))


def test_nearest_distances_by_hand() -> None:
    real = np.array([[0.0], [1.0], [4.0]])
    seen = nearest(real, np.array([[1.2], [9.0]]))
    assert seen.own_N.tolist() == [1, 1, 3]
    assert seen.away_M.tolist() == pytest.approx([0.2, 5.0])
    assert seen.which_M.tolist() == [1, 2]


def test_a_mirrored_cell_counts_and_a_cells_own_mirror_image_does_not() -> None:
    real = np.array([[2.0], [5.0]])
    seen = nearest(real, np.array([[-5.1]]), mirrored_NK=-real)
    assert seen.away_M.tolist() == pytest.approx([0.1])
    assert seen.which_M.tolist() == [1]
    assert seen.own_N.tolist() == [3, 3]


def test_blocks_change_nothing() -> None:
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(BLOCK + 7, 3)), rng.normal(size=(2 * BLOCK + 1, 3))
    gaps, inside = cdist(drawn, real), cdist(real, real)
    np.fill_diagonal(inside, np.inf)
    seen = nearest(real, drawn)
    np.testing.assert_allclose(seen.away_M, gaps.min(axis=1))
    np.testing.assert_allclose(seen.own_N, inside.min(axis=1))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(5, 60))
def test_the_rank_figure_is_an_auroc(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    own, away = rng.integers(1, 20, n).astype(float), rng.integers(1, 20, m).astype(float)
    told = copy_figures(found(own.tolist(), away.tolist()))
    labels = np.r_[np.zeros(n), np.ones(m)]
    assert told["nearer_auroc"] == pytest.approx(roc_auc_score(labels, -np.r_[own, away]))
    assert all(0 <= told[name] <= 1 for name in told if name != "nearest_ratio")


def test_the_close_ones_are_no_more_often_sure_than_chance_allows() -> None:
    """Both kinds drawn from one distribution: p below 5 % in at most about 5 % of draws."""
    rng = np.random.default_rng(0)
    p = [copy_figures(found(*rng.gamma(3, size=(2, 40)).tolist()))["close_p"] for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.09
    assert copy_figures(found(np.arange(1.0, 41).tolist(), [0.1] * 40))["close_p"] < 1e-9


def test_the_nearest_pairs_come_first() -> None:
    seen = Nearest(np.ones(3), np.array([3.0, 1.0, 2.0]), np.array([7, 8, 9]))
    assert most_suspicious(seen, 2) == [(1, 8), (2, 9)]


# ---- variety -------------------------------------------------------------------------------------------


def test_the_effective_number_counts_unlike_points() -> None:
    far = np.eye(6) * 1e3
    repeated = np.repeat(far[:3], 2, axis=0)
    for points, wanted in ((far, 6), (repeated, 3), (0 * far, 1)):
        gaps = cdist(points, points)[np.triu_indices(6, 1)]
        assert effective_number(gaps, 1.0) == pytest.approx(wanted, rel=1e-6)


def test_equal_sizes_are_compared() -> None:
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(300, 4)), rng.normal(size=(30, 4))
    told = variety_figures(real, drawn, rng)
    assert told["variety"] == pytest.approx(1, abs=0.15) and told["diversity"] == pytest.approx(1, abs=0.15)
