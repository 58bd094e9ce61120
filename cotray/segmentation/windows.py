"""Square windows that LeuSAM looks through, and masks back into the image.

Shapes: H W pixels of the image, S side of the window as LeuSAM sees it, M side of its mask logits.
Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import SegmentConfig
from cotray.imaging.masks import Box, box_iou

Pixels = NDArray[np.uint8]
FITS = 0.3
"""A box found that overlaps a cell's own by less is another cell's."""


@dataclass(frozen=True)
class Window:
    """A square of the image; it may reach beyond the image."""

    x0: int
    y0: int
    side: int


def window_of(box: Sequence[int], shape: tuple[int, ...], cfg: SegmentConfig) -> Window:
    """`cell`: around the box, ``cfg.context`` times its longer side; `image`: the whole image."""
    if cfg.window == "image":
        return Window(0, 0, max(shape[:2]))
    side = max(8, round(cfg.context * max(box[2] - box[0], box[3] - box[1])))
    return Window((box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2, side)


def cut_window(pixels: Pixels, window: Window, size: int) -> Pixels:
    """The window of (H, W[, 3]) uint8 pixels at (size, size[, 3]); black beyond the image."""
    height, width = pixels.shape[:2]
    square = np.zeros((window.side, window.side, *pixels.shape[2:]), np.uint8)
    left, top = max(0, window.x0), max(0, window.y0)
    right, bottom = min(width, window.x0 + window.side), min(height, window.y0 + window.side)
    if left < right and top < bottom:
        inside = pixels[top:bottom, left:right]
        square[top - window.y0 : bottom - window.y0, left - window.x0 : right - window.x0] = inside
    how = cv2.INTER_AREA if size < window.side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)


def paste_mask(logits_MM: NDArray[np.float32], window: Window, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the logits, enlarged to the window, are above 0: (H, W) bool."""
    square = cv2.resize(logits_MM, (window.side, window.side), interpolation=cv2.INTER_LINEAR) > 0
    out = np.zeros(shape, bool)
    left, top = max(0, window.x0), max(0, window.y0)
    right, bottom = min(shape[1], window.x0 + window.side), min(shape[0], window.y0 + window.side)
    if left < right and top < bottom:
        out[top:bottom, left:right] = square[
            top - window.y0 : bottom - window.y0, left - window.x0 : right - window.x0
        ]
    return out


def to_window(box: Sequence[int], window: Window, size: int) -> NDArray[np.float32]:
    """A box of the image in pixels of the window as LeuSAM sees it: (4,) float32."""
    origin = np.array([window.x0, window.y0, window.x0, window.y0])
    return np.asarray((np.asarray(box) - origin) * (size / window.side), np.float32)


def prompt_box(found: Sequence[Box], true: Box) -> Box:
    """The box that prompts for a cell in training: the found one that fits best, or its own if none does."""
    best = max(found, key=lambda box: box_iou(box, true), default=true)
    return best if box_iou(best, true) >= FITS else true


def training_windows(
    rgb: Pixels, mask: NDArray[np.bool_], box: Sequence[int], cfg: SegmentConfig
) -> dict[str, NDArray[Any]]:
    """One training item: image (S, S, 3) uint8, mask (S, S) uint8 of 0 and 1, box (4,) float32."""
    window = window_of(box, rgb.shape, cfg)
    return {
        "image": cut_window(rgb, window, cfg.image_size),
        "mask": (cut_window(mask.astype(np.uint8) * 255, window, cfg.image_size) > 127).astype(np.uint8),
        "box": to_window(box, window, cfg.image_size),
    }
