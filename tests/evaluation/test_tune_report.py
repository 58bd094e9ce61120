from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from cotray.errors import DataError
from cotray.evaluation.tune_figures import TrialRow, history_figure, importance_figure, slices_figure
from cotray.evaluation.tune_report import Held, Side, TuneReport, render_tune_report, show, verdict

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
PNG = b"\x89PNG\r\n"


def trial(number: int, objective: float, state: str = "complete", **params: Any) -> TrialRow:
    figures = {
        "objective": objective,
        "error": objective,
        "spread": 0.01,
        "features": 4.0,
        "evaluations": 99.0,
    }
    given = {"sca.a": 1.0 + number, "sca.transfer": "v2", "select.max_features": None}
    return TrialRow(number, state, given | params, figures, 1.5)


def side(error: float, spread: float = 0.01) -> Side:
    return Side(error, spread, 0.05, 4.0, 0.3, 0.25)


TRIALS = [
    trial(0, 0.3),
    trial(1, 0.2),
    trial(2, 0.4, "stopped", **{"select.max_features": 5}),
    TrialRow(3, "failed", {"sca.a": 2.0, "sca.transfer": "s1", "select.max_features": 5}, message=HOSTILE),
]
REPORT = TuneReport(
    source=HOSTILE,
    trials=TRIALS,
    best=1,
    given=TRIALS[0].params,
    ranges={"sca.a": "1 to 4", "sca.transfer": "v2, s1", "select.max_features": "none, 5"},
    log=["sca.a"],
    importance={"sca.a": 0.7, "sca.transfer": 0.3, "select.max_features": 0.0},
    held=Held(side(0.3), side(0.1), 3, 400, 60),
    notes=[HOSTILE],
    best_yaml=f"preset: '{HOSTILE}'\n",
    version="1.0",
)


def test_everything_from_outside_is_escaped_and_nothing_is_fetched() -> None:
    page = render_tune_report(REPORT)
    assert HOSTILE not in page and page.count("&lt;script&gt;") >= 4
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:image/png;base64,|#)", page)
    assert "default-src 'none'" in page


def test_all_trials_are_listed_the_best_first() -> None:
    page = render_tune_report(REPORT)
    assert re.findall(r'<tr><th scope="row" class="n">(\d)</th>', page) == ["1", "0", "2", "3"]
    assert "2 run to the end, 1 stopped early, 1 failed" in page
    keys = re.findall(r'<tr><th scope="row"><code>([\w.]+)</code>', page)
    assert keys == ["sca.a", "sca.transfer", "select.max_features"], "the most important first"


def test_parts_that_are_not_there_are_left_out() -> None:
    bare = replace(REPORT, importance={}, held=None, notes=())
    page = render_tune_report(bare)
    assert page.count("data:image/png;base64,") == 2 and "unknown" in page
    assert "No groups were kept from the trials" in page
    assert render_tune_report(REPORT).count("data:image/png;base64,") == 3


@pytest.mark.parametrize(
    ("given", "best", "samples", "words"),
    [
        (side(0.3), side(0.1), 400, "are better than the ones given: error 0.100 against 0.300"),
        (side(0.3), side(0.1), 4, "better by no more than chance may do"),
        (side(0.3, spread=0.5), side(0.1), 400, "better by no more than chance may do"),
        (side(0.3), side(0.3), 400, "no better than the ones given"),
        (side(0.1), side(0.3), 400, "no better than the ones given: error 0.300 against 0.100"),
    ],
)
def test_the_verdict_claims_no_more_than_the_holdout_shows(
    given: Side, best: Side, samples: int, words: str
) -> None:
    text = verdict(replace(REPORT, held=Held(given, best, 3, samples, 9)))
    assert words in text
    assert ("no reason to change them" in text) == ("chance" in words or "no better" in words)


def test_the_verdict_where_nothing_was_gained_or_held_out() -> None:
    assert "were not beaten" in verdict(replace(REPORT, best=0))
    alone = verdict(replace(REPORT, held=None))
    assert "looks better than it is" in alone and "0.200" in alone


@pytest.mark.parametrize(
    ("value", "text"), [(0.000123456, "0.0001235"), (2.0, "2"), (7, "7"), (None, "none"), (True, "True")]
)
def test_values_are_shown_short(value: Any, text: str) -> None:
    assert show(value) == text


def test_figures_are_pictures_that_repeat_and_show_what_changes() -> None:
    keys = list(REPORT.ranges)
    drawn = [history_figure(TRIALS), slices_figure(TRIALS, keys, ["sca.a"]), importance_figure({"a": 0.4})]
    assert all(png.startswith(PNG) for png in drawn)
    assert drawn[0] == history_figure(TRIALS)
    assert drawn[1] != slices_figure(TRIALS, keys), "a logarithmic axis looks different"
    assert drawn[0] != history_figure([*TRIALS, trial(4, 0.1)])
    assert history_figure(TRIALS[:3]) == history_figure(TRIALS), "a failed trial has no objective"
    only_stopped = history_figure([trial(0, 0.3, "stopped")])
    assert only_stopped.startswith(PNG)


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(DataError):
        history_figure([])
    with pytest.raises(DataError):
        slices_figure([TRIALS[3]], ["sca.a"])
