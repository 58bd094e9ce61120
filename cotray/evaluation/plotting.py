"""The hand all figures are drawn by: sizes, colours (safe for colour-blind readers), axes, PNG bytes.

matplotlib's object-oriented API alone, without pyplot's global state: figures can be drawn in any thread
or worker at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MALIGNANT, NORMAL = "#c2410c", "#0369a1"
INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e8ed"
LINES = ("#0369a1", "#c2410c", "#6d5bb0", "#12805c", "#a16207", "#be3a7b")
"""Colours of successive lines: dark enough for text on white, apart in luminance or in hue."""
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Line styles that go with the colours, so that no line is told by colour alone."""
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """A white figure of ``width`` x ``height`` inches at :data:`DPI`, laid out by constrained layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(figure: Figure, rows: int = 1, columns: int = 1) -> list[Axes]:
    """``rows * columns`` axes in reading order: two thin spines, a faint grid, small grey ticks."""
    made = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = list(made.ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#b8c2cc")
        axis.tick_params(colors=FAINT, labelsize=8, length=3, color="#b8c2cc")
        axis.grid(color=GRID, linewidth=0.7)
        axis.set_axisbelow(True)
    return axes


def name_axes(axis: Axes, x: str, y: str, title: str = "") -> None:
    """Axis labels and an optional title on the left, in the house's sizes."""
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)
    if title:
        axis.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)


def whole_ticks(axis: Axis) -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def percent_limits(axis: Axes) -> None:
    """Both axes from 0 to 1 with a little air, square."""
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_aspect("equal")


def label_lines(axis: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Names at the right end of lines: ``ends`` = (y, name, colour); names too close are moved apart."""
    low, high = axis.get_ylim()
    gap = (high - low) * 0.085
    ordered = sorted(ends)
    heights: list[float] = []
    for y, _, _ in ordered:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    excess = max(0.0, heights[-1] - high)
    for at, (_, name, colour) in zip(heights, ordered, strict=True):
        axis.annotate(
            name,
            (x, at - excess),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
            parse_math=False,
        )


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
