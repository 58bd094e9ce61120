"""Copies and collapsed generators raise the alarm; fair generators do not."""

from __future__ import annotations

import numpy as np
import pytest
from blobs import Cells, blobs

from cotray.synthesis.alarms import Alarms, alarms
from cotray.synthesis.quality import cell_quality, feature_points, quality

REAL = blobs(60, seed=0)


def raised(synthetic: Cells, real: Cells = REAL) -> Alarms:
    return alarms(cell_quality(real, synthetic, seed=0), "pixels_pca")


def noisy(cells: Cells, amount: int) -> Cells:
    noise = np.random.default_rng(0).integers(-amount, amount + 1, cells.shape)
    return (cells + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 30, 100])
def test_fair_generators_raise_no_alarm(size: int) -> None:
    for seed in range(40):
        told = raised(blobs(size, seed + 1000), blobs(size, seed))
        assert told == Alarms(), f"seed {seed}: {told.notes()}"


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param(REAL[::-1], id="as they are"),
        pytest.param(REAL[:, :, ::-1], id="mirrored"),
        pytest.param(noisy(REAL, 20), id="with noise"),
        pytest.param(np.roll(REAL, 1, axis=2), id="shifted by a pixel"),
        pytest.param(np.concatenate([REAL[:1], blobs(59, seed=1)]), id="one among fresh ones"),
    ],
)
def test_copies_of_training_cells_raise_the_alarm(copies: Cells) -> None:
    told = raised(np.ascontiguousarray(copies))
    assert "copies training cells" in told.copies
    assert not told.collapse
    assert told.metrics("pixels_pca") == {"pixels_pca_copy_alarm": 1.0, "pixels_pca_collapse_alarm": 0.0}
    assert told.notes() == [f"WARNING: {told.copies}"]


def test_copies_are_told_where_training_cells_are_doubles_themselves() -> None:
    doubled = np.concatenate([REAL[:30], REAL[:30]])
    assert raised(REAL[:20], doubled).copies
    assert not raised(blobs(40, seed=1), doubled).copies


@pytest.mark.parametrize("kinds", [1, 2, 5])
def test_a_collapsed_generator_raises_the_alarm(kinds: int) -> None:
    """With five kinds mean distances are as real ones': the effective number tells."""
    told = raised(noisy(np.repeat(blobs(kinds, seed=5), 60 // kinds, axis=0), 5))
    assert "again and again" in told.collapse
    assert not told.copies, "nobody's cell is copied"
    assert told.metrics("pixels_pca")["pixels_pca_collapse_alarm"] == 1.0


def test_the_alarms_work_in_the_backbones_space_too() -> None:
    rng = np.random.default_rng(0)
    real, fresh = rng.gamma(1.0, size=(2, 80, 64)).astype(np.float32)
    sets = {"fresh": fresh, "copies": real, "collapsed": fresh[:1] + 0 * real}
    told = {name: alarms(quality(feature_points(real, x, 0), 0), "backbone") for name, x in sets.items()}
    assert told["fresh"] == Alarms()
    assert told["copies"].copies and not told["copies"].collapse
    assert told["collapsed"].collapse and not told["collapsed"].copies


def test_no_figures_no_alarm() -> None:
    assert alarms({}, "pixels_pca") == Alarms()
    assert Alarms().notes() == []
