"""L-BFGS (Nocedal & Wright 2006, Alg. 7.4-7.5) on several smooth convex problems side by side.

B problems, V variables of each, M steps remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
MEMORY = 8
ARMIJO = 1e-4
HALVINGS = 30


def minimise(
    function: Callable[[Values], tuple[Values, Values]],
    precondition: Callable[[Values], Values],
    start_BV: Values,
    tolerance_B: Values,
    steps: int,
) -> Values:
    """Where the functions are least: (B, V).

    ``function``: variables (B, V) -> values (B,) and gradients (B, V). ``precondition``: gradients (B, V)
    -> about the inverse Hessians times them. A problem is done when no part of its gradient exceeds its
    tolerance; the others go on, for at most ``steps``. No problem influences another one.
    """
    at_BV, memory = start_BV, list[Step]()
    value_B, slope_BV = function(at_BV)
    for _ in range(steps):
        going_B = np.abs(slope_BV).max(axis=1) > tolerance_B
        if not going_B.any():
            break
        step_BV = -two_loops(slope_BV, memory, precondition) * going_B[:, None]
        moved_BV, value_B, steep_BV = _search(function, at_BV, step_BV, value_B, slope_BV)
        memory = [*memory, Step.taken(moved_BV - at_BV, steep_BV - slope_BV, precondition)][-MEMORY:]
        at_BV, slope_BV = moved_BV, steep_BV
    return at_BV


class Step(NamedTuple):
    """A step taken, and what it told of the curvature."""

    moved_BV: Values
    change_BV: Values
    """Of the gradient."""
    inverse_B1: Values
    """1 / moved * change."""
    scale_B1: Values
    """How much larger the inverse Hessian is than the preconditioner."""

    @classmethod
    def taken(cls, moved_BV: Values, change_BV: Values, precondition: Callable[[Values], Values]) -> Step:
        """The step's record; it changes nothing for a problem that stood still."""
        curve_B = np.vecdot(moved_BV, change_BV)
        moved_B = curve_B > 0
        flat_B = np.vecdot(change_BV, precondition(change_BV))
        inverse_B = np.divide(1.0, curve_B, out=np.zeros_like(curve_B), where=moved_B)
        scale_B = np.divide(curve_B, flat_B, out=np.ones_like(curve_B), where=moved_B)
        return cls(moved_BV, change_BV, inverse_B[:, None], scale_B[:, None])


def two_loops(slope_BV: Values, memory: list[Step], precondition: Callable[[Values], Values]) -> Values:
    """The inverse Hessians, as the steps remembered correct the preconditioner, times the gradients."""
    turned_BV, shares = slope_BV, []
    for step in reversed(memory):
        share_B1 = step.inverse_B1 * np.vecdot(step.moved_BV, turned_BV)[:, None]
        turned_BV = turned_BV - share_B1 * step.change_BV
        shares.append(share_B1)
    turned_BV = precondition(turned_BV)
    if memory:
        turned_BV = turned_BV * memory[-1].scale_B1
    for step, share_B1 in zip(memory, reversed(shares), strict=True):
        again_B1 = step.inverse_B1 * np.vecdot(step.change_BV, turned_BV)[:, None]
        turned_BV = turned_BV + (share_B1 - again_B1) * step.moved_BV
    return np.asarray(turned_BV)


def _search(
    function: Callable[[Values], tuple[Values, Values]],
    at_BV: Values,
    step_BV: Values,
    value_B: Values,
    slope_BV: Values,
) -> tuple[Values, Values, Values]:
    """Go the whole step, or a half, a quarter ... of it, until the function falls as it should."""
    length_B = np.ones(len(at_BV))
    fall_B = ARMIJO * np.vecdot(step_BV, slope_BV) + 1e-12 * np.abs(value_B)  # near the end rounding rules
    for _ in range(HALVINGS):
        moved_BV = at_BV + length_B[:, None] * step_BV
        found_B, found_BV = function(moved_BV)
        short_B = found_B > value_B + fall_B * length_B
        if not short_B.any():
            break
        length_B = np.where(short_B, length_B / 2, length_B)
    return moved_BV, found_B, found_BV
