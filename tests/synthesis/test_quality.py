from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from cotray.synthesis.quality import _covered, cell_quality, frechet, kernel_distance

Cells = NDArray[np.uint8]
SIDE = 32


def blobs(n: int, seed: int, hue: tuple[int, int, int] = (120, 60, 160)) -> Cells:
    """Soft, elongated spots on black: place, size, stretch, turn, brightness and colour vary."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE][:, None]
    cx, cy = rng.uniform(12, 20, (2, n, 1, 1))
    turn, wide, high = rng.uniform(0, np.pi, (n, 1, 1)), *rng.uniform(4, 10, (2, n, 1, 1))
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    shape = np.exp(-(((u / wide) ** 2 + (v / high) ** 2) ** 2))
    colour = np.array(hue) * rng.uniform(0.7, 1.3, (n, 1)) + rng.normal(0, 12, (n, 3))
    return (shape[..., None] * colour[:, None, None]).clip(0, 255).astype(np.uint8)


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
    assert _covered(points, line) == pytest.approx(3 / 5)


# ---- cells ---------------------------------------------------------------------------------------------


def test_fresh_cells_of_the_same_kind_show_no_copying() -> None:
    for n in (20, 60):
        figures = cell_quality(blobs(n, seed=0), blobs(n, seed=1), seed=0)
        assert figures["nearest_ratio"] == pytest.approx(1.0, abs=0.25)
        assert figures["precision"] > 0.7 and figures["recall"] > 0.7


def test_copies_are_told_by_their_nearest_neighbours() -> None:
    real = blobs(40, seed=0)
    noise = np.random.default_rng(0).integers(-2, 3, real.shape)
    for copies in (real[::-1], (real + noise).clip(0, 255).astype(np.uint8)):
        figures = cell_quality(real, copies, seed=0)
        assert figures["nearest_ratio"] < 0.1
        assert figures["precision"] == figures["recall"] == 1.0


def test_cells_of_another_kind_are_far_and_outside() -> None:
    real = blobs(40, seed=0)
    near, far = (cell_quality(real, blobs(40, 1, hue), seed=0) for hue in ((120, 60, 160), (40, 200, 40)))
    assert far["precision"] == far["recall"] == 0.0
    for name in ("frechet", "kernel", "nearest_ratio"):
        assert far[name] > 2 * abs(near[name])


def test_a_collapsed_generator_is_precise_but_covers_little() -> None:
    real = blobs(40, seed=0)
    figures = cell_quality(real, np.repeat(blobs(1, seed=1), 40, axis=0), seed=0)
    assert figures["recall"] == 0.0
    assert all(np.isfinite(list(figures.values())))
    assert figures["frechet"] > cell_quality(real, blobs(40, seed=1), seed=0)["frechet"]


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
    assert set(cell_quality(blobs(5, 0), blobs(5, 1), seed=0)) == {
        "frechet",
        "kernel",
        "precision",
        "recall",
        "nearest_ratio",
    }
