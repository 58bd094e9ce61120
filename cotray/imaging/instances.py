"""The cells of one image as instances: a label image out of overlapping masks, and a picture of it.

Shapes: N masks, H W pixels. Label images are (H, W) uint16: 0 background, k the k-th cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from cotray.config import RoiConfig
from cotray.imaging.masks import Mask, clean_mask
from cotray.imaging.roi import Region, find_cells

Labels = NDArray[np.uint16]
SAME_CELL = 0.5
"""Two masks that share more than this part of the smaller one are one cell, found twice."""
FILLS, RIVAL = 0.25, 0.4
"""An image shows one cell if the largest one's box is longer than this share of the image's shorter side, and
no other whole nucleus is larger than this share of its own."""
COLOURS = ((255, 221, 64), (96, 255, 240), (255, 140, 120), (150, 255, 120), (255, 170, 255), (160, 190, 255))
DARK = (16, 24, 32)


def part_instances(masks: Sequence[Mask], scores: Sequence[float]) -> tuple[list[Mask], list[int]]:
    """(disjoint masks, index that each of them had); the order is kept.

    The better mask (by ``scores``) comes first: a later one that is the same cell again is dropped, and a
    pixel that two masks claim is the better one's. Empty masks are dropped too.
    """
    parted: dict[int, Mask] = {}
    for index in sorted(range(len(masks)), key=lambda i: -float(scores[i])):
        mask, area = masks[index], np.count_nonzero(masks[index])
        shared = [(other, np.count_nonzero(mask & other)) for other in parted.values()]
        if not area or any(both > SAME_CELL * min(area, other.sum()) for other, both in shared):
            continue
        overlapping = [other for other, both in shared if both]
        for other in overlapping:
            mask = mask & ~other
        if not mask.any():
            continue
        # What is left may be in pieces; the largest is the cell. Its holes may be other cells.
        parted[index] = clean_mask(mask) & mask if overlapping else mask
    kept = sorted(parted)
    return [parted[index] for index in kept], kept


def label_image(masks: Sequence[Mask], shape: tuple[int, int]) -> Labels:
    """Disjoint masks as one label image."""
    labels = np.zeros(shape, np.uint16)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return labels


def draw_instances(rgb: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A copy of (H, W, 3) ``rgb`` with each cell's outline and number."""
    out = np.ascontiguousarray(rgb).copy()
    thick = max(1, round(max(labels.shape) / 400))
    for number, where in enumerate(find_objects(labels), 1):
        if where is None:
            continue
        inside = np.pad((labels[where] == number).astype(np.uint8), 1)
        corner = (where[1].start - 1, where[0].start - 1)
        lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=corner)
        colour = COLOURS[(number - 1) % len(COLOURS)]
        cv2.drawContours(out, lines, -1, DARK, thick + 2, cv2.LINE_AA)
        cv2.drawContours(out, lines, -1, colour, thick, cv2.LINE_AA)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        _number(out, str(number), int(x) + corner[0], int(y) + corner[1], colour)
    return out


def _number(out: NDArray[np.uint8], text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """``text`` centred on (x, y), light on dark."""
    scale = max(0.4, max(out.shape[:2]) / 1000)
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 1.6))
    (width, height), _ = cv2.getTextSize(text, font, scale, weight)
    place = (x - width // 2, y + height // 2)
    cv2.putText(out, text, place, font, scale, DARK, weight + 2, cv2.LINE_AA)
    cv2.putText(out, text, place, font, scale, colour, weight, cv2.LINE_AA)


def shows_one_cell(rgb: NDArray[np.uint8], cfg: RoiConfig) -> bool:
    """Whether a (H, W, 3) image looks like the picture of one cell rather than a field of a smear.

    So it is where the cell of the largest nucleus covers the middle and fills a good part of the image, and
    no other whole nucleus is of a like size. Neighbours that the image's edge cuts do not count.
    """
    regions = find_cells(rgb, cfg, single=False)
    if not regions:
        return False
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = regions[0].box
    covers = x0 <= width / 2 <= x1 and y0 <= height / 2 <= y1
    fills = max(x1 - x0, y1 - y0) > FILLS * min(height, width)
    rivals = [other for other in regions[1:] if other.area > RIVAL * regions[0].area]
    return covers and fills and all(_is_cut(other, width, height) for other in rivals)


def _is_cut(region: Region, width: int, height: int) -> bool:
    """Whether the image's edge goes through a cell."""
    x0, y0, x1, y1 = region.box
    return x0 <= 0 or y0 <= 0 or x1 >= width or y1 >= height
