"""Markdown from the raw rows of the selection benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from benchmarks.selection_rivals import SEARCHES, SELECTORS
from benchmarks.selection_sides import OURS

Row = dict[str, Any]
DEFAULT = "7 + soft error (default)"
COLUMNS: dict[str, tuple[Callable[[Row], float], str]] = {
    "fitness": (lambda row: row["fitness"], "{:.4f}"),
    "test error %": (lambda row: 100 * row["outer_error"], "{:.2f}"),
    "gap, points": (lambda row: 100 * row["gap"], "{:+.2f}"),
    "features": (lambda row: row["features"], "{:.0f}"),
    "CPU s": (lambda row: row["cpu_s"], "{:.2f}"),
    "wall s": (lambda row: row["wall_s"], "{:.2f}"),
    "evaluations": (lambda row: row["evaluations"], "{:.0f}"),
    "evaluations/s": (lambda row: row["per_second"], "{:.0f}"),
    "peak MiB": (lambda row: row["peak_mib"], "{:.0f}"),
    "of it search": (lambda row: row["search_mib"], "{:.0f}"),
}
NOTES = """\
Median over seeds, and in brackets the least and the greatest. *Fitness* and *test error* (%) are computed by
scikit-learn from the mask that a side reports; the *gap* is test minus validation error in percentage points:
what the search's own figure flatters. *Evaluations* are those really made: nobody is charged for a mask that
is looked up. *peak MiB* is ru_maxrss of a process of its own, forked from one that has the side's library
loaded; *of it search* is by how much that is above what was resident, data included, before the search.
Sides 6 and later do not minimise the hold-out *fitness* of the table, but their own on all inner samples.
Selectors make few evaluations: one for each size or penalty on their grid. Seeds: mealpy, mafese, pymoo,
niapy and scikit-learn take one; zoofs has none, so numpy's global one is set. `*` fewer evaluations than the
others, or cut off by the time limit; the expected time of all is then given below. All sides of a set have
the same seeds."""


def tables(rows: list[Row]) -> str:
    """Everything there is to print."""
    measured = [row for row in rows if "fitness" in row]
    whole = max((row["budget"] for row in measured), default=0)
    for row in measured:
        row["less"] = bool(row["cut"]) or (row["budget"] < whole and row["side"] not in SELECTORS)
    parts = [f"### {name}\n\n{of_set(name, measured)}" for name in names(measured, "set")]
    parts += [NOTES, truths(measured), extrapolated(measured, whole), against_selectors(measured)]
    parts += [failures(rows), warming(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def names(rows: Iterable[Row], key: str) -> list[str]:
    """Different values, in their order."""
    return list(dict.fromkeys(row[key] for row in rows))


def of_set(name: str, rows: list[Row]) -> str:
    """One line for each side."""
    lines = [["side", "seeds", *COLUMNS]]
    for side in names(rows, "side"):
        own = [row for row in rows if row["side"] == side and row["set"] == name]
        if own:
            mark = "*" if any(row["less"] for row in own) else ""
            cells = [spread([value(row) for row in own], form) for value, form in COLUMNS.values()]
            lines.append([side + mark, str(len(own)), *cells])
    return markdown(lines)


def spread(values: list[float], form: str) -> str:
    """``0.021 (0.018 to 0.030)``."""
    middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def markdown(lines: list[list[str]]) -> str:
    """A table; the first line is its head."""
    head = [f"| {' | '.join(lines[0])} |", "|---|" + "---:|" * (len(lines[0]) - 1)]
    return "\n".join(head + [f"| {' | '.join(line)} |" for line in lines[1:]])


def truths(rows: list[Row]) -> str:
    """Where what a side says is not what its mask is worth."""
    away: dict[str, float] = {}
    for row in rows:
        side = row["side"]
        away[side] = max(away.get(side, 0.0), abs(row["told"] - row["fitness"]))
    ours = [away[side] for side in list(OURS)[:5] if side in away]
    others = [f"{side} {away[side]:.4f}" for side in SEARCHES if away.get(side, 0.0) > 1e-9]
    lines = []
    if ours:
        lines.append(
            "Ours on the same hold-out (1 to 5): the largest difference between the fitness that the engine "
            f"tells and scikit-learn's of the same mask is {max(ours):.2e}."
        )
    if others:
        lines.append(
            "Searches that report another mask than the best one that they scored, and the largest "
            f"difference in fitness: {', '.join(others)}."
        )
    return "\n".join(lines)


def extrapolated(rows: list[Row], whole: int) -> str:
    """Seconds that the whole budget would have taken those that had less."""
    lines = []
    for row in rows:
        if row["less"] and row["evaluations"]:
            expected = row["wall_s"] / row["evaluations"] * whole
            lines.append([row["side"], row["set"], str(row["evaluations"]), f"{expected:.0f}"])
    if not lines:
        return ""
    return "Extrapolated, not measured:\n\n" + markdown(
        [["side", "set", "evaluations made", f"wall s for {whole}"], *lines]
    )


def against_selectors(rows: list[Row]) -> str:
    """Our default's test error beside that of the best of the selectors, by median."""
    lines = [["set", "default %", "best selector %", "which", "best other search %", "which "]]
    for name in names(rows, "set"):
        error = {
            side: median([100 * r["outer_error"] for r in rows if r["side"] == side and r["set"] == name])
            for side in names((row for row in rows if row["set"] == name), "side")
        }
        sides = [[side for side in error if side in group] for group in (SELECTORS, SEARCHES)]
        if DEFAULT not in error or not all(sides):
            continue
        cells = [name, f"{error[DEFAULT]:.2f}"]
        for group in sides:
            best = min(group, key=lambda side: error[side])
            cells += [f"{error[best]:.2f}", best]
        lines.append(cells)
    head = "Median test error; the best of the others is picked by that error, which flatters it:\n\n"
    return head + markdown(lines) if len(lines) > 1 else ""


def failures(rows: list[Row]) -> str:
    """Runs that came to nothing."""
    wrong = [f"- {row['side']} {row.get('set', '')}: {row['error']}" for row in rows if "error" in row]
    return "Failed:\n\n" + "\n".join(wrong) if wrong else ""


def warming(rows: list[Row]) -> str:
    """Seconds of imports and compiling, which no run counts."""
    spent = [f"{row['side']} {row['warm_s']:.1f}" for row in rows if "warm_s" in row]
    return (
        f"Imports, compiled code read from its cache and a toy run, s, not counted above: {', '.join(spent)}."
    )
