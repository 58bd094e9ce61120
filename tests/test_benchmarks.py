"""The selection benchmark at toy size, our side only: its figures against a plain loop over neighbours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

REPO = Path(__file__).resolve().parents[1]
SEED, BUDGET = 10, 60


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """What a run of two sides prints, and its rows."""
    out = tmp_path_factory.mktemp("bench") / "rows.json"
    args = ["--sets", "toy", "--sides", "5 ,7 + soft", "--seeds", str(SEED), "--budget", str(BUDGET)]
    command = [sys.executable, "-m", "benchmarks.selection", *args, "--jobs", "2", "--out", str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    rows = json.loads(out.read_text())["rows"]
    assert not [row for row in rows if "error" in row], run.stderr[-3000:]
    return run.stdout, [row for row in rows if "fitness" in row]


def parts() -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Learning, validation and test part of the toy set, standardised over the first two."""
    made = {"n_informative": 3, "n_redundant": 2, "class_sep": 1.5, "random_state": 100 + SEED}
    feat_ND, label_N = make_classification(120, 12, **made)
    inside, test = train_test_split(range(120), test_size=0.2, stratify=label_N, random_state=SEED)
    strata = label_N[inside]
    learn, validate = train_test_split(inside, test_size=0.25, stratify=strata, random_state=SEED)
    feat_ND = (feat_ND - feat_ND[inside].mean(axis=0)) / feat_ND[inside].std(axis=0)
    return [(feat_ND[rows], label_N[rows]) for rows in (learn, validate, test)]


def knn_error(
    learn: tuple[NDArray[Any], NDArray[Any]], asked: tuple[NDArray[Any], NDArray[Any]], mask_D: NDArray[Any]
) -> float:
    """Share called wrongly by the majority of five neighbours (two classes: no ties)."""
    wrong = 0
    for sample, truth in zip(*asked, strict=True):
        away = ((learn[0][:, mask_D] - sample[mask_D]) ** 2).sum(axis=1)
        called = learn[1][np.argsort(away)[:5]].sum() > 2.5
        wrong += int(called != truth)
    return wrong / len(asked[1])


def test_figures_are_those_of_the_reported_mask(done: tuple[str, list[dict[str, Any]]]) -> None:
    learn, validate, test = parts()
    both = (np.concatenate([learn[0], validate[0]]), np.concatenate([learn[1], validate[1]]))
    assert len(done[1]) == 2
    for row in done[1]:
        bits = np.frombuffer(bytes.fromhex(row["mask"]), np.uint8)
        mask_D = np.unpackbits(bits, count=12).astype(bool)
        inner, outer = knn_error(learn, validate, mask_D), knn_error(both, test, mask_D)
        assert row["features"] == mask_D.sum()
        assert row["outer_error"] == pytest.approx(outer)
        assert row["fitness"] == pytest.approx(0.99 * inner + 0.01 * mask_D.sum() / 12)
        assert row["gap"] == pytest.approx(outer - inner)
        assert 0 < row["evaluations"] <= BUDGET


def test_the_engine_tells_what_scikit_learn_does(done: tuple[str, list[dict[str, Any]]]) -> None:
    (row,) = [row for row in done[1] if row["side"].startswith("5")]
    assert row["told"] == pytest.approx(row["fitness"])


def test_prints_a_line_for_each_side(done: tuple[str, list[dict[str, Any]]]) -> None:
    lines = done[0].splitlines()
    head = next(line for line in lines if line.startswith("| side"))
    for row in done[1]:
        cells = next(line for line in lines if line.startswith(f"| {row['side']} |")).split(" | ")
        shown = dict(zip(head.split(" | "), cells, strict=True))
        assert shown["test error %"] == f"{100 * row['outer_error']:.2f}"
        assert shown["evaluations"] == str(row["evaluations"])
