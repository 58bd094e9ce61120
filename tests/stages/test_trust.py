"""Calibration of a classifier on validation images, and what it is worth on others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from cotray import manifest
from cotray.classification.conformal import ClassSets
from cotray.config import Config, load_config
from cotray.stages.trust import (
    calibrate,
    cooled,
    images_of,
    too_few_groups,
    trust_figures,
    trust_note,
)

TINY = load_config("tiny")


def cells(groups: int, images: int, per_image: int, seed: int, hot: float = 1.0) -> tuple[pa.Table, NDArray]:
    """Rows of cells of so many groups, and logits ``hot`` times too large."""
    rng = np.random.default_rng(seed)
    rows, logit = [], []
    for group in range(groups):
        label, shift = group % 2, rng.normal(0, 0.7)
        for image in range(images):
            name = f"g{seed}-{group}/{image}.png"
            part = {"image_id": name, "label": label, "group": f"{seed}-{group}", "source": "real"}
            rows += [{"id": f"{name}#{n}", **part} for n in range(per_image)]
            logit += list((2 * label - 1 + shift + rng.normal(0, 1, per_image)) * hot)
    return manifest.table(rows), np.asarray(logit)


def with_alpha(alpha: float) -> Config:
    return load_config("tiny", overrides=[f"hdlc.alpha={alpha}"])


def test_an_overconfident_classifier_is_cooled() -> None:
    found = calibrate(TINY, *cells(40, 5, 1, seed=0, hot=6.0))
    assert found.temperature > 2
    assert found.metrics["val_brier"] < found.metrics["val_brier_raw"]
    assert found.metrics["val_ece"] < found.metrics["val_ece_raw"]
    assert found.sets.groups == (40, 40)
    assert 0 < found.sets.limits[0] < 1


def test_brier_scores_are_those_of_images_before_and_after() -> None:
    rows, logit = cells(20, 3, 4, seed=0, hot=3.0)
    found = calibrate(TINY, rows, logit)
    truth = np.repeat(np.arange(20) % 2, 3)
    for name, temperature in (("val_brier_raw", 1.0), ("val_brier", found.temperature)):
        prob = (1 / (1 + np.exp(-logit / temperature))).reshape(60, 4).mean(axis=1)
        assert found.metrics[name] == pytest.approx(brier_score_loss(truth, prob))


def test_images_come_with_their_group_and_label() -> None:
    rows, logit = cells(4, 2, 3, seed=0)
    order = np.random.default_rng(0).permutation(len(rows))
    images = images_of(TINY, rows.take(pa.array(order)), logit[order] * 0 + 0.5)
    found = dict(
        zip(images.id_N, zip(images.label_N.tolist(), images.group_N.tolist(), strict=True), strict=True)
    )
    assert found == {f"g0-{g}/{i}.png": (g % 2, f"0-{g}") for g in range(4) for i in range(2)}


def test_per_class_limits_come_from_the_class_own_groups() -> None:
    config = load_config("tiny", overrides=["hdlc.coverage=per_class", "hdlc.alpha=0.2"])
    rows, logit = cells(30, 4, 1, seed=0)
    both = calibrate(config, rows, logit).sets
    assert both.groups == (15, 15)
    assert both.limits[0] != both.limits[1]


def test_too_few_groups_are_told() -> None:
    few = calibrate(TINY, *cells(8, 5, 1, seed=0)).sets
    assert few.limits == (1.0, 1.0)
    assert "8 validation groups are too few for sets at 90%, which need 9" in (too_few_groups(few) or "")
    assert too_few_groups(calibrate(TINY, *cells(9, 5, 1, seed=0)).sets) is None
    assert too_few_groups(calibrate(with_alpha(0.2), *cells(8, 5, 1, seed=0)).sets) is None


def test_no_validation_cells_leave_one_half_and_every_class() -> None:
    rows, _ = cells(1, 1, 1, seed=0)
    found = calibrate(TINY, rows.slice(0, 0), np.zeros(0))
    assert (found.temperature, found.threshold, found.sets.limits) == (1.0, 0.5, (1.0, 1.0))
    assert found.metrics == {}


def test_cooled_undoes_the_temperature() -> None:
    logit = np.linspace(-12, 12, 50)
    np.testing.assert_allclose(cooled(1 / (1 + np.exp(-logit / 3)), 3.0), 1 / (1 + np.exp(-logit)), rtol=1e-6)
    assert np.isfinite(cooled(np.array([0.0, 1.0]), 2.0)).all()


class _Rows:
    """The one folder that `trust_figures` reads."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def input(self, stage: str) -> _Rows:
        return self

    def read_parquet(self, name: str) -> pa.Table:
        return self.rows


def test_figures_of_held_out_images() -> None:
    """Learned on forty groups, tried on two hundred others: as promised, and better than before."""
    known = calibrate(TINY, *cells(40, 5, 2, seed=0, hot=6.0))
    rows, logit = cells(200, 5, 2, seed=1, hot=6.0)
    prob = 1 / (1 + np.exp(-logit / known.temperature))
    cell_prob = dict(zip(rows["id"].to_pylist(), prob.tolist(), strict=True))
    bundle = SimpleNamespace(temperature=known.temperature, threshold=known.threshold, sets=known.sets)
    figures = trust_figures(TINY, _Rows(rows), bundle, cell_prob)  # type: ignore[arg-type]
    assert figures["set_coverage"] > 0.85
    assert 0 < figures["refer_rate"] < 0.9
    assert figures["certain_accuracy"] > (((logit > 0) == (rows["label"].to_numpy() > 0)).mean())
    raw = (1 / (1 + np.exp(-logit))).reshape(1000, 2).mean(axis=1)
    truth = np.repeat(np.arange(200) % 2, 5)
    assert figures["brier_raw"] == pytest.approx(brier_score_loss(truth, raw), abs=1e-6)
    note = trust_note(figures, bundle)  # type: ignore[arg-type]
    assert f"{figures['set_coverage']:.1%}" in note and f"{figures['refer_rate']:.1%}" in note


def test_notes_of_bundles_that_promise_nothing() -> None:
    none = SimpleNamespace(sets=None)
    assert trust_note({}, none) == "no class sets in this bundle"  # type: ignore[arg-type]
    few = SimpleNamespace(sets=ClassSets(0.1, (1.0, 1.0), (4, 4)))
    assert "too few" in trust_note({"set_coverage": 1.0, "refer_rate": 1.0}, few)  # type: ignore[arg-type]
