"""Budgets: how they are read, and schedules that fit them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.config import AbhcConfig, ScaConfig
from cotray.errors import InvalidValueError
from cotray.selection.budget import Budget, cost, fit_schedule, parse_budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Budget()),
        ("620 evaluations", Budget(evaluations=620)),
        ("1 evaluation", Budget(evaluations=1)),
        ("620evals", Budget(evaluations=620)),
        (" 20 E ", Budget(evaluations=20)),
        ("7.9 eval", Budget(evaluations=7)),
        ("0.2 evaluations", Budget(evaluations=1)),
        ("30 seconds", Budget(seconds=30)),
        ("1 second", Budget(seconds=1)),
        ("0.5s", Budget(seconds=0.5)),
        ("90 sec", Budget(seconds=90)),
        ("2 minutes", Budget(seconds=120)),
        (".5 MIN", Budget(seconds=30)),
        ("1m", Budget(seconds=60)),
    ],
)
def test_budgets_are_read(text: str | None, expected: Budget) -> None:
    assert parse_budget(text) == expected


REFUSED = ["", "620", "evaluations", "-5 s", "0 s", "0 evaluations", "1.2.3 s", ". s", "3 hours", "1e3 s"]


@pytest.mark.parametrize("text", REFUSED)
def test_others_are_refused_with_a_cure(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"select\.budget.*620 evaluations") as refused:
        parse_budget(text)
    assert f"'{text}'" in str(refused.value)


def test_share_that_is_used() -> None:
    assert Budget(evaluations=40).used(10, 1e9) == 0.25
    assert Budget(seconds=8).used(10**9, 2.0) == 0.25
    assert Budget().used(10**9, 1e9) == 0.0


def configs(when: str = "iteration", **abhc: Any) -> tuple[ScaConfig, AbhcConfig]:
    return ScaConfig(agents=20), AbhcConfig.model_validate({"when": when, "steps": 11} | abhc)


@pytest.mark.parametrize(
    ("optimizer", "abhc", "expected"),
    [
        ("sca", {"when": "iteration"}, (31, 0)),
        ("sca", {"when": "iteration", "width": 3}, (53, 0)),
        ("sca", {"when": "iteration", "who": "agents", "width": 2}, (460, 0)),
        ("sca", {"when": "end"}, (20, 11)),
        ("sca", {"when": "end", "who": "agents"}, (20, 220)),
        ("sca", {"when": "off", "who": "agents"}, (20, 0)),
        ("ga", {"when": "iteration"}, (20, 0)),
        ("pso", {"when": "end"}, (20, 0)),
    ],
)
def test_cost_of_an_iteration_and_of_the_end(
    optimizer: str, abhc: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert cost(*configs(**abhc), optimizer) == expected


@pytest.mark.parametrize(
    ("evaluations", "when", "islands", "expected"),
    [
        (620, "iteration", 1, 20),
        (621, "iteration", 1, 21),
        (620, "off", 1, 31),
        (620, "iteration", 4, 5),
        (5, "iteration", 1, 1),
        (31, "end", 1, 1),
        (411, "end", 1, 20),
        (420, "end", 1, 20),
        (430, "end", 1, 20),
        (431, "end", 1, 21),
        (822, "end", 2, 20),
        (5, "end", 1, 1),
    ],
)
def test_iterations_just_use_up_the_evaluations(
    evaluations: int, when: str, islands: int, expected: int
) -> None:
    """The last iteration may be cut short; not so where a refinement at the end has to follow."""
    fitted = fit_schedule(Budget(evaluations=evaluations), *configs(when), "sca", islands)
    assert fitted.iterations == expected
    assert fitted == ScaConfig(agents=20, iterations=expected)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5000), st.sampled_from(["iteration", "end", "off"]), st.sampled_from(["sca", "ga"]))
def test_no_fitted_search_ends_much_before_its_budget(evaluations: int, when: str, optimizer: str) -> None:
    sca, abhc = configs(when)
    fitted = fit_schedule(Budget(evaluations=evaluations), sca, abhc, optimizer, 1)
    each, once = cost(sca, abhc, optimizer)
    total = fitted.iterations * each + once
    if once and evaluations >= each + once:
        assert evaluations - each < total <= evaluations
    else:
        assert evaluations <= total < evaluations + each + once


def test_without_a_budget_the_settings_stay() -> None:
    sca, abhc = configs()
    assert fit_schedule(Budget(), sca, abhc, "sca", 1) is sca


def test_seconds_leave_the_end_to_the_clock() -> None:
    assert fit_schedule(Budget(seconds=1), *configs(), "sca", 1).iterations >= 10**9
