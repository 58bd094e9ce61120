"""What came of a tuning: importance, the judgement on groups that no trial saw, best.yaml, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

import cotray
from cotray.config import Config, load_config
from cotray.config.plain_yaml import dump_yaml
from cotray.errors import TrainingError
from cotray.evaluation.tune_figures import TrialRow
from cotray.evaluation.tune_report import Held, Side, TuneReport, count_states, render_tune_report, verdict
from cotray.learning import derive_seed
from cotray.runs import fingerprint
from cotray.selection.judge import judge
from cotray.selection.select import Hooks, select_features
from cotray.stages.base import Voice
from cotray.stages.evaluators import EVALUATORS, run_members
from cotray.stages.tune_ground import Fold, Ground
from cotray.stages.tune_records import Records, TrialRecord
from cotray.stages.tune_search import make_study
from cotray.stages.tune_space import Params, Space, setting, tidy, with_settings
from cotray.stages.tune_stages import StageTrials
from cotray.storage import Folder
from cotray.tracking import Tracker

SEARCHES = 3
"""Searches, each with a seed of its own, that judge settings at the end: one says more of its seed."""
OWN = ("preset", "dataset", "tracking", "compute", "tune")
"""Sections that best.yaml leaves to its user."""


@dataclass(frozen=True)
class Outcome:
    """A finished tuning."""

    folder: Folder
    best: TrialRecord
    given: Params
    importance: dict[str, float]
    held: Held | None
    verdict: str
    states: str
    """How the trials ended, in words."""


def conclude(
    config: Config,
    space: Space,
    trials: Ground | StageTrials,
    folder: Folder,
    records: Records,
    tracker: Tracker,
    voice: Voice,
) -> Outcome:
    """Judge and report. Raises TrainingError where no trial was run to its end."""
    best = best_of(records)
    given = {key: tidy(setting(config, key)) for key in space}
    importance = importance_of(space, records, config.seed)
    held = hold_out(config, best, trials, folder, voice)
    overlay = best_yaml(with_settings(config, best.params), best)
    ground = trials if isinstance(trials, Ground) else trials.ground
    report = TuneReport(
        source=ground.source.rstrip("/").rpartition("/")[2],
        trials=[row_of(record) for record in records.trials],
        best=best.number,
        given=given,
        ranges={key: say_range(distribution) for key, distribution in space.items()},
        log=[key for key, distribution in space.items() if getattr(distribution, "log", False)],
        importance=importance,
        held=held,
        folds=len(ground.folds),
        counts=ground.counts,
        notes=ground.notes,
        best_yaml=overlay,
        version=cotray.__version__,
    )
    outcome = Outcome(folder, best, given, importance, held, verdict(report), count_states(report.trials))
    write(outcome, report, tracker)
    return outcome


def best_of(records: Records) -> TrialRecord:
    """The best trial of those that were run to their end. Raises TrainingError where there is none."""
    if records.complete:
        return records.complete[0]
    messages = [record.message for record in records.trials if record.message]
    raise TrainingError(
        f"No trial was run to its end{f': {messages[0]}' if messages else ''}.",
        where=records.folder.uri,
        cure="Change tune.search." if messages else "The same command goes on; give it more seconds.",
    )


def importance_of(space: Space, records: Records, seed: int) -> dict[str, float]:
    """Share of the objective's variance that each parameter explains (fANOVA; Hutter et al. 2014).

    Trials that were stopped count with their last objective. Empty where fewer than two trials differ.
    """
    known = [record for record in records.trials if record.state in ("complete", "stopped")]
    if len({record.objective for record in known}) < 2:
        return {}
    study = make_study(space, known)
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed % 2**32))
    return {key: float(found.get(key, 0.0)) for key in space}


# -- groups that no trial saw -------------------------------------------------------------------------------


def hold_out(
    config: Config, best: TrialRecord, trials: Ground | StageTrials, folder: Folder, voice: Voice
) -> Held | None:
    """The settings given and the best ones, each on its own features; None where nothing was held out."""
    ground = trials if isinstance(trials, Ground) else trials.ground
    if ground.final is None:
        return None
    theirs = ground if isinstance(trials, Ground) else trials.prepare(best.params, config, voice)
    assert theirs.final is not None
    sides = [
        judged(settings, config, on, folder, voice, name)
        for settings, on, name in (
            (config, ground, "settings given"),
            (with_settings(config, best.params), theirs, "best settings"),
        )
    ]
    outside = ground.final.outside
    return Held(sides[0], sides[1], SEARCHES, len(outside.label_N), len(np.unique(outside.group_N)))


def judged(settings: Config, given: Config, ground: Ground, folder: Folder, voice: Voice, name: str) -> Side:
    """Settings on the hold-out; known ones are read back."""
    tree = settings.model_dump(mode="json", include={"sca", "abhc", "fitness", "select"})
    key = fingerprint("holdout", 1, tree | {"judge": given.fitness.model_dump(mode="json")}, [ground.digest])
    file = f"holdout/{key[:16]}.json"
    if folder.exists(file):
        return Side(**folder.read_json(file))
    assert ground.final is not None
    rows = []
    for n in range(SEARCHES):
        voice.progress(f"{name} on the hold-out", n, SEARCHES)
        rows.append(one_search(ground.final, settings, given, derive_seed(given.seed, 35, n)))
    mean = {column: float(np.mean([row[column] for row in rows])) for column in rows[0]}
    side = Side(**mean, spread=float(np.std([row["error"] for row in rows])))
    folder.write_json(file, asdict(side))
    return side


def one_search(fold: Fold, settings: Config, given: Config, seed: int) -> dict[str, float]:
    """Select on everything that trials saw, judge on what they did not."""
    hooks = Hooks(evaluator=EVALUATORS[settings.select.evaluator])
    if settings.select.evaluator != "serial":
        hooks.run_all = run_members
    found = select_features(fold.inside, settings, seed, hooks)
    verdict = judge(found.mask_D, found.score_D, fold.inside, fold.outside, given.fitness, seed)
    return {
        "error": verdict.outer_error,
        "inner_error": verdict.inner_error,
        "features": float(found.mask_D.sum()),
        "all_error": verdict.all_error,
        "filter_error": verdict.filter_error,
    }


# -- files --------------------------------------------------------------------------------------------------


def write(outcome: Outcome, report: TuneReport, tracker: Tracker) -> None:
    """best.yaml, report.html and summary.json, on disk and as artifacts."""
    summary = {
        "best": asdict(outcome.best),
        "given": outcome.given,
        "importance": outcome.importance,
        "held_out": asdict(outcome.held) if outcome.held else None,
        "verdict": outcome.verdict,
        "trials": outcome.states,
        "notes": list(report.notes),
    }
    for name, text in (
        ("best.yaml", report.best_yaml),
        ("report.html", render_tune_report(report)),
        ("summary.json", json.dumps(summary, indent=1, sort_keys=True)),
    ):
        outcome.folder.write_bytes(name, text.encode())
        tracker.artifact(name, text.encode())
    figures = {"best_objective": outcome.best.objective}
    if outcome.held:
        sides = (("given", outcome.held.given), ("best", outcome.held.best))
        figures |= {
            f"holdout_{side}_{name}": value for side, of in sides for name, value in asdict(of).items()
        }
    tracker.metrics(figures | {f"importance.{key}": value for key, value in outcome.importance.items()})
    tracker.tags({"best_trial": outcome.best.number})


def best_yaml(best: Config, trial: TrialRecord) -> str:
    """Everything in which the best settings differ from their preset, but for what is the user's own."""
    plain = load_config(best.preset).model_dump(mode="json")
    tree = difference(best.model_dump(mode="json"), plain)
    kept = {"preset": best.preset} | {key: value for key, value in tree.items() if key not in OWN}
    return f"# cotray tune: the settings of trial {trial.number}\n{dump_yaml(kept)}"


def difference(tree: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a tree that differ from those of another, in their sections."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = difference(value, before)
            if inner:
                out[key] = inner
        elif value != before:
            out[key] = value
    return out


def row_of(record: TrialRecord) -> TrialRow:
    """A trial as the report shows it."""
    params = {key: tidy(value) for key, value in record.params.items()}
    return TrialRow(record.number, record.state, params, dict(record.figures), record.seconds, record.message)


def say_range(distribution: Any) -> str:
    """A range or choices in words."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join("none" if value is None else str(value) for value in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = " (logarithmic)" if distribution.log else ""
    return f"{distribution.low} to {distribution.high}{kind}"
