"""benchmarks.worth on drawn cells: folds, arms, the table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import worth_across
from benchmarks.worth import answers, run, shifted, table
from benchmarks.worth_arms import CELL_ARMS, FLOOR, FOLDS, Fold, scores
from benchmarks.worth_cells import CellSet, load
from benchmarks.worth_settings import METHOD, brier, grouped, ranked, rows_of, search
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
    given_ = argparse.Namespace(out=tmp_path, tag="quick", settings=QUICK, arms=[FLOOR], device="cpu")
    vars(given_).update(seeds=[0, 1], preset="tiny", jobs=1, threads=1, folds=FOLDS)
    for given_.jobs in (1, 2):  # the second finds all of it done
        run("drawn", cells, given_)
    path = tmp_path / "drawn.quick.answers.jsonl"
    wanted = [(FLOOR, seed, fold) for seed in (0, 1) for fold in range(FOLDS)]
    assert [(row["arm"], row["seed"], row["fold"]) for row in answers(path)] == wanted
    text = table(path, tmp_path)
    assert "**drawn, quick** (60 images, 20 groups, 5 folds a split)" in text
    assert "| colour alone | 10 | 1.000 ± 0.000 |" in text  # dark from light: nothing is easier
    given_.tag = "beside"
    run("drawn", cells, given_)
    beside = sorted(
        answers(tmp_path / "drawn.beside.answers.jsonl"), key=lambda row: (row["seed"], row["fold"])
    )
    assert [row["prob"] for row in beside] == [row["prob"] for row in answers(path)]


def test_kept_cells_are_not_taken_for_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "taleqani.npz", **vars(drawn()))
    assert len(load("taleqani", "", tmp_path, 2).of_N) == len(load("taleqani", "", tmp_path).of_N) == 120
    with pytest.raises(SystemExit, match="holds up to 2 cells of an image, not 12: give another --out"):
        load("taleqani", "", tmp_path, 12)


@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_moving_the_threshold_to_one_half_changes_no_call_and_no_order(
    threshold: float, probabilities: list[float]
) -> None:
    prob = np.sort(np.array(probabilities))
    moved = shifted(prob, threshold)
    assert ((moved >= 0.5) == (prob >= threshold)).all()
    assert (np.diff(moved) >= 0).all() and moved.min() >= 0 and moved.max() <= 1


@pytest.mark.slow
@pytest.mark.long
def test_settings_are_chosen_by_the_other_set(tmp_path: Path) -> None:
    for name, images in (("one", 60), ("other", 75)):
        np.savez(tmp_path / f"{name}.npz", **vars(drawn(images)))
    given_ = argparse.Namespace(
        out=tmp_path,
        sets=["one=", "other="],
        tried=["short", "30 neighbours"],
        seeds=[0],
        jobs=2,
        device="cpu",
    )
    given_.settings = QUICK
    for _ in range(2):  # the second finds all of it done
        search(given_)
    rows = rows_of(tmp_path / "one.settings.jsonl")
    assert len(rows) == FOLDS * (3 + 2)  # resnet18 has no neighbours
    lines = ranked(tmp_path, test=False).splitlines()
    assert [line.count("|") for line in lines] == [9] * 6
    assert {line.split(" | ")[1] for line in lines[2:]} == {"short", "30 neighbours"}
    known = {name: grouped(rows_of(tmp_path / f"{name}.settings.jsonl")) for name in ("one", "other")}
    label = drawn(75).label_M
    best = min(("short", "30 neighbours"), key=lambda t: brier(known["other"][METHOD, t], label))
    assert f"| one | {METHOD} | {best} |" in ranked(tmp_path, test=True)


def test_the_brier_score_gives_both_classes_the_same_say() -> None:
    row = {"val_image": [0, 1, 2, 3], "val_prob": [0.5, 0.0, 0.0, 0.0]}
    label = np.array([1, 0, 0, 0])
    assert brier([row], label) == pytest.approx((0.25 + 0) / 2)


def test_across_learns_one_set_and_asks_the_other(tmp_path: Path) -> None:
    """Colours alone, which need no training: dark cells are malignant in both sets."""
    sets = [f"{name}=" for name in ("one", "other")]
    for name, images in (("one", 60), ("other", 75)):
        np.savez(tmp_path / f"{name}.npz", **vars(drawn(images)))
    for home, away in (sets, sets[::-1]):
        for arm in worth_across.COLOURS:
            row = worth_across.one(home, away, arm, "none", 0, tmp_path, "cpu", QUICK)
            assert (row["learnt"], row["asked"]) == (home[:-1], away[:-1])
            assert row["auroc"] == row["home_auroc"] == 1.0
    fold = Fold(drawn(), load_config(overrides=QUICK), 0)
    test, val = (fold.side_M == side for side in ("test", "val"))
    learnt = worth_across.learnt(fold)
    assert (learnt.side_M[test] == "train").all() and (learnt.side_M[val] == "val").all()


@pytest.mark.slow
@pytest.mark.long
def test_across_keeps_answers_and_tells_them(tmp_path: Path) -> None:
    for name, images in (("one", 60), ("other", 75)):
        np.savez(tmp_path / f"{name}.npz", **vars(drawn(images)))
    given_ = argparse.Namespace(out=tmp_path, sets=["one=", "other="], seeds=[0], jobs=2, device="cpu")
    given_.settings = QUICK
    for _ in range(2):  # the second finds all of it done
        worth_across.across(given_)
    kinds = len(worth_across.NETWORKS) * len(worth_across.JITTER) + len(worth_across.COLOURS)
    assert len(rows_of(tmp_path / "across.jsonl")) == 2 * kinds
    lines = worth_across.shown(tmp_path).splitlines()
    assert len(lines) == 2 + 2 * kinds
    assert sum("| one | other | backbone |" in line for line in lines) == len(worth_across.JITTER)
