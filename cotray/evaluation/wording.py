"""The report's sentences and judgements, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from cotray.evaluation.metrics import LOWER_IS_BETTER
from cotray.evaluation.report_data import ReportData

NAMES: dict[str, tuple[str, str]] = {
    "balanced_accuracy": ("Balanced accuracy", "mean of sensitivity and specificity"),
    "auroc": ("AUROC", "chance that a malignant one scores above a normal one"),
    "recall": ("Sensitivity (recall)", "share of malignant ones that are found"),
    "specificity": ("Specificity", "share of normal ones that are called normal"),
    "precision": ("Precision", "share of those called malignant that are"),
    "f1": ("F1", "harmonic mean of precision and sensitivity"),
    "accuracy": ("Accuracy", "share of right answers"),
    "weighted_f1": ("Weighted F1", "F1 of both classes, weighted by their size"),
    "brier": ("Brier score", "squared error of the probability; lower is better"),
    "ece": ("Calibration error", "gap between stated and true share; lower is better"),
}
"""Metric -> (name, what it means), in the order of the report."""

ABOVE, BELOW, SAME = "above", "below", "indistinguishable"
FEW_GROUPS = 10


def title(metric: str) -> str:
    """A metric's name in the report."""
    return NAMES.get(metric, (metric.replace("_", " "), ""))[0]


def lead_metric(data: ReportData) -> str:
    """The metric the verdict is about: the one asked for, or the first there is."""
    if data.headline in data.metrics:
        return data.headline
    return next((name for name in NAMES if name in data.metrics), next(iter(data.metrics), ""))


def figure_text(value: float, interval: tuple[float, float] | None, confidence: float | None = None) -> str:
    """``0.941 (95% interval 0.902 to 0.971)``; without an interval, the figure alone."""
    if interval is None:
        return f"{value:.3f}"
    level = f"{confidence:.0%} interval " if confidence else ""
    return f"{value:.3f} ({level}{interval[0]:.3f} to {interval[1]:.3f})"


def verdict(data: ReportData) -> str:
    """One sentence: how many, how well, how sure."""
    lead = lead_metric(data)
    if not lead:
        return "Nothing was scored."
    unit = f"{'phantom ' if data.phantom else ''}{data.unit}"
    size = f"{data.test_size:,} held-out {unit}" if data.test_size else f"held-out {unit}"
    groups = f" from {data.test_groups:,} {data.group_unit}" if data.test_groups else ""
    unseen = " that training never saw" if data.split_mode == "disjoint" else ""
    value = figure_text(data.metrics[lead], data.intervals.get(lead), data.confidence)
    return f"On {size}{groups}{unseen}, {_lower(title(lead))} is {value}."


def _lower(name: str) -> str:
    return name if name[:2].isupper() or name == "F1" else name[0].lower() + name[1:]


def operating_point(data: ReportData) -> str:
    """What the threshold means for people, or nothing where a class is absent."""
    found, cleared = data.metrics.get("recall"), data.metrics.get("specificity")
    if found is None or cleared is None:
        return ""
    return (
        f"With the threshold at {data.threshold:.2f}, chosen on validation {data.unit}, it finds "
        f"{found:.1%} of the malignant {data.unit} and calls {cleared:.1%} of the normal ones normal."
    )


@dataclass(frozen=True)
class Comparison:
    """cotray against colour alone on one metric."""

    side: str
    """``above``, ``below`` or ``indistinguishable``; "above" is better, whichever way the metric runs."""
    short: str
    """One sentence, for the head of the report."""
    sentence: str
    """The same with the figures and what follows from them."""


def compare_with_floor(data: ReportData) -> Comparison | None:
    """Judged by whether the intervals overlap (a strict test); None where either side is missing."""
    lead = lead_metric(data)
    ours, floor = data.intervals.get(lead), data.floor_intervals.get(lead)
    if lead not in data.floor_metrics or ours is None or floor is None:
        return None
    side = _side(ours, floor, lead in LOWER_IS_BETTER)
    colour = figure_text(data.floor_metrics[lead], floor)
    short = {
        ABOVE: f"That is above what colour alone achieves, {colour}.",
        BELOW: f"That is below what colour alone achieves, {colour}.",
        SAME: f"That cannot be told from what colour alone achieves, {colour}.",
    }[side]
    figures = f"{figure_text(data.metrics[lead], ours)} against {colour} in {_lower(title(lead))}"
    meaning = {
        ABOVE: "cotray is above what colour alone achieves: {}. The intervals do not overlap.",
        BELOW: "cotray is below what colour alone achieves: {}. A simple colour histogram does better here.",
        SAME: "cotray cannot be told from colour alone: {}. The intervals overlap, so this run does not show "
        "that the method sees more than stain and light.",
    }[side]
    return Comparison(side, short, meaning.format(figures))


def _side(ours: tuple[float, float], floor: tuple[float, float], lower_is_better: bool) -> str:
    if ours[0] <= floor[1] and floor[0] <= ours[1]:
        return SAME
    return ABOVE if (ours[0] > floor[1]) != lower_is_better else BELOW


def leak_gap(data: ReportData) -> str:
    """What a random split would have claimed, or nothing where it was not measured."""
    lead = lead_metric(data)
    if lead not in data.leaky_metrics or data.split_mode != "disjoint":
        return ""
    leaky, honest = data.leaky_metrics[lead], data.metrics[lead]
    return (
        f"Leak gap: a random split of the same {data.unit} gives {leaky:.3f} in {_lower(title(lead))}, "
        f"{leaky - honest:+.3f} against the {honest:.3f} reported here. The difference measures how much of "
        f"such a figure comes from having {data.group_unit} on both sides of the split."
    )


WARNING = "WARNING: "
"""A note of a stage that begins like this becomes a banner."""


def banners(data: ReportData) -> list[tuple[str, str]]:
    """(heading, text) of everything a reader must know before any figure."""
    told = (_phantom(data), _leaky(data), _few_groups(data), _without_cell(data))
    warnings = [note.removeprefix(WARNING) for note in data.notes if note.startswith(WARNING)]
    warnings += data.audit.warnings() if data.audit else []
    return [banner for banner in told if banner] + [("Warning", text) for text in warnings]


def plain_notes(data: ReportData) -> list[str]:
    """The notes that are no banners."""
    return [note for note in data.notes if not note.startswith(WARNING)]


Banner = tuple[str, str] | None


def _phantom(data: ReportData) -> Banner:
    text = (
        "The images are a phantom: drawn by a program, without medical meaning. These figures show that the "
        "pipeline works, and say nothing about leukemia."
    )
    return ("Phantom", text) if data.phantom else None


def _leaky(data: ReportData) -> Banner:
    text = (
        f"Images were divided at random (split.mode={data.split_mode}): {data.group_unit} can be on both "
        "sides. These figures are inflated and must not be quoted as performance."
    )
    return ("Leaky split", text) if data.split_mode != "disjoint" else None


def _few_groups(data: ReportData) -> Banner:
    if data.test_groups is None or data.test_groups >= FEW_GROUPS:
        return None
    text = (
        f"The test split holds few {data.group_unit}: {data.test_groups}. Intervals over so few are rough, "
        "and the next hospital may differ more."
    )
    return "Few groups", text


def _without_cell(data: ReportData) -> Banner:
    if not data.without_cell:
        return None
    scored = f" of {data.test_size + data.without_cell:,}" if data.test_size is not None else ""
    text = (
        f"No cell was found in {data.without_cell:,}{scored} test {data.unit}. Such {data.unit} have no "
        "answer and are in none of cotray's figures."
    )
    return "No cell found", text


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 14 min``."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
