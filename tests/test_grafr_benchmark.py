"""GraFR's benchmark at toy size: its synthetic cells, its sides, its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.grafr import K, cells, k_center, main, measure, nearest, plain, recall, table, write_bank


def test_synthetic_cells_are_clustered_like_features() -> None:
    feat = cells(600, 0, 128)
    assert feat.dtype == np.float32
    assert (feat >= 0).all()
    assert 0.3 < (feat == 0).mean() < 0.7
    np.testing.assert_array_equal(cells(600, 0, 128), feat)
    assert not np.array_equal(cells(600, 1, 128), feat)
    away = np.linalg.norm(feat[:, None] - feat[None, :200], axis=2)
    np.fill_diagonal(away, np.inf)
    assert away.min(axis=1).mean() < 0.7 * away[np.isfinite(away)].mean(), "neighbours are near"


@pytest.mark.parametrize("side", ["exact", "ivf", "plain"])
def test_a_side_is_measured(side: str, tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.npy", 700, 32)
    assert np.load(tmp_path / "bank.npy").shape == (700, 32)
    found = measure(side, tmp_path / "bank.npy", repeats=2)
    assert found["recall"] > 0.99
    assert min(found["one_ms"], found["batch_ms"], found["peak_mib"]) > 0
    text = table([{"rows": 700, "side": side, **found}])
    assert f"| 700 | {side} |" in text


def test_recall_counts_what_is_found() -> None:
    bank, queries = cells(300, 0, 32), cells(20, 1, 32)
    right = nearest(bank, queries, np.tile(np.arange(300), (20, 1)))
    np.testing.assert_array_equal(right, plain(bank)[1](queries))
    assert recall(right, bank, queries) == 1.0
    half = right.copy()
    half[:, : K // 2] = -1
    assert recall(half, bank, queries) == 0.5


def test_k_center_reaches_everywhere() -> None:
    """Gonzalez (1985): chosen rows differ, and no row is as far from them as from drawn ones."""
    bank = cells(200, 0, 16)
    chosen = k_center(bank, 20, 0)
    assert len(set(chosen.tolist())) == 20
    reach = np.linalg.norm(bank[:, None] - bank[chosen], axis=2).min(axis=1).max()
    drawn = np.random.default_rng(0).choice(200, 20, replace=False)
    assert reach < np.linalg.norm(bank[:, None] - bank[drawn], axis=2).min(axis=1).max()


def test_recall_on_features_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "features.npy", cells(400, 3, 16))
    main(["--features", str(tmp_path / "features.npy")])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:4] for row in rows] == [["ivf", "320", "80", "16"], ["hnsw", "320", "80", "16"]]
    for row in rows:
        assert float(row[4]) > 0.9 and float(row[5]) < 5
