"""Markdown tables out of the rows of benchmarks.segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cotray.evaluation.masks import summarise

Row = dict[str, Any]
TITLES = {
    "all-idb2": "ALL-IDB2, the half that nobody learned from",
    "bccd": "BCCD, odd-numbered images; nobody learned from any of it",
}
TRUTH = {"all-idb2": "consensus"}
"""What masks are held against first: the annotators' consensus where there are two."""
NOTHING = "-"


def tables(known: Row) -> str:
    """All of them."""
    rows = [row for side in known["sides"] for row in side["rows"]]
    order = [side["side"]["title"] for side in known["sides"]]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    parts = [main_table(name, order, rows, known.get("human", [])) for name in sets]
    if "all-idb2" in sets:
        parts.append(annotators(order, rows, known.get("human", [])))
    parts += [prompts(order, rows, sets), training(known["sides"]), speeds(known["speed"])]
    return "\n".join(parts)


def main_table(name: str, order: Sequence[str], rows: Sequence[Row], people: Sequence[Row]) -> str:
    """One test set, boxes found automatically."""
    truth = TRUTH.get(name, "first")
    head = ["side", "Dice", "IoU", "IoU, median", "Hausdorff 95, px", "its median"]
    head += ["images without a found cell", "missed cells", "extra masks"]
    lines = []
    for title in order:
        own = select(rows, side=title, set=name, prompt="automatic", truth=truth)
        lines.append([title, *figures(own), *counts(own)])
    for title in ("first annotator", "second annotator"):
        own = select(people, side=title, set=name, truth=truth)
        if own:
            lines.append([title, *figures(own), NOTHING, NOTHING, NOTHING])
    images = len(select(rows, side=order[0], set=name, prompt="automatic", truth=truth))
    against = " against the annotators' consensus" if truth == "consensus" else ""
    return f"**{TITLES[name]}**: {images} images{against}, automatic boxes.\n\n{markdown(head, lines)}"


def figures(own: Sequence[Row]) -> list[str]:
    """Dice, IoU, its median, distance, its median: each with its interval."""
    group = [row["group"] for row in own]
    scores = {name: [row[name] for row in own] for name in ("dice", "iou")}
    far = [np.nan if row["hausdorff95"] is None else row["hausdorff95"] for row in own]
    dice, iou = summarise(scores["dice"], group), summarise(scores["iou"], group)
    out = [
        shown(dice.mean, dice.mean_interval, 3),
        shown(iou.mean, iou.mean_interval, 3),
        shown(iou.median, iou.median_interval, 3),
    ]
    if np.isnan(far).all():
        return [*out, NOTHING, NOTHING]
    away = summarise(far, group)
    return [*out, shown(away.mean, away.mean_interval, 1), shown(away.median, away.median_interval, 1)]


def counts(own: Sequence[Row]) -> list[str]:
    """Images without a found cell, missed cells, masks too many."""
    cells = sum(row["cells"] for row in own)
    none = sum(row["missed"] == row["cells"] for row in own)
    missed, extra = (sum(row[name] for row in own) for name in ("missed", "extra"))
    return [f"{100 * none / len(own):.1f}%", f"{missed} of {cells}", str(extra)]


def annotators(order: Sequence[str], rows: Sequence[Row], people: Sequence[Row]) -> str:
    """IoU against each annotator of ALL-IDB2."""
    head = ["IoU, ALL-IDB2's half", "Putzu (learned from)", "Banik", "consensus"]
    everyone = [*select(rows, prompt="automatic", set="all-idb2"), *people]
    lines = []
    for title in [*order, "first annotator", "second annotator"]:
        cells = []
        for truth in ("first", "second", "consensus"):
            own = select(everyone, side=title, truth=truth)
            cells.append(mean_iou(own) if own else NOTHING)
        if set(cells) != {NOTHING}:
            lines.append([title, *cells])
    return "**Whose masks?** The first annotator is Putzu, the second Banik.\n\n" + markdown(head, lines)


def prompts(order: Sequence[str], rows: Sequence[Row], sets: Sequence[str]) -> str:
    """Automatic boxes against true ones: the box's errors and the mask's."""
    head = ["IoU", *(f"{name}, {kind} boxes" for name in sets for kind in ("automatic", "true"))]
    lines = []
    for title in order:
        line = [title]
        for name in sets:
            truth = TRUTH.get(name, "first")
            own = [select(rows, side=title, set=name, truth=truth, prompt=p) for p in ("automatic", "true")]
            line += [mean_iou(part) for part in own]
        lines.append(line)
    return "**Errors of boxes and of masks.**\n\n" + markdown(head, lines)


def training(sides: Sequence[Row]) -> str:
    """What each side cost."""
    head = ["side", "learned from", "parameters", "steps", "CPU s", "wall s", "validation IoU"]
    lines = []
    for side in (side for side in sides if side["facts"]):
        facts, plan = side["facts"], side["side"]
        source = f"{facts['windows']} {'cells' if plan['learns_from'] == 'real' else 'drawn cells'}"
        cost = [f"{facts[name]:.0f}" for name in ("parameters", "steps", "cpu_s", "wall_s")]
        lines.append([plan["title"], source, *cost, f"{facts['val_iou']:.3f}"])
    return "**Training**, one thread each.\n\n" + markdown(head, lines)


def speeds(rows: Sequence[Row]) -> str:
    """Milliseconds an image."""
    head = ["ms an image, one thread", "set", "boxes (ROI)", "`segment`", "bare forward", "ratio"]
    lines = []
    for row in rows:
        cost = [f"{row[k]:.1f}" if k in row else NOTHING for k in ("boxes_ms", "segment_ms", "forward_ms")]
        ratio = f"{row['over_forward']:.2f}" if "over_forward" in row else NOTHING
        lines.append([row["title"], row["set"], *cost, ratio])
    return "**Speed.**\n\n" + markdown(head, lines)


# ---- small things ----------------------------------------------------------------------------------


def select(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def mean_iou(own: Sequence[Row]) -> str:
    found = summarise([row["iou"] for row in own], [row["group"] for row in own])
    return shown(found.mean, found.mean_interval, 3)


def shown(value: float, interval: tuple[float, float], digits: int) -> str:
    """``0.912 (0.900 to 0.921)``."""
    if np.isnan(interval).any():
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(rows) + "\n"
