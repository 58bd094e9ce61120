"""benchmarks.worth on drawn cells: folds, arms, the table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.worth import answers, run, shifted, table
from benchmarks.worth_arms import CELL_ARMS, FLOOR, FOLDS, Fold, scores
from benchmarks.worth_cells import CellSet
from cotray.config import load_config
from cotray.evaluation.floor import colour_histogram

QUICK = [
    "backbone.image_size=32",
    "backbone.patch=16",
    "backbone.train.epochs=2",
    "hdlc.train.epochs=2",
    "gan.image_size=32",
    "gan.channels=16",
    "gan.train.epochs=2",
    "sca.agents=4",
    "sca.iterations=2",
    "abhc.steps=2",
]


def drawn(images: int = 60) -> CellSet:
    """Two cells an image; malignant ones are darker. Three images a group, a third of them malignant."""
    rng = np.random.default_rng(0)
    label = (np.arange(images) // 3 % 3 == 0).astype(np.int64)
    of = np.repeat(np.arange(images), 2)
    light = np.where(label[of] == 1, 90, 170).reshape(-1, 1, 1, 1)
    cells = (light + rng.integers(-25, 25, (len(of), 32, 32, 3))).astype(np.uint8)
    colour = np.stack([colour_histogram(image) for image in cells[::2]])
    return CellSet(cells, of, label, np.array([f"g{i // 3}" for i in range(images)]), colour)


def test_every_image_is_tested_once_and_groups_stay_together() -> None:
    cells, config = drawn(), load_config(overrides=QUICK)
    folds = [Fold(cells, config, number) for number in range(FOLDS)]
    tested = np.stack([fold.side_M == "test" for fold in folds])
    assert (tested.sum(axis=0) == 1).all()
    for fold in folds:
        for group in set(cells.group_M):
            assert len(set(fold.side_M[cells.group_M == group])) == 1
        assert {"train", "val", "test"} == set(fold.side_N)
    assert len({fold.seed for fold in folds}) == FOLDS  # another network for each


@pytest.mark.slow
def test_every_arm_answers_every_test_image() -> None:
    fold = Fold(drawn(), load_config(overrides=QUICK), 0)
    for arm in (FLOOR, *CELL_ARMS):
        row = scores(fold, arm)
        assert row["image"] == np.flatnonzero(fold.side_M == "test").tolist()
        assert all(0 <= p <= 1 for p in row["prob"])
    assert fold.extra is not None and len(fold.extra)  # LeuGAN's, of the malignant class here
    assert fold.minority == 1


def test_answers_are_kept_and_not_made_twice(tmp_path: Path) -> None:
    cells = drawn()
    np.savez(tmp_path / "drawn.npz", **vars(cells))
    given_ = argparse.Namespace(out=tmp_path, tag="quick", settings=QUICK, arms=[FLOOR])
    for _ in range(2):
        run("drawn", cells, given_)
    path = tmp_path / "drawn.quick.answers.jsonl"
    assert [(row["arm"], row["fold"]) for row in answers(path)] == [(FLOOR, fold) for fold in range(FOLDS)]
    text = table(path, tmp_path)
    assert "**drawn, quick** (60 images, 20 groups, 5 folds)" in text
    assert "| colour alone | 5 | 1.000 ± 0.000 |" in text  # dark from light: nothing is easier


@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_moving_the_threshold_to_one_half_changes_no_call_and_no_order(
    threshold: float, probabilities: list[float]
) -> None:
    prob = np.sort(np.array(probabilities))
    moved = shifted(prob, threshold)
    assert ((moved >= 0.5) == (prob >= threshold)).all()
    assert (np.diff(moved) >= 0).all() and moved.min() >= 0 and moved.max() <= 1
