"""Figures of an evaluation; each returns PNG bytes. Label 1 = malignant (orange), 0 = normal (blue).

Shapes: N samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cotray.errors import DataError
from cotray.evaluation.metrics import ECE_BINS, calibration_bin, checked, classification_metrics
from cotray.evaluation.plotting import (
    FAINT,
    GRID,
    INK,
    LINES,
    MALIGNANT,
    NORMAL,
    STYLES,
    label_lines,
    name_axes,
    new_figure,
    percent_limits,
    plain_axes,
    png_bytes,
    whole_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rgb = NDArray[np.uint8]
Box = tuple[int, int, int, int]
CLASS_NAMES = ("normal", "malignant")


def roc_figure(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> bytes:
    """ROC curves by name, each (labels, probabilities) of both classes; AUROC beside the name."""
    from sklearn.metrics import roc_curve  # slow to import

    figure = new_figure(4.6, 4.4)
    (axis,) = plain_axes(figure)
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    for i, (name, (labels, prob)) in enumerate(curves.items()):
        colour = LINES[i % len(LINES)]
        false_rate, true_rate, _ = roc_curve(*checked(labels, prob))
        axis.plot(false_rate, true_rate, color=colour, linestyle=STYLES[i % len(STYLES)], linewidth=2)
        area = classification_metrics(labels, prob)["auroc"]
        y = 0.05 + 0.07 * (len(curves) - 1 - i)
        axis.text(
            0.99, y, f"{name}  AUROC {area:.3f}", color=colour, ha="right", fontsize=9, parse_math=False
        )
    percent_limits(axis)
    name_axes(axis, "1 - specificity (normal called malignant)", "sensitivity (malignant found)")
    return png_bytes(figure)


def confusion_figure(labels: ArrayLike, pred: ArrayLike) -> bytes:
    """Counts of truth against answer, and each count's share of its truth."""
    truth, answer = np.asarray(labels), np.asarray(pred).astype(np.int64)
    count = np.array([[np.sum((truth == t) & (answer == a)) for a in (0, 1)] for t in (0, 1)])
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    figure = new_figure(4.6, 4.0)
    (axis,) = plain_axes(figure)
    axis.grid(False)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for t, a in ((0, 0), (0, 1), (1, 0), (1, 1)):
        colour = "white" if share[t, a] > 0.6 else INK
        axis.text(a, t - 0.06, f"{count[t, a]}", ha="center", va="center", fontsize=20, color=colour)
        axis.text(a, t + 0.2, f"{share[t, a]:.1%}", ha="center", va="center", fontsize=9, color=colour)
    axis.set_xticks([0, 1], CLASS_NAMES, fontsize=9)
    axis.set_yticks([0, 1], CLASS_NAMES, fontsize=9, rotation=90, va="center")
    name_axes(axis, "answer", "truth")
    return png_bytes(figure)


def reliability_figure(labels: ArrayLike, prob: ArrayLike) -> bytes:
    """Share of malignant against the stated probability, in the bins of the calibration error."""
    truth, stated = checked(labels, prob)
    index = calibration_bin(stated)
    size = np.bincount(index, minlength=ECE_BINS)
    used = size > 0
    mean = np.bincount(index, stated, ECE_BINS)[used] / size[used]
    share = np.bincount(index, truth, ECE_BINS)[used] / size[used]
    figure = new_figure(4.6, 4.4)
    (axis,) = plain_axes(figure)
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    axis.text(1, 0.02, "dotted: as stated. Numbers: images in the bin", color=FAINT, fontsize=8, ha="right")
    axis.plot(mean, share, color=NORMAL, linewidth=1.5)
    axis.scatter(mean, share, s=25 + 275 * size[used] / size.max(), color=NORMAL, alpha=0.75, linewidth=0)
    for x, y, n in zip(mean, share, size[used], strict=True):
        side = 1 if y < x else -1
        axis.annotate(
            f"{n}", (x, y), xytext=(12 * side, -11 * side), textcoords="offset points",
            ha="center", va="center", fontsize=7, color=INK,
        )  # fmt: skip
    percent_limits(axis)
    name_axes(axis, "stated probability of malignant", "share that is malignant")
    return png_bytes(figure)


def probability_figure(labels: ArrayLike, prob: ArrayLike, threshold: float | None = None) -> bytes:
    """Histograms of the stated probability, malignant upwards and normal downwards."""
    truth, stated = checked(labels, prob)
    edges = np.linspace(0, 1, 21)
    figure = new_figure(4.6, 4.4)
    (axis,) = plain_axes(figure)
    for label, sign, colour in ((1, 1, MALIGNANT), (0, -1, NORMAL)):
        count = np.histogram(stated[truth == label], edges)[0]
        axis.bar(edges[:-1], sign * count, 0.05, align="edge", color=colour, edgecolor="white", linewidth=0.8)
        name = f"truth: {CLASS_NAMES[label]} ({count.sum()})"
        axis.text(
            0.5 - sign * 0.48, 0.5 + sign * 0.44, name, color=colour,
            ha="left" if sign > 0 else "right", va="center", fontsize=9, transform=axis.transAxes,
        )  # fmt: skip
    top = max(abs(value) for value in axis.get_ylim()) * 1.2
    axis.set_ylim(-top, top)
    axis.axhline(0, color=INK, linewidth=0.8)
    if threshold is not None:
        axis.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        side = 1 if threshold < 0.8 else -1
        axis.text(
            threshold + side * 0.01, top * 0.88, f"threshold {threshold:.2f}", fontsize=8, color=INK,
            ha="left" if side > 0 else "right", va="center",
        )  # fmt: skip
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axis.set_xlim(-0.01, 1.01)
    name_axes(axis, "stated probability of malignant", "images")
    return png_bytes(figure)


def history_figure(
    history: Sequence[Mapping[str, float]], *keys: str | Sequence[str], title: str = ""
) -> bytes:
    """Training curves over epochs, one panel per item of ``keys`` (a name, or names that share a panel).

    Without ``keys``: losses in one panel, every other figure that stays within [0, 1] in another.
    Raises DataError where the history is empty or nothing of it can be drawn.
    """
    known = {name for row in history for name in row}
    asked = [[key] if isinstance(key, str) else list(key) for key in keys] or _panels(history)
    panels = [found for names in asked if (found := [name for name in names if name in known])]
    if not panels:
        raise DataError("This training history has nothing to draw.", cure="Name keys that it holds.")
    figure = new_figure(4.4 * len(panels), 2.9)
    for axis, names in zip(plain_axes(figure, 1, len(panels)), panels, strict=True):
        _lines(axis, history, names)
        name_axes(axis, "epoch", "", title if axis is figure.axes[0] else "")
    return png_bytes(figure)


def selection_figure(history: Sequence[Mapping[str, float]]) -> bytes:
    """The search's best fitness (left) and the number of features it keeps (right), by iteration.

    Rows need ``best_fitness`` and ``best_size``. Raises DataError where there are none.
    """
    if not history:
        raise DataError("This selection history is empty.")
    figure = new_figure(8.8, 2.9)
    left, right = plain_axes(figure, 1, 2)
    step = np.arange(1, len(history) + 1)
    for axis, key, colour in ((left, "best_fitness", LINES[0]), (right, "best_size", LINES[3])):
        axis.plot(step, [row[key] for row in history], color=colour, linewidth=2, drawstyle="steps-post")
        whole_ticks(axis.xaxis)
    last = history[-1]
    right.set_ylim(bottom=0)
    name_axes(left, "iteration", "fitness", f"best fitness, down to {last['best_fitness']:.4f}")
    name_axes(right, "iteration", "features", f"features kept: {int(last['best_size'])}")
    return png_bytes(figure)


def grid_figure(images: Sequence[Rgb], columns: int, titles: Sequence[str] | None = None) -> bytes:
    """Images (H, W, 3) in a grid, small titles above. Raises DataError where there are none."""
    if not images:
        raise DataError("There are no images to show.")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell = 1.15
    figure = new_figure(columns * cell, rows * (cell + (0.22 if titles else 0)))
    for i, axis in enumerate(plain_axes(figure, rows, columns)):
        axis.set_axis_off()
        if i < len(images):
            axis.imshow(images[i], interpolation="lanczos")
            if titles:
                axis.set_title(titles[i], fontsize=7, color=INK, pad=3, parse_math=False)
    return png_bytes(figure)


def overlay(
    rgb: Rgb, masks: Sequence[NDArray[np.bool_]], boxes: Sequence[Box], texts: Sequence[str] = ()
) -> Rgb:
    """A copy of ``rgb`` with contours of (H, W) masks, boxes (x0, y0, x1, y1) and a text over each box.

    Any of the three may be empty. Lines are light on dark, so that they show on any stain.
    """
    out = np.ascontiguousarray(rgb).copy()
    thick = max(1, round(max(rgb.shape[:2]) / 400))
    for mask in masks:
        outline = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(out, outline, -1, (16, 24, 32), thick + 2, cv2.LINE_AA)
        cv2.drawContours(out, outline, -1, (255, 221, 64), thick, cv2.LINE_AA)
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), (16, 24, 32), thick + 2)
        cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), (96, 255, 240), thick)
    for (x0, y0, _, _), text in zip(boxes, texts, strict=False):
        _plate(out, text, x0, y0)
    return out


def _plate(out: Rgb, text: str, x: int, y: int) -> None:
    """``text`` on a dark plate whose lower left corner is (x, y), pushed inside the image."""
    scale = max(0.4, max(out.shape[:2]) / 1000)
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 1.6))
    (width, height), base = cv2.getTextSize(text, font, scale, weight)
    pad = max(2, round(4 * scale))
    left = int(np.clip(x, 0, max(0, out.shape[1] - width - 2 * pad)))
    bottom = int(np.clip(y, height + base + 2 * pad, out.shape[0]))
    cv2.rectangle(
        out, (left, bottom - height - base - 2 * pad), (left + width + 2 * pad, bottom), (16, 24, 32), -1
    )
    cv2.putText(
        out, text, (left + pad, bottom - base - pad), font, scale, (255, 255, 255), weight, cv2.LINE_AA
    )


def _panels(history: Sequence[Mapping[str, float]]) -> list[list[str]]:
    names = [name for name in dict.fromkeys(key for row in history for key in row) if name not in _CLOCKS]
    losses = [name for name in names if "loss" in name]
    inside = [n for n in names if n not in losses and all(0 <= row.get(n, 0) <= 1 for row in history)]
    return [panel for panel in (losses, inside) if panel]


_CLOCKS = ("epoch", "seconds", "train_seconds", "lr", "step")


def _lines(axis: Axes, history: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    ends, last = [], 0.0
    for i, name in enumerate(names):
        points = [(row.get("epoch", n + 1), row[name]) for n, row in enumerate(history) if name in row]
        colour, style = LINES[i % len(LINES)], STYLES[i % len(STYLES)]
        marker = "o" if len(points) == 1 else None
        axis.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.8, marker=marker)
        ends.append((points[-1][1], name, colour))
        last = max(last, points[-1][0])
    label_lines(axis, ends, last)
    axis.grid(axis="x", color=GRID, linewidth=0)
    whole_ticks(axis.xaxis)
