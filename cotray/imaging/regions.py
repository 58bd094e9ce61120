"""Blanking known shortcuts, such as a scale bar that differs by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cotray.errors import InvalidValueError

Fractions = tuple[float, float, float, float]


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
