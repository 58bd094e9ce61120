from __future__ import annotations

import json

import numpy as np
import pytest
from blobs import SIDE, blobs

from cotray.synthesis.distances import covered, frechet, kernel_distance
from cotray.synthesis.quality import cell_quality, feature_points, quality

# ---- the distances against what is known ---------------------------------------------------------------


def test_frechet_distance_of_known_gaussians() -> None:
    """Diagonal covariances: the squared gap of means, and of deviations (the closed form)."""
    rng = np.random.default_rng(0)
    a = rng.normal([0, 0, 0], [1, 2, 3], (60_000, 3))
    b = rng.normal([1, 0, -2], [2, 2, 1], (60_000, 3))
    assert frechet(a, b) == pytest.approx((1 + 4) + (1 + 0 + 4), rel=0.03)


def test_frechet_distance_of_correlated_sets_by_eigenvalues() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(60, 4)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    value, vector = np.linalg.eigh(cov_a)
    root_a = vector * np.sqrt(value) @ vector.T
    trace = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a)).sum()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    assert frechet(a, b) == pytest.approx(wanted)
    assert frechet(a, b) == pytest.approx(frechet(b, a))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_where_one_set_does_not_vary() -> None:
    a = np.random.default_rng(2).normal(size=(30, 3))
    wanted = (a.mean(0) ** 2).sum() + np.trace(np.cov(a, rowvar=False))
    assert frechet(a, np.zeros((30, 3))) == pytest.approx(wanted)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    alike = [kernel_distance(*rng.normal(size=(2, 40, 4))) for _ in range(200)]
    standard_error = np.std(alike) / np.sqrt(len(alike))
    assert abs(np.mean(alike)) < 3 * standard_error
    assert min(alike) < 0 < max(alike)
    apart = kernel_distance(rng.normal(size=(40, 4)), rng.normal(1.0, 1, (40, 4)))
    assert apart > max(alike)


def test_coverage_counts_points_within_the_third_neighbour() -> None:
    line = np.arange(6.0)[:, None]  # radii 3, 2, 2, 2, 2, 3
    points = np.array([[-3.0], [-3.1], [2.5], [8.0], [8.1]])
    assert covered(points, line) == pytest.approx(3 / 5)


# ---- cells ---------------------------------------------------------------------------------------------

FIGURES = {
    *("frechet", "kernel", "precision", "recall", "diversity", "variety", "nearest_ratio"),
    *("identical_share", "close_share", "close_p", "nearer_auroc", "nearer_p"),
}


def test_figures_bear_the_name_of_their_space() -> None:
    rng = np.random.default_rng(0)
    by_pixels = cell_quality(blobs(12, 0), blobs(9, 1), seed=0)
    features = feature_points(*rng.normal(size=(2, 12, 40)).astype(np.float32), seed=0)
    assert set(by_pixels) == {f"pixels_pca_{name}" for name in FIGURES}
    assert set(quality(features, seed=0)) == {f"backbone_{name}" for name in FIGURES}


def test_fresh_cells_of_the_same_kind_are_alike() -> None:
    for n in (20, 60):
        figures = cell_quality(blobs(n, seed=0), blobs(n, seed=1), seed=0)
        assert figures["pixels_pca_nearest_ratio"] == pytest.approx(1.0, abs=0.25)
        assert figures["pixels_pca_precision"] > 0.7 and figures["pixels_pca_recall"] > 0.7


def test_cells_of_another_kind_are_far_and_outside() -> None:
    real = blobs(40, seed=0)
    near, far = (cell_quality(real, blobs(40, 1, hue), seed=0) for hue in ((120, 60, 160), (40, 200, 40)))
    assert far["pixels_pca_precision"] == far["pixels_pca_recall"] == 0.0
    for name in ("frechet", "kernel", "nearest_ratio"):
        assert far[f"pixels_pca_{name}"] > 2 * abs(near[f"pixels_pca_{name}"])


def test_features_of_any_scale_count_alike() -> None:
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(size=(2, 50, 30)).astype(np.float32)
    scale = np.geomspace(1e-2, 1e3, 30).astype(np.float32)
    plain, scaled = (quality(feature_points(real * by, drawn * by, 0), 0) for by in (1, scale))
    assert scaled["backbone_frechet"] == pytest.approx(plain["backbone_frechet"], rel=0.02)
    assert scaled["backbone_recall"] == pytest.approx(plain["backbone_recall"], abs=0.05)


def test_features_that_never_vary_give_finite_figures() -> None:
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(size=(2, 20, 6)).astype(np.float32)
    real[:, 2] = drawn[:, 2] = 0
    assert all(np.isfinite(list(quality(feature_points(real, drawn, 0), 0).values())))


def test_real_cells_that_are_all_the_same_give_finite_figures() -> None:
    figures = cell_quality(np.zeros((9, SIDE, SIDE, 3), np.uint8), blobs(9, seed=0), seed=0)
    assert all(np.isfinite(list(figures.values())))
    json.dumps(figures, allow_nan=False)


def test_the_same_seed_gives_the_same_figures_for_sets_of_any_size() -> None:
    real, synthetic = blobs(30, seed=0), blobs(12, seed=1)
    assert cell_quality(real, synthetic, seed=2**40) == cell_quality(real, synthetic, seed=2**40)


def test_fewer_than_five_cells_give_no_figures() -> None:
    assert cell_quality(blobs(4, 0), blobs(40, 1), seed=0) == {}
    assert cell_quality(blobs(40, 0), blobs(4, 1), seed=0) == {}
