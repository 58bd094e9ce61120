"""The report of a tuning: one self-contained HTML page, without scripts and without a network address."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from cotray.evaluation.tune_figures import TrialRow, history_figure, importance_figure, slices_figure


@dataclass(frozen=True)
class Side:
    """Settings on the groups that no trial saw: means over searches with different seeds."""

    error: float
    spread: float
    """Standard deviation over the searches."""
    inner_error: float
    """On the folds that the searches used."""
    features: float
    all_error: float
    """Of all features."""
    filter_error: float
    """Of the best univariate filter."""


@dataclass(frozen=True)
class Held:
    """The settings given and the best ones, side by side."""

    given: Side
    best: Side
    searches: int
    samples: int
    groups: int


@dataclass(frozen=True)
class TuneReport:
    """Everything a tuning has to tell."""

    source: str
    trials: Sequence[TrialRow]
    best: int
    """Number of the best trial."""
    given: Mapping[str, Any]
    """Parameters of the settings given."""
    ranges: Mapping[str, str]
    """Dotted key -> what was tried."""
    log: Sequence[str] = ()
    """Keys with a logarithmic range."""
    importance: Mapping[str, float] = field(default_factory=dict)
    held: Held | None = None
    folds: int = 3
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    best_yaml: str = ""
    version: str = ""

    @property
    def best_trial(self) -> TrialRow:
        """The best trial."""
        return next(trial for trial in self.trials if trial.number == self.best)


def render_tune_report(report: TuneReport) -> str:
    """The whole page as HTML text; write it as UTF-8."""
    shown = [trial for trial in report.trials if trial.state in ("complete", "stopped")]
    keys = sorted(report.ranges, key=lambda key: -report.importance.get(key, 0.0))
    return _template().render(
        report=report,
        verdict=verdict(report),
        keys=keys,
        states=count_states(report.trials),
        rows=sorted(report.trials, key=_rank),
        history=history_figure(shown),
        slices=slices_figure(shown, keys, report.log),
        importance=importance_figure(report.importance) if report.importance else b"",
    )


def verdict(report: TuneReport) -> str:
    """What came of it, in a sentence that claims no more than there is."""
    held, best = report.held, report.best_trial
    if held is None:
        return (
            f"Trial {report.best} had the smallest error on the outer folds, {best.figures['error']:.3f}. "
            "It is the best of many, and therefore looks better than it is; no groups were kept to tell by "
            "how much."
        )
    errors = f"{held.best.error:.3f} against {held.given.error:.3f}"
    if dict(best.params) == dict(report.given):
        return (
            f"The settings given were not beaten: their error on groups that no trial saw is "
            f"{held.given.error:.3f}."
        )
    gain = held.given.error - held.best.error
    if gain <= max(held.given.spread, held.best.spread, chance(held.given.error, held.samples)):
        told = "no better than the ones given" if gain <= 0 else "better by no more than chance may do"
        return (
            f"On groups that no trial saw the best settings are {told}: error {errors}. "
            "That is no reason to change them."
        )
    return f"On groups that no trial saw the best settings are better than the ones given: error {errors}."


def chance(error: float, samples: int) -> float:
    """Standard error of an error that was counted on so many samples: what luck alone may do."""
    return math.sqrt(error * (1 - error) / max(1, samples))


def count_states(trials: Sequence[TrialRow]) -> str:
    """``12 run to the end, 7 stopped early, 1 failed``."""
    words = {"complete": "run to the end", "stopped": "stopped early", "failed": "failed"}
    counts = {text: sum(trial.state == state for trial in trials) for state, text in words.items()}
    return ", ".join(f"{count} {text}" for text, count in counts.items() if count)


def show(value: Any) -> str:
    """A parameter's value: four digits are enough to read."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def _rank(trial: TrialRow) -> tuple[int, float, int]:
    order = ("complete", "stopped", "failed", "running").index(trial.state)
    objective = trial.objective
    return order, objective if objective == objective else float("inf"), trial.number


def _data_uri(png: bytes) -> Markup:
    # Base64 has no character that HTML treats as special.
    return Markup("data:image/png;base64," + base64.b64encode(png).decode("ascii"))


@functools.cache
def _template() -> Template:
    folder = resources.files("cotray.evaluation")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(data_uri=_data_uri, show=show)
    environment.globals["style"] = Markup(folder.joinpath("report.css").read_text("utf-8"))
    return environment.from_string(folder.joinpath("tune_report.html").read_text("utf-8"))
