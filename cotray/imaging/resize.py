"""Resizing stacks of square cells."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_square(images_NSS3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 -> (N, size, size, 3) uint8; area when shrinking, linear when growing."""
    n, side = images_NSS3.shape[:2]
    if side == size or n == 0:
        return images_NSS3 if side == size else np.zeros((0, size, size, 3), np.uint8)
    how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (size, size), interpolation=how) for image in images_NSS3])
