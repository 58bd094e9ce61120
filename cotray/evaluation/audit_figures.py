"""Figures of the shortcut audit; each returns PNG bytes. G grid cells a side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cotray.evaluation.plotting import (
    FAINT,
    INK,
    MALIGNANT,
    NORMAL,
    name_axes,
    new_figure,
    plain_axes,
    png_bytes,
)
from cotray.evaluation.shortcuts import PROBES, SURE, Probe
from cotray.imaging.regions import Fractions


def probes_figure(probes: Sequence[Probe]) -> bytes:
    """AUROC of each probe with its interval, beside chance; orange from where it gives the class away."""
    figure = new_figure(8.6, 0.6 + 0.32 * len(probes))
    (axis,) = plain_axes(figure)
    axis.axvline(0.5, color=INK, linewidth=1)
    axis.axvline(SURE, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    for row, probe in enumerate(probes):
        colour = FAINT if not probe.telling else MALIGNANT if probe.gives_away else NORMAL
        if probe.interval:
            axis.plot(
                probe.interval, [row, row], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt"
            )
        axis.plot([probe.auroc], [row], "D" if colour == MALIGNANT else "o", color=colour, markersize=6)
        axis.text(1.03, row, f"{probe.auroc:.2f}", color=colour, fontsize=9, va="center")
    axis.set_yticks(range(len(probes)), [PROBES[probe.name] for probe in probes], fontsize=9, color=INK)
    axis.set_ylim(len(probes) - 0.5, -0.5)
    low = min([0.4, *(probe.auroc for probe in probes), *(p.interval[0] for p in probes if p.interval)])
    axis.set_xlim(max(0.0, low - 0.02), 1.0)
    name_axes(axis, "AUROC of this alone; the line at 0.5 is chance", "")
    return png_bytes(figure)


def giveaway_figure(grid_GG: NDArray[np.float64], regions: Sequence[Fractions]) -> bytes:
    """AUROC of each part of the image alone, as a map of the image; proposed regions are outlined."""
    from matplotlib.patches import Rectangle  # slow to import

    figure = new_figure(4.8, 4.4)
    (axis,) = plain_axes(figure)
    axis.grid(False)
    shown = axis.imshow(grid_GG, cmap="magma", vmin=0.5, vmax=1.0, extent=(0, 1, 1, 0))
    for y, x in np.ndindex(grid_GG.shape):
        value, side = grid_GG[y, x], len(grid_GG)
        axis.text(
            (x + 0.5) / side, (y + 0.5) / side, f"{100 * value:.0f}", ha="center", va="center", fontsize=6,
            color="black" if value > 0.8 else "white",
        )  # fmt: skip
    for x0, y0, x1, y1 in regions:
        axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#22d3ee", linewidth=2.5))
    figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.04).ax.tick_params(labelsize=8, colors=FAINT)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    name_axes(axis, "width", "height")
    return png_bytes(figure)
