"""How far a probability can be trusted: temperature, operating point and class sets learned on validation
(for the bundle), and what they are worth on the test split (for the report). N images, M cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.bundle import Bundle
from cotray.classification.calibration import apply_temperature, fit_temperature, sigmoid
from cotray.classification.conformal import ClassSets, fit_sets, needed_groups, set_figures
from cotray.config import Config
from cotray.evaluation.aggregate import aggregate_cells
from cotray.evaluation.metrics import calibration_error, steady_threshold
from cotray.stages.base import StageRun
from cotray.stages.cells import column, labels

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Images with a label, each from its cells."""

    id_N: list[str]
    label_N: NDArray[np.int64]
    prob_N: Vector
    group_N: NDArray[np.str_]


@dataclass(frozen=True)
class Calibration:
    """What validation says about HDLC's logits."""

    temperature: float
    """Divides the logit."""
    threshold: float
    """Probability from which an image is called malignant."""
    sets: ClassSets
    metrics: dict[str, float]
    """Brier score and calibration error of validation images, before (``_raw``) and after the temperature."""


def calibrate(config: Config, rows: pa.Table, logit_M: Vector) -> Calibration:
    """Fit temperature, threshold and class sets on validation cells (their manifest rows and logits)."""
    temperature = fit_temperature(logit_M, labels(rows))
    raw = images_of(config, rows, sigmoid(logit_M))
    images = images_of(config, rows, sigmoid(apply_temperature(logit_M, temperature)))
    hdlc = config.hdlc
    sets = fit_sets(images.label_N, images.prob_N, images.group_N, hdlc.alpha, hdlc.coverage == "per_class")
    metrics = {f"val_{name}": value for name, value in _before_after(raw, images).items()}
    return Calibration(temperature, threshold_of(images), sets, metrics)


def images_of(config: Config, rows: pa.Table, prob_M: Vector) -> Images:
    """Labelled images from the rows and probabilities of their cells."""
    label_of = dict(zip(rows["image_id"].to_pylist(), labels(rows).tolist(), strict=True))
    group_of = dict(zip(rows["image_id"].to_pylist(), column(rows, "group").tolist(), strict=True))
    place = {name: number for number, name in enumerate(label_of)}
    index = np.asarray([place[name] for name in rows["image_id"].to_pylist()], np.int64)
    overall = aggregate_cells(prob_M, index, len(place), config.evaluate.aggregate)
    label_N = np.asarray(list(label_of.values()), np.int64)
    return Images(list(place), label_N, overall, np.asarray([group_of[name] for name in place], np.str_))


def threshold_of(images: Images) -> float:
    """The operating point; 0.5 where a class is absent."""
    if len(np.unique(images.label_N)) < 2:
        return 0.5
    return steady_threshold(images.label_N, images.prob_N)


def too_few_groups(sets: ClassSets) -> str | None:
    """A note where validation has too few groups for sets that say anything."""
    if min(sets.groups) >= needed_groups(sets.alpha):
        return None
    return (
        f"{min(sets.groups)} validation groups are too few for sets at {1 - sets.alpha:.0%}, which need "
        f"{needed_groups(sets.alpha)}: every image is referred (more groups, or a larger hdlc.alpha)"
    )


# ---- on the test split -----------------------------------------------------------------------------------


def trust_figures(
    config: Config, at: StageRun, bundle: Bundle, cell_prob: Mapping[str, float]
) -> dict[str, float]:
    """Test images' ``brier_raw`` and ``ece_raw`` (before the temperature), and those of their class sets.

    ``cell_prob``: calibrated probability of every test cell by its id.
    """
    rows = at.input("extract").read_parquet("manifest.parquet")
    rows = rows.filter(pa.array([name in cell_prob for name in rows["id"].to_pylist()]))
    prob_M = np.asarray([cell_prob[name] for name in rows["id"].to_pylist()])
    images = images_of(config, rows, prob_M)
    raw = images_of(config, rows, cooled(prob_M, bundle.temperature))
    figures = {k: v for k, v in _before_after(raw, images).items() if k.endswith("_raw")}
    if bundle.sets is not None and len(images.label_N):
        inside_N2 = bundle.sets.contains(images.prob_N, bundle.threshold)
        figures |= set_figures(images.label_N, inside_N2, images.group_N)
    return figures


def cooled(prob_M: Vector, temperature: float) -> Vector:
    """Probabilities as they were before the temperature."""
    inside = np.clip(prob_M, 1e-15, 1 - 1e-15)
    return sigmoid(np.log(inside / (1 - inside)) * temperature)


def trust_note(figures: Mapping[str, float], bundle: Bundle) -> str:
    """One sentence about the class sets."""
    if bundle.sets is None or "set_coverage" not in figures:
        return "no class sets in this bundle"
    level, groups = f"{1 - bundle.sets.alpha:.0%}", min(bundle.sets.groups)
    return too_few_groups(bundle.sets) or (
        f"class sets at {level} (from {groups} validation groups): they hold the true class for "
        f"{figures['set_coverage']:.1%}, groups weighing alike; "
        f"{figures['refer_rate']:.1%} of images hold both or none: refer those to a hematologist"
    )


def _before_after(raw: Images, images: Images) -> dict[str, Any]:
    if not len(images.label_N):
        return {}
    found = {}
    for end, one in (("_raw", raw), ("", images)):
        found[f"brier{end}"] = float(np.mean((one.prob_N - one.label_N) ** 2))
        found[f"ece{end}"] = calibration_error(one.label_N, one.prob_N)
    return found
