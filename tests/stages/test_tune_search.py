"""Optuna and ASHA after a kill: rebuilt from the records, they go on as if nothing had happened."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotray.config import TuneConfig, load_config
from cotray.errors import RunMismatchError
from cotray.stages.tune_records import Records, TrialRecord, claim
from cotray.stages.tune_search import make_scheduler, make_searcher
from cotray.stages.tune_space import given_point, make_space
from cotray.storage import Folder

CONFIG = load_config(overrides=["tune.startup=3", "tune.grace=1", "tune.reduction=2"])
SPACE = make_space(CONFIG)
FIRST = given_point(SPACE, CONFIG)


def worth(params: dict[str, Any]) -> float:
    """A made-up objective."""
    return 0.1 + 0.05 * (params["sca.a"] - 1.7) ** 2 + 0.02 * (params["sca.init"] == "random")


def go_on(records: list[TrialRecord], until: int, seed: int = 5) -> list[TrialRecord]:
    """One trial after the other, as Ray Tune asks for them, with a searcher made of the records."""
    searcher = make_searcher(SPACE, FIRST, records, CONFIG.tune, seed)
    found = [record for record in records if record.state != "running"]
    while len(found) < until:
        name = f"t{len(found)}"
        params = searcher.suggest(name)
        value = worth(params)
        searcher.on_trial_result(name, {"objective": value, "training_iteration": 1})
        searcher.on_trial_complete(name, {"objective": value})
        figures = {"objective": value}
        found.append(TrialRecord(len(found), params, "complete", [(1, value)], figures))
    return found


def test_a_tuning_begins_with_the_settings_given() -> None:
    assert FIRST is not None
    assert go_on([], 1)[0].params == FIRST


@pytest.mark.parametrize("done", range(0, 9, 2))
def test_suggestions_after_a_kill_are_those_of_an_unbroken_tuning(done: int) -> None:
    unbroken = go_on([], 10)
    assert len({tuple(record.params.values()) for record in unbroken}) == 10, "no trial is tried twice"
    assert [r.params for r in go_on(unbroken[:done], 10)] == [r.params for r in unbroken]


def test_a_trial_under_way_is_asked_for_again() -> None:
    unbroken = go_on([], 8)
    under_way = TrialRecord(5, unbroken[5].params)
    again = go_on([*unbroken[:5], under_way], 8)
    assert [record.params for record in again] == [record.params for record in unbroken]


def test_a_failed_worker_costs_a_number_but_no_suggestion_is_lost() -> None:
    unbroken = go_on([], 4)
    dead = TrialRecord(4, unbroken[3].params | {"sca.a": 3.0}, "failed", message="its worker died")
    again = go_on([*unbroken, dead], 8)
    assert len({tuple(record.params.values()) for record in again}) == 8


def test_other_seeds_suggest_other_settings() -> None:
    one, other = go_on([], 4, seed=1), go_on([], 4, seed=2)
    assert one[0].params == other[0].params
    assert all(a.params != b.params for a, b in zip(one[1:], other[1:], strict=True))


def test_it_learns() -> None:
    """TPE's later suggestions are nearer to the best place than its first, drawn at random."""
    found = go_on([], 40)
    away = [abs(record.params["sca.a"] - 1.7) for record in found]
    assert sum(away[-10:]) < 0.7 * sum(away[1:11])


def decisions(records: list[TrialRecord], curve: list[float], cfg: TuneConfig) -> list[str]:
    scheduler = make_scheduler(records, cfg)
    trial = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    rows = [{"iteration": t, "objective": value} for t, value in enumerate(curve, 1)]
    return [scheduler.on_trial_result(None, trial, row) for row in rows]


def test_asha_remembers_how_good_trials_were_and_when() -> None:
    past = [
        TrialRecord(n, {}, "complete", [(t, 0.3 + 0.1 * n - 0.01 * t) for t in range(1, 5)], {"objective": 1})
        for n in range(3)
    ]
    cfg = CONFIG.tune  # rungs at 1, 2, 4, ...; the better half goes on
    assert decisions(past, [0.1, 0.1, 0.1, 0.1], cfg) == ["CONTINUE"] * 4
    assert decisions(past, [0.9], cfg) == ["STOP"]
    assert decisions(past, [0.1, 0.9], cfg) == ["CONTINUE", "STOP"]
    assert decisions(past, [0.1, 0.1, 0.9, 0.9], cfg) == ["CONTINUE"] * 3 + ["STOP"]
    assert decisions([], [0.9, 0.9, 0.9], cfg) == ["CONTINUE"] * 3, "the first has nothing to fall behind"
    patient = cfg.model_copy(update={"stop_early": False})
    assert decisions(past, [0.9, 0.9], patient) == ["CONTINUE"] * 2


# -- records ------------------------------------------------------------------------------------------------


def row(iteration: int, objective: float) -> dict[str, float]:
    figures = {"objective": objective, "error": objective, "spread": 0.0, "features": 3.0}
    return figures | {"evaluations": 10.0, "iteration": iteration}


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = Records(Folder(str(tmp_path)))
    one, two = records.begin({"sca.a": 1.23456789012345678}), records.begin({"sca.a": 2, "sca.init": None})
    assert (one.number, two.number) == (0, 1) and one.objective == math.inf
    one.take(row(1, 0.5))
    one.take(row(2, 0.4))
    one.take(row(2, 0.4))
    one.state = "complete"
    records.keep(one)
    known = Records(Folder(str(tmp_path)))
    assert known.trials == [one, two]
    assert known.finished == known.complete == [one] and one.curve == [(1, 0.5), (2, 0.4)]


def test_a_trial_under_way_keeps_its_number_and_begins_anew(tmp_path: Path) -> None:
    records = Records(Folder(str(tmp_path)))
    for a in (1.0, 2.0, 1.0):
        records.begin({"sca.a": a}).take(row(1, a))
        records.keep(records.trials[-1])
    known = Records(Folder(str(tmp_path)))
    again = [known.begin({"sca.a": a}) for a in (2.0, 1.0, 1.0, 1.0)]
    assert [record.number for record in again] == [1, 0, 2, 3]
    assert all(record.curve == [] and record.objective == math.inf for record in again)


def test_a_trial_whose_worker_died_tells_its_curve_anew(tmp_path: Path) -> None:
    record = TrialRecord(0, {})
    for reported in (row(1, 0.5), row(2, 0.4), row(1, 0.3)):
        record.take(reported)
    assert record.curve == [(1, 0.3)] and record.objective == 0.3


def test_a_folder_keeps_to_its_tuning(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    claim(folder, {"data": "a", "seed": 0, "ranges": {"sca.a": "1..4"}})
    claim(folder, {"data": "a", "seed": 0, "ranges": {"sca.a": "1..4"}})
    with pytest.raises(RunMismatchError, match=r"other data and seed.*--out"):
        claim(folder, {"data": "b", "seed": 1, "ranges": {"sca.a": "1..4"}})
