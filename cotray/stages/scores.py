"""Held-out scores: cells -> images -> figures with intervals, beside the colour-only floor.

N images, M cells.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray import manifest
from cotray.bundle import Bundle
from cotray.config import Config
from cotray.evaluation.aggregate import aggregate_cells
from cotray.evaluation.floor import ColourFloor, colour_histogram
from cotray.evaluation.intervals import bootstrap_intervals
from cotray.evaluation.metrics import classification_metrics
from cotray.imaging.regions import blank_regions
from cotray.learning import derive_seed
from cotray.predictor import Classifier
from cotray.stages.base import StageRun
from cotray.stages.cells import column, labels
from cotray.stages.extract import load_features, select_rows
from cotray.stages.ingest import Item, list_items, read_pixels
from cotray.stages.parts import Plan, chunk_size, chunks, part_name, run_parts

Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Scores:
    """Held-out images and what a model says of them."""

    id_N: list[str]
    label_N: NDArray[np.int64]
    prob_N: NDArray[np.float64]
    """Calibrated probability of malignant."""
    group_N: NDArray[np.str_]
    threshold: float
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: Intervals = field(default_factory=dict)

    def with_figures(self, config: Config) -> Scores:
        """The same with metrics and intervals over groups."""
        metrics = classification_metrics(self.label_N, self.prob_N, self.threshold)
        intervals = bootstrap_intervals(
            self.label_N,
            self.prob_N,
            self.group_N,
            self.threshold,
            config.evaluate.bootstrap,
            config.evaluate.confidence,
            derive_seed(config.seed, 40),
        )
        return Scores(
            self.id_N, self.label_N, self.prob_N, self.group_N, self.threshold, metrics, dict(intervals)
        )


@dataclass(frozen=True)
class Held:
    """Everything the report needs of the held-out side."""

    images: Scores
    cell_prob: dict[str, float]
    """Probability of every test cell, by cell id."""
    cell_metrics: dict[str, float]
    """The same metrics over cells (each with its image's label)."""
    without_cell: list[str]
    """Test images in which no cell was found: they get no answer and are counted, not scored."""


def score_test(config: Config, at: StageRun, bundle: Bundle) -> Held:
    """Score the labelled test images with the bundle's classifier."""
    rows, feat = load_features(at)
    keep = select_rows(rows, ("test",), "real")
    rows, prob = rows.filter(pa.array(keep)), Classifier(bundle).from_reconstructed(feat[keep])
    images = labelled(at.input("ingest").read_parquet("manifest.parquet"), "test")
    order = {name: index for index, name in enumerate(images["id"].to_pylist())}
    index = np.asarray([order[name] for name in rows["image_id"].to_pylist()], np.int64)
    overall = aggregate_cells(prob, index, len(images), config.evaluate.aggregate)
    found = ~np.isnan(overall)
    shown = images.filter(pa.array(found))
    scores = Scores(
        shown["id"].to_pylist(), labels(shown), overall[found], column(shown, "group"), bundle.threshold
    )
    cell_prob = dict(zip(rows["id"].to_pylist(), prob.tolist(), strict=True))
    missing = images.filter(pa.array(~found))["id"].to_pylist()
    cell_metrics = classification_metrics(labels(rows), prob, bundle.threshold)
    return Held(scores.with_figures(config), cell_prob, cell_metrics, missing)


def labelled(images: pa.Table, *splits: str) -> pa.Table:
    """Labelled images of the given splits."""
    keep = np.isin(column(images, "split"), splits) & (labels(images) >= 0)
    return images.filter(pa.array(keep))


# ---- the floor: how far colour alone gets ----------------------------------------------------------


def score_floor(config: Config, at: StageRun, tested: Sequence[str]) -> Scores:
    """A random forest on colour histograms of the raw images, trained on the very same split.

    ``tested``: ids of the test images that cotray answered, so that both are scored on the same.
    """
    images = at.input("ingest").read_parquet("manifest.parquet")
    hists = _histograms(config, at, set(images["id"].to_pylist()))
    train, test = labelled(images, "train", "val"), labelled(images, "test")
    test = test.filter(pa.array(np.isin(column(test, "id"), np.asarray(tested, np.str_))))
    forest = ColourFloor(config.evaluate.floor_trees, derive_seed(config.seed, 41) % 2**31)
    forest.fit(_stack(hists, train), labels(train))
    prob = np.asarray(forest.predict_proba(_stack(hists, test)), np.float64)
    scores = Scores(test["id"].to_pylist(), labels(test), prob, column(test, "group"), 0.5)
    return scores.with_figures(config)


def _stack(hists: dict[str, NDArray[np.float32]], rows: pa.Table) -> NDArray[np.float32]:
    return np.stack([hists[name] for name in rows["id"].to_pylist()])


def _histograms(config: Config, at: StageRun, used: set[str]) -> dict[str, NDArray[np.float32]]:
    items = [item for item in list_items(config)[0] if item.path in used]
    parts = chunks(items, chunk_size(len(items), config.ingest.blocks_per_cpu))
    plan = Plan("colour", functools.partial(_Histograms, config), parts, at.folder / "colour")
    run_parts(plan, config.compute, at)
    found: dict[str, NDArray[np.float32]] = {}
    for part in range(len(parts)):
        rows = (at.folder / "colour").read_parquet(part_name(part)).to_pylist()
        found |= {row["id"]: np.asarray(row["feature"], np.float32) for row in rows}
    return found


class _Histograms:
    """Colour histograms of raw images (known shortcuts blanked, nothing enhanced)."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, part: int, items: Sequence[Item]) -> pa.Table:
        rows = [{"id": item.path, "feature": self._one(item).tolist()} for item in items]
        return pa.Table.from_pylist(rows)

    def _one(self, item: Item) -> NDArray[Any]:
        rgb, _ = read_pixels(item, self.config)
        return colour_histogram(blank_regions(rgb, self.config.ingest.mask_regions))


def count_by(rows: pa.Table, *names: str) -> dict[str, dict[str, int]]:
    """Counts of a manifest by each of some columns."""
    return {name: manifest.count(rows, name) for name in names}
