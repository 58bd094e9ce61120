"""What is kept and said of synthetic cells: figures, alarms, pictures; in both spaces of features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.data.decode import decode_stored
from cotray.evaluation.figures import grid_figure
from cotray.evaluation.synthetic_figures import nearest_figure, over_time_figure, pairs_figure
from cotray.stages.base import StageRun
from cotray.stages.cells import column, labels
from cotray.storage import Folder
from cotray.synthesis.alarms import Alarms, alarms
from cotray.synthesis.copying import most_suspicious
from cotray.synthesis.quality import Points, enough, feature_points, pixel_points, quality

Rgb = NDArray[np.uint8]
PAIRS = 8
"""Most suspicious synthetic cells shown beside their nearest training cells."""
PICTURES = ("samples", "over_time", "pairs", "distances")
"""What the stage keeps as PNG, where there is something to show."""


@dataclass(frozen=True)
class Judgement:
    """How good synthetic cells are; empty where there are too few to say."""

    metrics: dict[str, float] = field(default_factory=dict)
    alarms: Alarms = field(default_factory=Alarms)
    pictures: dict[str, bytes] = field(default_factory=dict)


def judge_pixels(real_NSS3: Rgb, synthetic_MSS3: Rgb, seed: int) -> Judgement:
    """Synthetic cells against the training cells they were learned from, by their pixels."""
    if not enough(len(real_NSS3), len(synthetic_MSS3)):
        return Judgement()
    points = pixel_points(real_NSS3, synthetic_MSS3, seed)
    judged = _judge(points, seed)
    found = points.nearest()
    usual = max(1e-12, float(np.median(found.own_N)))
    pairs = most_suspicious(found, PAIRS)
    drawn, like = [synthetic_MSS3[i] for i, _ in pairs], [real_NSS3[j] for _, j in pairs]
    pictures = {
        "pairs": pairs_figure(drawn, like, [float(found.away_M[i]) / usual for i, _ in pairs]),
        "distances": nearest_figure(found.own_N, found.away_M, found.bar),
    }
    return Judgement(judged.metrics, judged.alarms, pictures)


def judge_features(rows: pa.Table, feat_ND: NDArray[np.float32], seed: int) -> Judgement:
    """Synthetic cells against real training cells of their class, by the backbone's features.

    ``rows`` is the manifest of cells in the order of ``feat_ND``.
    """
    source, label = column(rows, "source"), labels(rows)
    drawn = source == "leugan"
    of_class = np.isin(label, label[drawn])
    real = (source == "real") & (column(rows, "split") == "train") & of_class
    if not enough(int(real.sum()), int(drawn.sum())):
        return Judgement()
    return _judge(feature_points(feat_ND[real], feat_ND[drawn], seed), seed)


def _judge(points: Points, seed: int) -> Judgement:
    figures = quality(points, seed)
    raised = alarms(figures, points.space)
    return Judgement(figures | raised.metrics(points.space), raised)


def samples_picture(real_NSS3: Rgb, synthetic_MSS3: Rgb) -> bytes:
    """Two rows of real cells over two of synthetic ones."""
    real, drawn = real_NSS3[:16], synthetic_MSS3[:16]
    return grid_figure([*real, *drawn], 8, ["real"] * len(real) + ["synthetic"] * len(drawn))


def keep_pictures(at: StageRun, pictures: dict[str, bytes], grids: str) -> None:
    """In the stage's folder and in the tracker; the training's grids (in ``grids``) as one strip."""
    if frames := _frames(at.folder / grids):
        pictures = pictures | {"over_time": over_time_figure(frames)}
    for name, png in pictures.items():
        at.folder.write_bytes(f"{name}.png", png)
        at.tracker.artifact(f"{name}.png", png)


def _frames(folder: Folder) -> dict[int, Rgb]:
    """Grids that the training left, by epoch."""
    names = folder.files() if folder.exists() else []
    return {
        int(name[-9:-4]): decode_stored(folder.read_bytes(name)) for name in names if name.endswith(".png")
    }
