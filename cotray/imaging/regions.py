"""Parts of an image that are no smear: known shortcuts, such as a scale bar, and black surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.errors import InvalidValueError

Fractions = tuple[float, float, float, float]

BLACK, BLACK_SHARE = 16, 0.2
"""An image is on black if this share of it is no brighter than this; what is not black is cell."""


def blank_regions(rgb: NDArray[np.uint8], regions_fraction: Sequence[Fractions]) -> NDArray[np.uint8]:
    """``rgb`` (H, W, 3) with rectangles filled by the image's median colour.

    A rectangle is (x0, y0, x1, y1) as fractions of width and height, widened to whole pixels. Without
    rectangles the image itself is returned. Raises InvalidValueError for a rectangle that is not one.
    """
    if not len(regions_fraction):
        return rgb
    height, width = rgb.shape[:2]
    colour = np.median(rgb.reshape(-1, 3), axis=0).astype(np.uint8)
    out = rgb.copy()
    for x0, y0, x1, y1 in regions_fraction:
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise InvalidValueError(
                f"A region cannot be {(x0, y0, x1, y1)}.",
                where="ingest.mask_regions",
                cure="Give x0, y0, x1, y1 between 0 and 1 with x0 < x1 and y0 < y1.",
            )
        rows = slice(int(np.floor(y0 * height)), int(np.ceil(y1 * height)))
        columns = slice(int(np.floor(x0 * width)), int(np.ceil(x1 * width)))
        out[rows, columns] = colour
    return out


def lit_on_black(rgb: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Which pixels (H, W) of cells cut out on black are not black; None for an image that is not on black."""
    red, green, blue = cv2.split(rgb)
    brightest = cv2.max(cv2.max(red, green), blue)
    lit = cv2.threshold(brightest, BLACK, 255, cv2.THRESH_BINARY)[1]
    return np.asarray(lit > 0) if cv2.countNonZero(lit) <= (1 - BLACK_SHARE) * lit.size else None
