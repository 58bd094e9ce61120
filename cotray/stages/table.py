"""Feature selection on anyone's table: a run of its own, with a stage for each optimizer that is compared.

::

    OUT/run.json               which table: where, its digest, target and groups
    OUT/select/                mask, names, scores, history, pictures; its log of scores
    OUT/ga/  OUT/pso/ ...      the same of each rival, under the same budget, engine, folds and seed
    OUT/compare/               compare.json and one picture of all of them

N rows, D features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import Config
from cotray.errors import NotNumbersError, RunMismatchError, UnknownNameError, nearest
from cotray.evaluation.selection_figures import convergence_figure
from cotray.learning import derive_seed
from cotray.runs import Run, StageRecord, StageResult, environment, fingerprint
from cotray.selection.budget import parse_budget, schedule
from cotray.selection.check import check_features, check_groups, check_table, check_target
from cotray.selection.outer import set_aside
from cotray.selection.problem import Table
from cotray.selection.rivals import SEARCHES
from cotray.stages.base import Stage, StageRun, Voice
from cotray.stages.cluster import connect
from cotray.stages.pipeline import Request, is_complete, run_stage
from cotray.stages.selecting import SECONDS, select_table, timed
from cotray.stages.table_file import TEXT, Columns, TableFile, read_table, take_apart
from cotray.tracking import Tracker, open_tracker

SUMMARY = "sine-cosine search with adaptive beta-hill climbing over features"


@dataclass(frozen=True)
class TableRequest:
    """What is asked of a table."""

    features: str
    """File or URI."""
    target: str
    groups: str | None
    config: Config
    out: str | None = None
    """Folder or URI of the run; None = runs/select-<file's name>."""
    drop: Sequence[str] = ()
    compare: Sequence[str] = ()
    """Optimizers to run as well."""
    force: bool = False
    voice: Voice = field(default_factory=Voice)
    verbose: bool = False

    @property
    def place(self) -> str:
        """Folder or URI of the run."""
        name = self.features.rstrip("/").rpartition("/")[2]
        stem = re.sub(r"\.(parquet|pq)$", "", TEXT.sub("", name), flags=re.IGNORECASE)
        return self.out or f"runs/select-{stem}"


@dataclass(frozen=True)
class Sides:
    """The table, checked, and what was set aside before anything looked at it."""

    inside: Table
    outside: Table
    names: NDArray[np.str_]
    counts: dict[str, int]
    notes: list[str]


def run_table(request: TableRequest) -> tuple[Run, dict[str, StageRecord]]:
    """Select, compare, and say what came of it, by stage. Raises CotrayError.

    The same request on the same table skips what is done and continues what was killed.
    """
    parse_budget(request.config.select.budget)
    rivals = find_rivals(request)
    table = read_table(request.features)
    sides = split(table, request)
    run = Run(request.place)
    begin(run, table, request)
    stages = [(stage_of("select", sides, table, request), request.config)]
    stages += [(stage_of(name, sides, table, request), rival(request.config, name)) for name in rivals]
    if rivals:
        stages.append((comparison(stages, run), request.config))
    names = [stage.name for stage, _ in stages]
    if request.force:
        run.forget(names)
    run.annotate(stages=list(dict.fromkeys([*run.note().get("stages", ()), *names])))
    return run, work(stages, run, request)


def find_rivals(request: TableRequest) -> list[str]:
    """Names of the optimizers to compare with, each once. Raises UnknownNameError."""
    for name in request.compare:
        if name not in SEARCHES:
            raise UnknownNameError(f"Unknown optimizer '{name}'.", cure=nearest(name, SEARCHES))
    return [name for name in dict.fromkeys(request.compare) if name != request.config.select.optimizer]


def rival(config: Config, optimizer: str) -> Config:
    """The same settings with another optimizer; halves are searched only where the rule asks for them."""
    members = config.select.members if config.select.rule == "consensus" else 0
    budget = config.select.budget or schedule(config.select, config.sca, config.abhc)
    changed = {"optimizer": optimizer, "members": members, "budget": budget}
    return config.model_copy(update={"select": config.select.model_copy(update=changed)})


# -- the table ----------------------------------------------------------------------------------------------


def split(table: TableFile, request: TableRequest) -> Sides:
    """Check the table and set its hold-out aside. Raises DataError and its kind."""
    config = request.config
    columns = take_apart(table, request.target, request.groups, request.drop)
    feat_ND, names = features_of(columns)
    label_N = check_target(columns.target, len(feat_ND))
    group_N = check_groups(columns.groups, len(feat_ND))
    out_N, few = set_aside(label_N, group_N, config.select.outer, derive_seed(config.seed, 21))
    whole = Table(feat_ND, label_N, group_N)
    inside, outside = whole.rows(~out_N), whole.rows(out_N)
    # Checked again without the hold-out: that is all a search sees.
    group = None if columns.groups is None else inside.group_N
    checked = check_table(inside.feat_ND, inside.label_N, group, list(names), config)
    counts = {
        "rows": len(table.rows),
        "inside": len(inside.label_N),
        "outside": len(outside.label_N),
        "dropped": columns.dropped,
        "groups": len(np.unique(group_N)),
    }
    return Sides(inside, outside, names, counts, [*columns.notes, *few, *checked.notes])


def features_of(columns: Columns) -> tuple[NDArray[np.floating], NDArray[np.str_]]:
    """Numbers (N, D) and names of the features. Raises FeatureError, NotNumbersError."""
    try:
        return check_features(columns.features)
    except NotNumbersError as error:
        cure = "Leave such columns out with --drop, or encode them (one-hot, ordinal)."
        raise NotNumbersError(error.what, where=error.where, cure=cure) from None


def say_counts(counts: dict[str, int]) -> str:
    """Rows in and rows used, in one sentence."""
    return (
        f"{counts['rows']} rows = {counts['inside']} searched on + {counts['outside']} held out + "
        f"{counts['dropped']} left out; {counts['groups']} groups"
    )


# -- the run ------------------------------------------------------------------------------------------------


def begin(run: Run, table: TableFile, request: TableRequest) -> None:
    """Create or continue the folder. Raises RunMismatchError where it holds something else."""
    about = {"digest": table.digest, "target": request.target, "groups": request.groups}
    if run.folder.exists("run.json"):
        before = run.note().get("table")
        if before is None:
            raise RunMismatchError(
                "This folder holds a run of the pipeline.", where=run.folder.uri, cure=OTHER
            )
        if any(before[key] != value for key, value in about.items()):
            raise RunMismatchError(
                f"This folder holds a selection for '{before['target']}' from another table, or from another "
                f"state of it: {before['uri']}.",
                where=run.folder.uri,
                cure=OTHER,
            )
    run.begin(request.config)
    run.annotate(table=about | {"uri": table.uri})


OTHER = "Give another --out folder, or remove this one."


def pipeline_only(folder: str) -> Run:
    """A run of the pipeline. Raises RunError (none there), RunMismatchError (a selection from a table)."""
    run = Run.open(folder)
    if "table" in run.note():
        raise RunMismatchError(
            "This run selects from a table.",
            where=folder,
            cure="Repeat its command, with --features, --target and --out, to continue it.",
        )
    return run


def stage_of(name: str, sides: Sides, table: TableFile, request: TableRequest) -> Stage:
    """One search as a stage: what decides its outcome is the settings and the table's content."""
    about = {
        "table": table.digest,
        "target": request.target,
        "groups": request.groups,
        "drop": sorted(set(request.drop)),
    }

    def search(config: Config, at: StageRun) -> StageResult:
        if name == "select":
            at.say(say_counts(sides.counts))
            at.tracker.dataset(table.uri.rpartition("/")[2], table.digest, table.uri, sides.counts)
        result = select_table(
            sides.inside, sides.outside, sides.names, config, derive_seed(config.seed, 20), at
        )
        notes = [say_counts(sides.counts), *sides.notes] if name == "select" else []
        counts = result.counts | sides.counts
        return StageResult(counts, result.metrics, result.artifacts, [*notes, *result.notes])

    summary = SUMMARY if name == "select" else f"the rival '{name}', under the same budget"
    sections = ("sca", "abhc", "fitness", "select")
    return Stage(name, summary, 1, sections, needs=(), run=search, extra=lambda _: about)


def work(stages: Sequence[tuple[Stage, Config]], run: Run, request: TableRequest) -> dict[str, StageRecord]:
    """Do what is not done yet, tracked and recorded as in a run of the pipeline."""
    prints: dict[str, str] = {}
    for stage, config in stages:
        inputs = [prints[name] for name in stage.needs]
        prints[stage.name] = fingerprint(stage.name, stage.version, stage.determinants(config), inputs)
    todo = [stage.name for stage, _ in stages if not is_complete(run, stage.name, prints)]
    tracker = begin_tracking(run, request) if todo else Tracker()
    try:
        for stage, config in stages:
            if stage.name not in todo:
                request.voice.say(f"{stage.name}: done already, skipped")
                continue
            asked = Request(request.place, config, voice=request.voice, verbose=request.verbose)
            run_stage(stage, asked, run, prints[stage.name], tracker)
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish()
    return {stage.name: run.need(stage.name) for stage, _ in stages}


def begin_tracking(run: Run, request: TableRequest) -> Tracker:
    """Join Ray where it is needed, and begin or continue the run's MLflow run."""
    if request.config.select.evaluator != "serial":
        connect(request.verbose)
    tracker = open_tracker(request.config, run.folder, run.note().get("mlflow_run_id"))
    run.annotate(mlflow_run_id=tracker.run_id)
    about = run.note()["table"]
    tracker.params({"preset": request.config.preset, "seed": request.config.seed, "table": about})
    name = run.folder.uri.rstrip("/").rpartition("/")[2]
    tracker.tags({"mlflow.runName": name} | {f"env.{k}": v for k, v in environment().items()})
    tracker.artifact("config.yaml", run.folder.read_bytes("config.yaml"))
    return tracker


# -- comparison ---------------------------------------------------------------------------------------------


def comparison(searches: Sequence[tuple[Stage, Config]], run: Run) -> Stage:
    """The stage that puts optimizers side by side."""
    names: dict[str, str] = {config.select.optimizer: stage.name for stage, config in searches}

    def compare(config: Config, at: StageRun) -> StageResult:
        rows = [row_of(optimizer, run.need(name)) for optimizer, name in names.items()]
        at.folder.write_json("compare.json", rows)
        histories = {optimizer: history_of(run, name) for optimizer, name in names.items()}
        at.folder.write_bytes("convergence.png", convergence_figure(histories))
        files = {"compare": "compare.json", "convergence": "convergence.png"}
        for path in files.values():
            at.tracker.artifact(path, at.folder.read_bytes(path))
        metrics = {
            f"{row['optimizer']}_{key}": float(row[key]) for row in rows for key in FIGURES if key in row
        }
        return StageResult({}, metrics, files)

    needs = tuple(names.values())
    return Stage("compare", f"{', '.join(names)} side by side", 1, (), needs, compare)


FIGURES = ("fitness", "features", "outer_error", "evaluations", "seconds")


def row_of(optimizer: str, record: StageRecord) -> dict[str, Any]:
    """One optimizer's figures; `outer_error` is absent where nothing was held out."""
    result = record.result
    outer = {key: result.metrics[key] for key in ("outer_error",) if key in result.metrics}
    return {
        "optimizer": optimizer,
        "fitness": result.metrics["fitness"],
        "features": result.counts["selected"],
        **outer,
        "evaluations": result.counts["evaluations"],
        "seconds": round(result.metrics["search_seconds"], 3),
    }


def history_of(run: Run, stage: str) -> Sequence[Any]:
    """A search's history with its times."""
    folder = run.stage(stage)
    return timed(folder.read_json("history.json"), folder.read_json(SECONDS))
