"""Masks of cells: run-length coding, cleaning, boxes, agreement, and the cut-out on black.

Shapes: H W pixels, S side of a cut-out. A mask is bool (H, W); a box is (x0, y0, x1, y1) in pixels, x1
and y1 exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.errors import DataError

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]
SPECK = 20
"""A piece of a mask this many times smaller than the largest is no cell."""


def encode_rle(mask_HW: Mask) -> list[int]:
    """Uncompressed COCO run lengths: column by column, alternating off and on, starting with off.

    ``{"size": [H, W], "counts": encode_rle(mask)}`` is what pycocotools calls an uncompressed RLE.
    """
    flat = np.asarray(mask_HW, bool).ravel(order="F")
    if flat.size == 0:
        return []
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size])))
    counts: list[int] = runs.tolist()
    return [0, *counts] if flat[0] else counts


def decode_rle(counts: Sequence[int], h: int, w: int) -> Mask:
    """The (h, w) mask of :func:`encode_rle`. Raises DataError where the counts do not add up to h * w."""
    runs = np.asarray(counts, np.int64)
    if (runs.size and runs.min() < 0) or int(runs.sum()) != h * w:
        raise DataError(f"A mask's run lengths add up to {int(runs.sum())}, not to {h} x {w} pixels.")
    on = np.arange(runs.size) % 2 == 1
    return np.repeat(on, runs).reshape((h, w), order="F")


def clean_mask(mask_HW: Mask) -> Mask:
    """The largest 8-connected component with its holes filled; an empty mask stays empty."""
    box = mask_box(mask_HW)
    out = np.zeros_like(mask_HW, dtype=bool)
    if box is None:
        return out
    x0, y0, x1, y1 = box
    padded = np.pad(mask_HW[y0:y1, x0:x1].astype(np.uint8), 1)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outside = (parts != largest).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)  # the padding joins all background that reaches the edge
    out[y0:y1, x0:x1] = (outside != 2)[1:-1, 1:-1]
    return out


def own_cell(mask_HW: Mask) -> Mask:
    """The piece of a single cell's mask that is the cell: the 8-connected one that holds the image's middle,
    else the nearest to it; an empty mask stays empty.

    Painters of single-cell sets mark neighbours, too, where the edge of the image cuts them (ALL-IDB2's
    masks by Banik: 21 of 260). Those may well be the larger piece, but the middle is the cell's. Pieces
    smaller than a twentieth of the largest are specks, and left out.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    if count <= 2:
        return np.asarray(mask_HW, bool)
    area = stats[1:, cv2.CC_STAT_AREA]
    middle = (np.array(mask_HW.shape) - 1) / 2
    away = [
        np.hypot(*(np.argwhere(parts == number) - middle).T).min() if pixels * SPECK >= area.max() else np.inf
        for number, pixels in enumerate(area, start=1)
    ]
    return np.asarray(parts == 1 + int(np.argmin(away)))


def mask_box(mask_HW: Mask) -> Box | None:
    """The tightest box around a mask; None where it is empty."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask_HW.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cut_cell(rgb: NDArray[np.uint8], mask: Mask, size: int, margin: float) -> NDArray[np.uint8]:
    """The cell on black (x_s of the paper, section 3.2): (size, size, 3) uint8.

    A square centred on the mask's box, longer than its longer side by ``margin`` of it at each end, what
    lies outside the image being black; area-averaged when shrinking, bilinear when growing.
    Raises DataError where the mask is empty or of another size than the image.
    """
    if mask.shape != rgb.shape[:2]:
        raise DataError(f"The mask is {mask.shape}, its image {rgb.shape[:2]}.")
    box = mask_box(mask)
    if box is None:
        raise DataError("An empty mask has no cell to cut.", cure="Leave out cells whose mask is empty.")
    x0, y0, x1, y1 = box
    longer = max(x1 - x0, y1 - y0)
    side = longer + 2 * round(margin * longer)
    left, top = (side - (x1 - x0)) // 2, (side - (y1 - y0)) // 2
    square = np.zeros((side, side, 3), np.uint8)
    cell = np.where(mask[y0:y1, x0:x1, None], rgb[y0:y1, x0:x1], 0)
    square[top : top + y1 - y0, left : left + x1 - x0] = cell
    return resize_pixels(square, size, size)


def resize_pixels(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(H, W[, 3]) uint8 to another size; area when shrinking, linear when growing."""
    shrink = width * height < pixels.shape[0] * pixels.shape[1]
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union; two empty masks agree wholly (1.0)."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def box_iou(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of two boxes; 0.0 where neither has an area."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / max(1, areas - both)


def dice(a: Mask, b: Mask) -> float:
    """Twice the intersection over the summed areas; two empty masks agree wholly (1.0)."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0
