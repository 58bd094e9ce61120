"""From positions in [0, 1] to masks. P agents, D features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float64]
Masks = NDArray[np.bool_]
STEEP = 10.0
"""Slope of both curves at the middle of [0, 1]."""
ABOVE = float(np.nextafter(0.5, 1.0))
"""Least position whose feature is taken."""


def sigmoid(position_PD: Positions, mask_PD: Masks, draw_PD: Positions) -> Masks:
    """S-shaped: a feature is taken with probability 1 / (1 + exp(-10 (x - 0.5)))."""
    return draw_PD < 1.0 / (1.0 + np.exp(-STEEP * (position_PD - 0.5)))


def vshaped(position_PD: Positions, mask_PD: Masks, draw_PD: Positions) -> Masks:
    """V-shaped: a feature's bit is flipped with probability |tanh(10 (x - 0.5) / 2)|."""
    return mask_PD ^ (draw_PD < np.abs(np.tanh(STEEP * (position_PD - 0.5) / 2)))


TRANSFER: dict[str, Callable[[Positions, Masks, Positions], Masks]] = {
    "sigmoid": sigmoid,
    "vshaped": vshaped,
}
"""(positions, masks so far, uniform draws) -> masks; all (P, D)."""


def repair(mask_PD: Masks, rng: np.random.Generator) -> Masks:
    """Masks without a feature get one at random, in place."""
    empty = np.flatnonzero(~mask_PD.any(axis=1))
    mask_PD[empty, rng.integers(mask_PD.shape[1], size=len(empty))] = True
    return mask_PD


def reflect(position_D: Positions, mask_D: Masks) -> Positions:
    """The position with each coordinate on its bit's side of 0.5, at the same distance from it."""
    mirrored = np.where((position_D > 0.5) == mask_D, position_D, 1.0 - position_D)
    # The mirror image of 0.5 is itself, which is not above 0.5.
    return np.where(mask_D, np.maximum(mirrored, ABOVE), np.minimum(mirrored, 0.5))
