"""Regions of interest (paper, section 3.2): stained nuclei found classically, a whole-cell box for each.

From an image to boxes: stain contrast -> Otsu -> touching nuclei parted by a watershed -> lobes of one
nucleus put together -> each nucleus grown into its cytoplasm -> boxes with a margin. All on a copy whose
longer side is at most WORK_SIDE, so that the cost hardly depends on the image's size.

Shapes: H W pixels of the image, h w of the working copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import RoiConfig
from cotray.imaging.masks import Box
from cotray.imaging.nuclei import Nucleus, Plane, find_nuclei, stain_contrast, stain_level

WORK_SIDE = 320
CYTOPLASM, REACH = 0.4, 0.25
"""A nucleus grows over contrast above this share of the threshold, this far (share of its longer side)."""


@dataclass(frozen=True)
class Region:
    """One stained nucleus and the box of its whole cell."""

    box: Box
    """(x0, y0, x1, y1) pixels of the image, x1 and y1 exclusive, inside the image."""
    score: float
    """Mean stain contrast in the nucleus' box, 0 to 1."""
    area: int
    """Pixels of the nucleus, in the image."""


def find_cells(rgb: NDArray[np.uint8], cfg: RoiConfig, *, single: bool) -> list[Region]:
    """Cells of (H, W, 3) uint8 RGB, the largest nucleus first, at most ``cfg.max_cells``.

    ``single`` says that the image shows one cell: at most one region comes back, the largest where those
    far from the centre count less. Without stain there is no region: an empty list.
    """
    small, factor = _shrink(rgb)
    contrast = stain_contrast(small)
    level = stain_level(contrast)
    nuclei = find_nuclei(contrast > level, cfg, single=single)
    weight = _central(contrast) if single else _area
    nuclei = sorted(nuclei, key=weight, reverse=True)[: 1 if single else cfg.max_cells]
    owner = _nearest(nuclei, contrast.shape)
    weak = contrast > CYTOPLASM * level
    return [
        Region(
            box=_to_image(_with_margin(_grow(nucleus, weak & (owner == n)), cfg.margin), factor, rgb),
            score=_score(nucleus, contrast),
            area=round(nucleus.area / factor**2),
        )
        for n, nucleus in enumerate(nuclei)
    ]


def _shrink(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """(working copy, its size over the image's)."""
    factor = min(1.0, WORK_SIDE / max(rgb.shape[:2]))
    if factor == 1.0:
        return rgb, 1.0
    height, width = (max(1, round(side * factor)) for side in rgb.shape[:2])
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)), factor


def _area(nucleus: Nucleus) -> float:
    return nucleus.area


class _central:
    """Weight of a nucleus in a one-cell image: its area, down to a quarter of it in the corners."""

    def __init__(self, contrast: Plane) -> None:
        self.centre = np.array([contrast.shape[1], contrast.shape[0]]) / 2

    def __call__(self, nucleus: Nucleus) -> float:
        middle = (nucleus.points.min(0) + nucleus.points.max(0)) / 2
        off = float(np.abs((middle - self.centre) / self.centre).max())
        return nucleus.area * (1.0 - 0.75 * off)


def _box(nucleus: Nucleus) -> Box:
    (x0, y0), (x1, y1) = nucleus.points.min(0), nucleus.points.max(0) + 1
    return int(x0), int(y0), int(x1), int(y1)


def _score(nucleus: Nucleus, contrast: Plane) -> float:
    x0, y0, x1, y1 = _box(nucleus)
    return float(contrast[y0:y1, x0:x1].mean()) / 255


def _nearest(nuclei: Sequence[Nucleus], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """(h, w): index of the nucleus whose outline is nearest."""
    of = np.zeros(shape, np.int32)
    if len(nuclei) < 2:
        return of
    seeds = np.ones(shape, np.uint8)
    for n, nucleus in enumerate(nuclei):
        x, y = nucleus.points.T
        seeds[y, x], of[y, x] = 0, n
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(label.max()) + 1, np.int32)
    table[label[seeds == 0]] = of[seeds == 0]
    return np.asarray(table[label])


def _grow(nucleus: Nucleus, stained: NDArray[np.bool_]) -> Box:
    """The nucleus' box widened to the weaker stain it is part of, within REACH of it."""
    x0, y0, x1, y1 = _box(nucleus)
    reach = int(REACH * max(x1 - x0, y1 - y0))
    left, top = max(0, x0 - reach), max(0, y0 - reach)
    around = stained[top : y1 + reach, left : x1 + reach].astype(np.uint8)
    around = cv2.morphologyEx(around, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(around)
    own = np.bincount(parts[nucleus.points[:, 1] - top, nucleus.points[:, 0] - left], minlength=len(stats))
    own[0] = 0
    if not own.any():
        return x0, y0, x1, y1
    gx0, gy0, width, height = (int(v) for v in stats[int(own.argmax()), :4])
    gx0, gy0 = gx0 + left, gy0 + top
    return min(x0, gx0), min(y0, gy0), max(x1, gx0 + width), max(y1, gy0 + height)


def _with_margin(box: Box, margin: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    wide = margin * max(x1 - x0, y1 - y0)
    return x0 - wide, y0 - wide, x1 + wide, y1 + wide


def _to_image(box: tuple[float, float, float, float], factor: float, rgb: NDArray[np.uint8]) -> Box:
    """A box of the working copy in whole pixels of the image, inside it."""
    height, width = rgb.shape[:2]
    x0, y0 = (max(0, int(np.floor(v / factor))) for v in box[:2])
    x1, y1 = (int(np.ceil(v / factor)) for v in box[2:])
    return x0, y0, min(x1, width), min(y1, height)
