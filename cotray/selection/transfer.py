"""From positions in [0, 1] to masks. P agents, D features.

The S- and V-shaped families are those of Mirjalili & Lewis (2013), on v = 10 (x - 0.5): positions here lie in
[0, 1] with the middle at 0.5, velocities there on the real line with the middle at 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Positions = NDArray[np.float64]
Masks = NDArray[np.bool_]
STEEP = 10.0
"""Slope of all curves' argument at the middle of [0, 1]."""
ABOVE = float(np.nextafter(0.5, 1.0))
"""Least position whose feature is taken."""

Transfer = Callable[[Positions, Masks, Positions], Masks]
CURVES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "s1": lambda v: 1 / (1 + np.exp(-2 * v)),
    "s2": lambda v: 1 / (1 + np.exp(-v)),
    "s3": lambda v: 1 / (1 + np.exp(-v / 2)),
    "s4": lambda v: 1 / (1 + np.exp(-v / 3)),
    "v1": lambda v: np.abs(erf(np.sqrt(np.pi) / 2 * v)),
    "v2": lambda v: np.abs(np.tanh(v)),
    "v3": lambda v: np.abs(v / np.sqrt(1 + v**2)),
    "v4": lambda v: np.abs(2 / np.pi * np.arctan(np.pi / 2 * v)),
    "vshaped": lambda v: np.abs(np.tanh(v / 2)),
}
"""Probabilities by name: that a feature is taken (S), or that its bit is flipped (V)."""


def s_shaped(curve: str) -> Transfer:
    """A feature is taken with the curve's probability, whatever its bit was."""
    return lambda position_PD, mask_PD, draw_PD: draw_PD < CURVES[curve](STEEP * (position_PD - 0.5))


def v_shaped(curve: str) -> Transfer:
    """A feature's bit is flipped with the curve's probability."""
    return lambda position_PD, mask_PD, draw_PD: (
        mask_PD ^ (draw_PD < CURVES[curve](STEEP * (position_PD - 0.5)))
    )


sigmoid = s_shaped("s2")
"""The paper's: a feature is taken with probability 1 / (1 + exp(-10 (x - 0.5)))."""
TRANSFER: dict[str, Transfer] = {
    "sigmoid": sigmoid,
    **{name: s_shaped(name) for name in ("s1", "s2", "s3", "s4")},
    **{name: v_shaped(name) for name in ("vshaped", "v1", "v2", "v3", "v4")},
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
