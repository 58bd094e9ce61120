"""Cells drawn by a formula, for tests of what is said of synthetic ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.uint8]
SIDE = 32


def blobs(n: int, seed: int, hue: tuple[int, int, int] = (120, 60, 160)) -> Cells:
    """Soft, elongated spots on black: place, size, stretch, turn, brightness and colour vary."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE][:, None]
    cx, cy = rng.uniform(12, 20, (2, n, 1, 1))
    turn, wide, high = rng.uniform(0, np.pi, (n, 1, 1)), *rng.uniform(4, 10, (2, n, 1, 1))
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    shape = np.exp(-(((u / wide) ** 2 + (v / high) ** 2) ** 2))
    colour = np.array(hue) * rng.uniform(0.7, 1.3, (n, 1)) + rng.normal(0, 12, (n, 3))
    return (shape[..., None] * colour[:, None, None]).clip(0, 255).astype(np.uint8)
