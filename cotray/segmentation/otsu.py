"""The floor of segmentation: Otsu's threshold and a watershed; nothing is learned.

Shapes: H W pixels, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.imaging.masks import clean_mask
from cotray.imaging.nuclei import stain_contrast, stain_level

WEAK = 0.4
"""What has this share of the nuclear threshold's contrast is cell (as the ROI step grows its boxes)."""


class OtsuSegmenter:
    """The floor: Otsu's threshold on stain contrast; a watershed from their nuclei parts cells."""

    def segment(
        self, rgb: NDArray[np.uint8], boxes: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Masks (N, H, W) bool, one piece each without holes, and mean contrast in them (N,) float32, 0..1.

        ``rgb`` is (H, W, 3) uint8; boxes are (x0, y0, x1, y1) in pixels. A box without stain has an
        empty mask.
        """
        contrast = stain_contrast(rgb)
        level = stain_level(contrast)
        owner = _basins(contrast, contrast > level, boxes)
        masks = [np.zeros((0, *contrast.shape), bool)]
        for number, box in enumerate(boxes):
            inside = np.zeros(contrast.shape, bool)
            inside[_part(box)] = True
            masks.append(clean_mask(inside & (owner == number + 1) & (contrast > WEAK * level))[None])
        found = np.concatenate(masks)
        scores = [float(contrast[mask].mean()) / 255 if mask.any() else 0.0 for mask in found]
        return found, np.asarray(scores, np.float32)


def _part(box: Sequence[int]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (max(0, int(edge)) for edge in box)
    return slice(y0, y1), slice(x0, x1)


def _basins(
    contrast: NDArray[np.uint8], stained: NDArray[np.bool_], boxes: Sequence[Sequence[int]]
) -> NDArray[np.int32]:
    """(H, W): number from 1 on of the box whose nucleus floods a pixel; -1 on the lines between."""
    seeds = np.zeros(contrast.shape, np.int32)
    for number, box in reversed(list(enumerate(boxes))):  # the first box, of the largest nucleus, wins
        seeds[_part(box)][stained[_part(box)]] = number + 1
    if len(boxes) < 2:
        return np.ones_like(seeds)
    return np.asarray(cv2.watershed(cv2.merge([contrast] * 3), seeds), np.int32)
