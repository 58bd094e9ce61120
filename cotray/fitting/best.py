"""Which epoch's weights are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def best_epoch(
    history: Sequence[Mapping[str, float]], smooth: int = 1, monitor: str = "val_loss", mode: str = "min"
) -> int:
    """Index of the epoch with the best mean of ``monitor`` over ``smooth`` epochs, its own and those before;
    the first of equals. The newest until there are so many; by the training loss where nothing validates.

    ``mode``: which is better, ``min`` or ``max``. ``history`` has at least one epoch.
    """
    known = monitor in history[-1]
    score_E = np.array([row[monitor if known else "loss"] for row in history])
    if known and mode == "max":
        score_E = -score_E
    first = min(smooth, len(history)) - 1
    means = [score_E[max(0, last + 1 - smooth) : last + 1].mean() for last in range(first, len(history))]
    return first + int(np.argmin(means))
