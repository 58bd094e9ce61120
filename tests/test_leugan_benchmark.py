"""LeuGAN's benchmark at toy size: its cells and groups, its arms, its tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blobs import blobs

from benchmarks import leugan
from benchmarks.leugan_data import SIZE, Cells, all_idb2, halves, thinned
from benchmarks.leugan_worth import ARMS, Budget, judge, worth_tables
from cotray.imaging.resize import resize_square


def drawn() -> Cells:
    """Two kinds, sixteen groups of five."""
    images = np.concatenate([blobs(40, 0), blobs(40, 1, (40, 200, 40))])
    group = np.array([f"g{n // 5:02d}" for n in range(80)])
    return Cells(resize_square(images, SIZE), np.repeat([0, 1], 40), group)


def asked(*more: str) -> argparse.Namespace:
    return argparse.Namespace(sets=["all-idb2"], seeds=[0], data=Path(), quick=True, set=[], forms=list(more))


def test_groups_stay_on_one_side_and_a_made_imbalance_takes_whole_groups() -> None:
    cells = drawn()
    for seed in range(3):
        train, test = halves(cells, seed)
        assert not set(train.group_N) & set(test.group_N)
        assert len(train) + len(test) == len(cells)
        few = thinned(train, 1, 0.25, seed)
        assert (few.label_N == 0).sum() == (train.label_N == 0).sum()
        kept = set(few.group_N[few.label_N == 1])
        whole = {name: (train.group_N == name).sum() for name in kept}
        assert (few.label_N == 1).sum() == sum(whole.values()) == 5 * round(0.25 * 6)


@pytest.mark.slow
@pytest.mark.long
def test_every_arm_is_judged_on_the_same_untouched_cells() -> None:
    config = leugan.settings(asked())
    rows = [
        row
        for seed in (0, 1)
        for row in judge("all-idb2", drawn(), seed, list(ARMS), config, Budget(steps=2))
    ]
    assert len(rows) == 2 * len(ARMS)
    for row in rows:
        assert row["test"] == 20 and row["train"][1] < row["train"][0]
        assert 0 <= row["balanced_accuracy"] <= 1 and 0 <= row["auroc"] <= 1
        assert ("pixels_pca_frechet" in row) == ARMS[row["key"][2]].synthetic
    text = worth_tables(rows)
    assert all(f"| {arm} | 2 |" in text for arm in ARMS)
    assert "| LeuGAN - class weights |" in text


def test_forms_are_told_beside_real_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(leugan.SETS, "all-idb2", lambda folder: drawn())
    forms = ["all three", "none (paper's form)"]
    rows = list(leugan.extras(asked(*forms), set()))
    assert [row["key"][2] for row in rows] == ["real cells of other groups", *forms]
    text = leugan.extras_table(rows)
    assert all(f"| all-idb2 | {form} | 1 |" in text for form in forms)
    done = {tuple(row["key"]) for row in rows}
    assert list(leugan.extras(asked(*forms), done)) == []


def test_all_idb2_is_cut_by_its_masks(shared_data: Callable[[str], Path]) -> None:
    cells = all_idb2(shared_data("all-idb2").parent)
    assert cells.image_NSS3.shape == (260, 64, 64, 3)
    assert np.bincount(cells.label_N).tolist() == [130, 130]
    assert len(set(cells.group_N)) > 15
    assert (cells.image_NSS3[:, 0, 0] == 0).all(), "corners are black"
