"""Two alarms about a generator, from the figures of :func:`cotray.synthesis.quality.quality`.

Thresholds were set so that real cells of other groups raise none, and copies, shifted copies and collapsed
generators do (see docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SURE = 1e-4
"""Probability by chance below which a test counts."""
CLOSE_SHARE = 0.05
"""Share of cells close to a training cell from which they are said to be copies, if a test says so too."""
NEARER = 0.9
"""Probability of being nearer to a training cell than training cells are, from which the same is said."""
LITTLE = 0.5
"""Variety or diversity below this share of real cells' is a collapse."""
FEW_COVERED = 0.1
"""Recall below this is a collapse where the cells look real at all."""
LOOKS_REAL = 0.3
"""Precision from which they do: a generator that has learned nothing yet covers nothing either."""


@dataclass(frozen=True)
class Alarms:
    """What is wrong, in a sentence each; empty where nothing is."""

    copies: str = ""
    collapse: str = ""

    def metrics(self, space: str) -> dict[str, float]:
        """SPACE_copy_alarm, SPACE_collapse_alarm: 1.0 or 0.0."""
        return {
            f"{space}_copy_alarm": float(bool(self.copies)),
            f"{space}_collapse_alarm": float(bool(self.collapse)),
        }

    def notes(self) -> list[str]:
        """As a stage's notes: a report makes banners of them."""
        return [f"WARNING: {text}" for text in (self.copies, self.collapse) if text]


def alarms(figures: Mapping[str, float], space: str) -> Alarms:
    """The alarms of one space; none where it has no figures."""
    mine = {key.removeprefix(f"{space}_"): value for key, value in figures.items() if key.startswith(space)}
    if not mine:
        return Alarms()
    collapse = _collapse(mine)
    return Alarms(_copies(mine, bool(collapse), space), f"{collapse} (space: {space})." if collapse else "")


def _copies(mine: Mapping[str, float], collapsed: bool, space: str) -> str:
    close = mine["close_share"] >= CLOSE_SHARE and mine["close_p"] < SURE
    # What is always the same lies near the middle, where it is nearer to others without being a copy.
    nearer = mine["nearer_auroc"] >= NEARER and mine["nearer_p"] < SURE and not collapsed
    if not (mine["identical_share"] > 0 or close or nearer):
        return ""
    same, near = f"{mine['identical_share']:.0%}", f"{mine['close_share']:.0%}"
    return (
        f"LeuGAN copies training cells: {same} of its cells are all but identical with one, {near} are "
        "nearer to one than 99% of training cells are to one another, and with probability "
        f"{mine['nearer_auroc']:.2f} a drawn cell is nearer to one than a training cell is (space: {space}). "
        "These are patients' cells, not synthetic ones."
    )


def _collapse(mine: Mapping[str, float]) -> str:
    few = mine["recall"] < FEW_COVERED and mine["precision"] >= LOOKS_REAL
    if not (few or min(mine["variety"], mine["diversity"]) < LITTLE):
        return ""
    return (
        f"LeuGAN draws much the same cells again and again: variety {mine['variety']:.2f} and diversity "
        f"{mine['diversity']:.2f} of real cells', recall {mine['recall']:.2f}"
    )
