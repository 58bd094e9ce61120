"""The shortcut audit: how well the class can be told from things that should not tell it, on the same split.

Each probe is a random forest on a handful of numbers (:mod:`cotray.evaluation.probes`), trained on the
training and validation side and scored on the test side. What a forest can tell from the file's size or
from a corner, a network can tell as well, and a fine figure may then be that of the corner.

Shapes: N images, D numbers of a probe, G grid cells a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.errors import ClassError
from cotray.evaluation.intervals import bootstrap_intervals
from cotray.evaluation.metrics import classification_metrics
from cotray.evaluation.probes import CORNER, GRID
from cotray.imaging.regions import Fractions
from cotray.learning import derive_seed

PROBES: dict[str, str] = {
    "file_size": "the file's size",
    "dimensions": "the image's width and height",
    "metadata": "the file's format and metadata",
    "border": "the border's pixels",
    "top_left": "the top-left corner",
    "top_right": "the top-right corner",
    "bottom_left": "the bottom-left corner",
    "bottom_right": "the bottom-right corner",
    "background": "the background without cells",
    "colour": "the histogram of colours",
}
"""Probe -> what it looks at, in the order of the report."""
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
TREES, BINS = 100, 8
SURE = 0.9
"""From this AUROC a probe gives the class away."""
HOT, SIGMAS, LEAST = 0.05, 3.0, 0.65
"""A grid cell stands out where its AUROC is at least ``LEAST``, above the median cell by ``HOT``, and by so
many (robust) standard deviations of all cells, in log odds: near 1, AUROC has little room to differ."""
GROW = 2.0
"""Its neighbours belong to it from this many standard deviations."""
RIM = 2
"""Only cells this near the edge are proposed for blanking: the middle is the image's matter."""
LARGEST = 0.25
"""A region of a greater share of the image is no artefact that could be blanked."""
MOST_REGIONS = 4


@dataclass(frozen=True)
class Probe:
    """One thing looked at, and what it says."""

    name: str
    auroc: float
    interval: tuple[float, float] | None
    """None where a class of the test side comes from a single group."""
    balanced_accuracy: float
    constant: bool = False
    """The same in every image."""
    region: Fractions | None = None
    """Of a corner or the border: the rectangle in it that stands out, worth blanking."""

    @property
    def above_chance(self) -> bool:
        """Whether its interval lies above 0.5."""
        return self.interval is not None and self.interval[0] > 0.5

    @property
    def telling(self) -> bool:
        """Above chance, or so high that it has to be named although the groups are too few to be sure."""
        return self.above_chance or self.auroc >= SURE

    @property
    def gives_away(self) -> bool:
        """Whether the class can be told from this alone."""
        return self.auroc >= SURE


@dataclass(frozen=True)
class ShortcutAudit:
    """All probes of a dataset on one split."""

    probes: tuple[Probe, ...]
    grid_GG: NDArray[np.float64]
    """AUROC of each grid cell alone."""
    regions: tuple[Fractions, ...]
    """Rectangles at the edge that stand out from the rest, the strongest first."""
    train: int
    test: int
    test_groups: int


def audit_shortcuts(
    probes: Mapping[str, NDArray[np.float32]],
    label_N: NDArray[np.int64],
    group_N: NDArray[np.str_],
    test_N: NDArray[np.bool_],
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ShortcutAudit:
    """Judge (N, D) ``probes`` by name, ``grid`` (N, G * G * F) among them, trained where not ``test_N``.

    Probes that are absent (a drawn image has no file) are left out. Same seed, same figures.
    Raises ClassError where either side lacks a class.
    """
    for side, name in ((~test_N, "training"), (test_N, "test")):
        if set(np.unique(label_N[side]).tolist()) != {0, 1}:
            raise ClassError(f"The shortcut audit needs {name} images of both classes.")
    held = _Held(label_N, group_N, test_N, bootstrap, confidence, seed)
    grid_GG = held.grid(probes["grid"])
    judged = [held.judge(name, probes[name]) for name in PROBES if name in probes]
    regions = standing_out(grid_GG)
    regions += [region for region in odd_corners(judged) if not any(_overlap(region, r) for r in regions)]
    judged = [
        replace(probe, region=next((r for r in regions if _inside(probe.name, r)), None)) for probe in judged
    ]
    groups = len(np.unique(group_N[test_N]))
    return ShortcutAudit(
        tuple(judged), grid_GG, tuple(regions), int((~test_N).sum()), int(test_N.sum()), groups
    )


@dataclass(frozen=True)
class _Held:
    """The split that every probe is judged on."""

    label_N: NDArray[np.int64]
    group_N: NDArray[np.str_]
    test_N: NDArray[np.bool_]
    bootstrap: int
    confidence: float
    seed: int

    def judge(self, name: str, value_ND: NDArray[np.float32]) -> Probe:
        truth, group = self.label_N[self.test_N], self.group_N[self.test_N]
        prob = self._told(value_ND)
        figures = classification_metrics(truth, prob)
        intervals = bootstrap_intervals(
            truth, prob, group, 0.5, self.bootstrap, self.confidence, derive_seed(self.seed, 50)
        )
        return Probe(
            name,
            figures["auroc"],
            intervals.get("auroc"),
            figures["balanced_accuracy"],
            constant=bool((value_ND == value_ND[0]).all()),
        )

    def grid(self, value_NC: NDArray[np.float32]) -> NDArray[np.float64]:
        """(G, G) AUROC of each grid cell: naive Bayes over its numbers in octiles, as a hundred forests
        would take a hundred times as long."""
        from sklearn.metrics import roc_auc_score  # slow to import
        from sklearn.naive_bayes import CategoricalNB

        train_N = ~self.test_N
        edges = np.quantile(value_NC[train_N], np.arange(1, BINS) / BINS, axis=0)
        binned = (value_NC[None] > edges[:, None]).sum(axis=0)
        told = []
        for cell_NF in np.split(binned, GRID * GRID, axis=1):
            bayes = CategoricalNB(min_categories=BINS).fit(cell_NF[train_N], self.label_N[train_N])
            odds = bayes.predict_joint_log_proba(cell_NF[self.test_N]) @ [-1, 1]
            told.append(roc_auc_score(self.label_N[self.test_N], odds))
        return np.asarray(told).reshape(GRID, GRID)

    def _told(self, value_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of malignant of the test images, by a forest on the others."""
        from sklearn.ensemble import RandomForestClassifier  # slow to import

        forest = RandomForestClassifier(
            TREES,
            min_samples_leaf=3,
            class_weight="balanced",
            random_state=derive_seed(self.seed, 51) % 2**31,
            n_jobs=1,
        )
        forest.fit(value_ND[~self.test_N], self.label_N[~self.test_N])
        return np.asarray(forest.predict_proba(value_ND[self.test_N])[:, 1], np.float64)


def standing_out(grid_GG: NDArray[np.float64]) -> list[Fractions]:
    """Rectangles (x0, y0, x1, y1; fractions) around neighbouring rim cells that tell the class much better
    than the median cell does, the strongest first.

    Where every cell tells it (a stain that differs by class), none stands out and blanking would not help.
    """
    odds_GG = np.log(np.clip(grid_GG, 0.01, 0.99) / (1 - np.clip(grid_GG, 0.01, 0.99)))
    away_GG = odds_GG - np.median(odds_GG)
    away_GG = away_GG / (1.4826 * np.median(np.abs(away_GG)) + 1e-9)
    rim = np.ones(grid_GG.shape, bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    rim &= grid_GG >= max(LEAST, float(np.median(grid_GG)) + HOT)
    count, label = cv2.connectedComponents((rim & (away_GG >= GROW)).astype(np.uint8), connectivity=8)
    hot = {int(n) for n in np.unique(label[rim & (away_GG >= SIGMAS)])}
    parts = sorted((label == n for n in range(1, count) if n in hot), key=lambda part: -grid_GG[part].max())
    boxes = [_rectangle(part) for part in parts]
    small = [box for box in boxes if (box[2] - box[0]) * (box[3] - box[1]) <= LARGEST]
    return small[:MOST_REGIONS]


def odd_corners(probes: Sequence[Probe]) -> list[Fractions]:
    """The rectangle of a corner that gives the class away, and surely more than any of the other three."""
    corners = [probe for probe in probes if probe.name in CORNERS]
    odd = []
    for probe in corners:
        others = [other.auroc for other in corners if other is not probe]
        if probe.gives_away and probe.interval and probe.interval[0] > max(others, default=1.0):
            odd.append(_corner(probe.name))
    return odd


def _corner(name: str) -> Fractions:
    near, far = CORNER / GRID, 1 - CORNER / GRID
    x0, x1 = (0.0, near) if name.endswith("left") else (far, 1.0)
    y0, y1 = (0.0, near) if name.startswith("top") else (far, 1.0)
    return x0, y0, x1, y1


def _overlap(a: Fractions, b: Fractions) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _rectangle(part_GG: NDArray[np.bool_]) -> Fractions:
    rows, columns = np.flatnonzero(part_GG.any(axis=1)), np.flatnonzero(part_GG.any(axis=0))
    x0, y0, x1, y1 = (int(v) / len(part_GG) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return x0, y0, x1, y1


def _inside(name: str, region: Fractions) -> bool:
    """Whether a region overlaps what a probe looks at; the border is wherever a region touches the edge."""
    if name == "border":
        x0, y0, x1, y1 = region
        return x0 == 0 or y0 == 0 or x1 == 1 or y1 == 1
    return name in CORNERS and _overlap(_corner(name), region)
