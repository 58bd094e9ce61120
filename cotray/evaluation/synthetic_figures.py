"""Pictures of synthetic cells: over training time, and beside the training cells they are nearest to.

Each gives PNG bytes. N real, M synthetic cells, S side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cotray.errors import DataError
from cotray.evaluation.plotting import FAINT, INK, LINES, name_axes, new_figure, plain_axes, png_bytes

Rgb = NDArray[np.uint8]
FRAMES = 8
"""Epochs shown at most."""
INCH = 0.85


def over_time_figure(pictures: Mapping[int, Rgb], columns: int = 8) -> bytes:
    """A row of cells for each epoch, of the same latents in each column.

    ``pictures`` are grids (rows * S, columns * S, 3) by epoch; of each the first row is shown. Of many epochs
    FRAMES are, evenly, the first and the last among them. Raises DataError where there are none.
    """
    if not pictures:
        raise DataError("There are no pictures of any epoch.")
    epochs = sorted(pictures)
    places = np.linspace(0, len(epochs) - 1, min(FRAMES, len(epochs))).round().astype(int)
    chosen = [epochs[i] for i in dict.fromkeys(places.tolist())]
    figure = new_figure(columns * INCH + 0.9, len(chosen) * INCH)
    axes = plain_axes(figure, len(chosen))
    for axis, epoch in zip(axes, chosen, strict=True):
        picture = pictures[epoch]
        axis.imshow(picture[: picture.shape[1] // columns], interpolation="lanczos")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.set_ylabel(f"epoch {epoch}", rotation=0, ha="right", va="center", fontsize=8, color=INK)
    return png_bytes(figure)


def pairs_figure(synthetic: Sequence[Rgb], real: Sequence[Rgb], distance: Sequence[float]) -> bytes:
    """Synthetic cells above the training cells nearest to them.

    ``distance`` is each pair's, over the usual distance between neighbouring training cells: 1 is usual.
    Raises DataError where there are none.
    """
    if not synthetic:
        raise DataError("There are no pairs to show.")
    figure = new_figure(len(synthetic) * 1.15 + 0.8, 2.7)
    axes = plain_axes(figure, 2, len(synthetic))
    for number, axis in enumerate(axes):
        column = number % len(synthetic)
        axis.imshow((synthetic if number < len(synthetic) else real)[column], interpolation="lanczos")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[["left", "bottom"]].set_visible(False)
        if number < len(synthetic):
            axis.set_title(f"{distance[column]:.2f}", fontsize=8, color=INK, pad=3)
        if not column:
            name = "synthetic" if not number else "training"
            axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=INK)
    return png_bytes(figure)


def nearest_figure(own_N: NDArray[np.float64], away_M: NDArray[np.float64], bar: float) -> bytes:
    """Distances to the nearest training cell: of training cells (to another), and of synthetic ones.

    Both over the training cells' median; ``bar``: nearer than this counts as close.
    """
    usual = max(1e-12, float(np.median(own_N)))
    sides = {"training cells, to one another": own_N / usual, "synthetic cells": away_M / usual}
    top = min(5.0, 1.05 * max(float(side.max()) for side in sides.values()))
    edges = np.linspace(0, max(top, 1e-6), 31)
    figure = new_figure(4.6, 3.4)
    (axis,) = plain_axes(figure)
    for i, (name, side) in enumerate(sides.items()):
        share = np.histogram(side.clip(max=edges[-1]), edges)[0] / len(side)
        axis.stairs(share, edges, fill=not i, alpha=0.35 if not i else 1.0, color=LINES[i], linewidth=1.8)
        axis.text(
            0.98, 0.96 - 0.09 * i, f"{name} ({len(side)})", color=LINES[i], ha="right", va="top", fontsize=9,
            transform=axis.transAxes,
        )  # fmt: skip
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the names
    axis.axvline(bar / usual, color=INK, linewidth=1, linestyle="--")
    axis.text(bar / usual, 0.5, " close", color=FAINT, fontsize=8, transform=axis.get_xaxis_transform())
    name_axes(axis, "distance to the nearest training cell (usual: 1)", "share")
    return png_bytes(figure)
