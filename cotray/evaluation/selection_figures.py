"""Figures of a feature selection; each returns PNG bytes. D features, M members (searches on halves)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cotray.errors import DataError
from cotray.evaluation.plotting import (
    FAINT,
    LINES,
    STYLES,
    name_axes,
    new_figure,
    plain_axes,
    png_bytes,
    whole_ticks,
)
from cotray.selection.choose import frequency, jaccard, stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, float]]
SHOWN = 25
"""Features that the stability figure shows."""
LONGEST = 32
"""Letters of a feature's name; the middle of a longer one is left out."""


def convergence_figure(histories: Mapping[str, History]) -> bytes:
    """Best fitness against evaluations and against seconds, and features kept; a line for each search.

    ``histories``: name -> rows with ``best_fitness``, ``best_size``, ``evaluations`` and ``seconds``.
    Raises DataError where a history is empty, or there is none.
    """
    if not histories or not all(histories.values()):
        raise DataError("This selection history is empty.")
    figure = new_figure(12.6, 3.4)
    fitness, clock, size = plain_axes(figure, 1, 3)
    for i, (name, rows) in enumerate(histories.items()):
        look = {"color": LINES[i % len(LINES)], "linestyle": STYLES[i % len(STYLES)]}
        label = f"{name}  {rows[-1]['best_fitness']:.4f}, {int(rows[-1]['best_size'])} features"
        _steps(fitness, rows, "evaluations", "best_fitness", label, look)
        _steps(clock, rows, "seconds", "best_fitness", label, look)
        _steps(size, rows, "evaluations", "best_size", label, look)
    size.set_ylim(0, 1.08 * max(row["best_size"] for rows in histories.values() for row in rows))
    for axis in (fitness, clock, size):
        axis.set_xlim(left=0)  # what it took to get the first answer is seen as well
    whole_ticks(size.yaxis)
    name_axes(fitness, "masks asked for", "fitness (smaller is better)", "best fitness by evaluations")
    name_axes(clock, "seconds of search", "fitness", "best fitness by time")
    name_axes(size, "masks asked for", "features", "features of the best mask")
    handles, labels = fitness.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        fontsize=8,
        frameon=False,
        loc="outside lower center",
        ncols=3,
        labelcolor="linecolor",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png_bytes(figure)


def _steps(axis: Axes, rows: History, x: str, y: str, label: str, look: Mapping[str, Any]) -> None:
    at, worth = [row[x] for row in rows], [row[y] for row in rows]
    marker = "o" if len(rows) == 1 else None
    axis.step(at, worth, where="post", linewidth=1.8, label=label, marker=marker, markersize=4, **look)


def stability_figure(
    names: Sequence[str] | NDArray[np.str_], member_MD: NDArray[np.bool_], mask_D: NDArray[np.bool_]
) -> bytes:
    """Share of searches on halves of the data that chose each feature: the most frequent ones.

    Blue: in the reported ``mask_D``. The title tells Jaccard's and Nogueira's indices over all features.
    Raises DataError where there are fewer than two members.
    """
    if len(member_MD) < 2:
        raise DataError("Stability needs two searches at least.", cure="Set select.members to 2 or more.")
    share_D = frequency(member_MD)
    order = np.lexsort((~mask_D, -share_D))[:SHOWN]
    order = order[(share_D[order] > 0) | mask_D[order]]
    figure = new_figure(6.4, 1.1 + 0.2 * len(order))
    (axis,) = plain_axes(figure)
    colours = [LINES[0] if mask_D[d] else FAINT for d in order]
    axis.barh(range(len(order)), share_D[order], color=colours, height=0.72)
    labels = axis.set_yticks(range(len(order)), [shorten(str(names[d])) for d in order], fontsize=8)
    for tick in labels:
        tick.label1.set_parse_math(False)
    axis.grid(axis="y", linewidth=0)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.02)
    more = int(np.count_nonzero(share_D)) - int(np.count_nonzero(share_D[order]))
    rest = f"; {more} more were chosen less often" if more else ""
    below = f"share of {len(member_MD)} searches on halves of the data\n(blue: in the reported mask{rest})"
    name_axes(axis, below, "", f"Jaccard {jaccard(member_MD):.2f}, Nogueira {stability(member_MD):.2f}")
    return png_bytes(figure)


def shorten(name: str) -> str:
    """A name of at most :data:`LONGEST` letters; its beginning and its end stay."""
    if len(name) <= LONGEST:
        return name
    half = (LONGEST - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
