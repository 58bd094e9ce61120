"""The report's table about synthetic cells: figures by space of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cotray.synthesis.quality import BACKBONE, PIXELS

SPACES = {PIXELS: "pixels", BACKBONE: "backbone"}
"""Space -> its name in the table's head."""
FIGURES: dict[str, tuple[str, str]] = {
    "frechet": ("Frechet distance", "0 is alike; small sets raise it"),
    "kernel": ("Kernel distance", "0 is alike, unbiased"),
    "precision": ("Precision", "share of synthetic cells among real ones"),
    "recall": ("Recall", "share of real cells among synthetic ones"),
    "diversity": ("Diversity", "distances between cells; real: 1"),
    "variety": ("Variety", "effective number of unlike cells; real: 1"),
    "nearest_ratio": ("Nearest ratio", "distance to the nearest training cell; real: 1; near 0: copies"),
    "nearer_auroc": ("Nearer than real", "chance to be nearer than a training cell is; real: 0.5; 1: copies"),
    "close_share": ("Close", "share nearer than 99% of training cells are to one another"),
    "identical_share": ("Identical", "share that is all but a training cell; anything above 0: copies"),
}  # fmt: skip
"""Figure -> (name, what it means), in the table's order."""


@dataclass(frozen=True)
class SyntheticRow:
    """One figure in every space; empty text where a space lacks it."""

    name: str
    meaning: str
    values: tuple[str, ...]


def spaces(quality: Mapping[str, float]) -> list[str]:
    """Spaces that have figures."""
    return [space for space in SPACES if any(key.startswith(f"{space}_") for key in quality)]


def synthetic_rows(quality: Mapping[str, float]) -> list[SyntheticRow]:
    """A row for each figure that some space has; ``quality`` names them SPACE_FIGURE."""
    rows = []
    for figure, (name, meaning) in FIGURES.items():
        found = [quality.get(f"{space}_{figure}") for space in spaces(quality)]
        if any(value is not None for value in found):
            shown = tuple("" if value is None else f"{value:.3f}" for value in found)
            rows.append(SyntheticRow(name, meaning, shown))
    return rows
