"""Pictures of a tuning; each returns PNG bytes. Smaller objectives are better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cotray.errors import DataError
from cotray.evaluation.plotting import (
    FAINT,
    INK,
    LINES,
    name_axes,
    new_figure,
    plain_axes,
    png_bytes,
    whole_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DONE, STOPPED, BEST = LINES[0], FAINT, LINES[1]
COLUMNS = 3


@dataclass(frozen=True)
class TrialRow:
    """One trial, as it is shown."""

    number: int
    state: str
    """`complete`, `stopped` (it fell behind), `failed` or `running`."""
    params: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    """objective, error, spread (over folds), features, evaluations."""
    seconds: float = 0.0
    message: str = ""

    @property
    def objective(self) -> float:
        """NaN where there is none that can be compared."""
        return float("nan") if self.state == "failed" else self.figures.get("objective", float("nan"))


def history_figure(trials: Sequence[TrialRow]) -> bytes:
    """Objective of each trial in the order in which they began, and the best so far. Raises DataError."""
    _require(trials)
    figure = new_figure(6.4, 3.0)
    (axis,) = plain_axes(figure)
    _points(axis, trials, [trial.number for trial in trials])
    whole = [trial for trial in trials if trial.state == "complete"]
    best = np.minimum.accumulate(np.array([trial.objective for trial in whole]))
    axis.step([t.number for t in whole], best, where="post", color=BEST, linewidth=1.6, label="best so far")
    whole_ticks(axis.xaxis)
    axis.legend(fontsize=8, frameon=False)
    name_axes(axis, "trial", "objective")
    return png_bytes(figure)


def slices_figure(trials: Sequence[TrialRow], keys: Sequence[str], log: Sequence[str] = ()) -> bytes:
    """Objective against each parameter; those of ``log`` on a logarithmic axis. Raises DataError."""
    _require(trials)
    rows = math.ceil(len(keys) / COLUMNS)
    figure = new_figure(3.0 * min(COLUMNS, len(keys)), 2.4 * rows)
    axes = plain_axes(figure, rows, min(COLUMNS, len(keys)))
    for number, (axis, key) in enumerate(zip(axes, keys, strict=False)):
        _slice(axis, trials, key, key in log)
        name_axes(axis, "", "objective" if number % COLUMNS == 0 else "", key)
    for axis in axes[len(keys) :]:
        axis.set_axis_off()
    return png_bytes(figure)


def importance_figure(importance: Mapping[str, float]) -> bytes:
    """Share of the objective's variance that each parameter explains, the largest on top."""
    figure = new_figure(6.4, 0.6 + 0.32 * len(importance))
    (axis,) = plain_axes(figure)
    names = sorted(importance, key=lambda name: importance[name])
    axis.barh(names, [importance[name] for name in names], color=DONE, height=0.6)
    axis.set_xlim(0, 1)
    axis.grid(axis="y", linewidth=0)
    name_axes(axis, "share of the objective's variance", "")
    return png_bytes(figure)


def _require(trials: Sequence[TrialRow]) -> None:
    if not any(math.isfinite(trial.objective) for trial in trials):
        raise DataError("No trial has an objective to show.")


def _slice(axis: Axes, trials: Sequence[TrialRow], key: str, log: bool) -> None:
    values = [trial.params[key] for trial in trials]
    words = any(isinstance(value, str | bool | None) for value in values)
    if words:
        names = sorted({str(value) for value in values})
        _points(axis, trials, [names.index(str(value)) for value in values])
        axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
        axis.set_xlim(-0.5, len(names) - 0.5)
    else:
        _points(axis, trials, values)
        if log:
            axis.set_xscale("log")
            from matplotlib.ticker import NullFormatter

            axis.xaxis.set_minor_formatter(NullFormatter())  # their labels would lie upon one another


def _points(axis: Axes, trials: Sequence[TrialRow], at: Sequence[float]) -> None:
    """Full dots: run to the end; hollow ones: stopped; a ring around the best; nothing for failed ones."""
    for state, face, edge, label in (
        ("complete", DONE, DONE, "run to the end"),
        ("stopped", "white", STOPPED, "stopped early"),
    ):
        shown = [(x, trial.objective) for x, trial in zip(at, trials, strict=True) if trial.state == state]
        if shown:
            x, y = zip(*shown, strict=True)
            axis.scatter(x, y, s=22, c=face, edgecolors=edge, label=label, zorder=3)
    whole = [(t.objective, t.number, x) for x, t in zip(at, trials, strict=True) if t.state == "complete"]
    if whole:
        objective, _, place = min(whole)
        axis.scatter([place], [objective], s=90, facecolors="none", edgecolors=BEST, linewidths=1.6, zorder=4)
    axis.tick_params(labelcolor=INK)
