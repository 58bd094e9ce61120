"""The whole method: every stage in order, each skipped when its fingerprint is complete already."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from cotray.config import Config
from cotray.errors import UnknownNameError, nearest
from cotray.runs import Run, StageRecord, environment, fingerprint, now
from cotray.stages import classify, evaluate, extract, ingest, segment, select, synthesize, train_backbone
from cotray.stages.base import Stage, StageRun, Voice
from cotray.stages.cluster import connect, use_gpu
from cotray.stages.frozen import verify_split
from cotray.tracking import Tracker, open_tracker

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (ingest, segment, synthesize, train_backbone, extract, select, classify, evaluate)
}


@dataclass(frozen=True)
class Request:
    """What is asked of a run."""

    run: str
    """Folder or URI."""
    config: Config
    force: str | None = None
    """Redo this stage and all that follow."""
    until: str | None = None
    """Stop after this stage."""
    only: str | None = None
    """Do this stage alone; earlier ones must be complete."""
    voice: Voice = field(default_factory=Voice)
    verbose: bool = False


def find_stage(name: str) -> Stage:
    """A stage by name; dashes and underscores are alike. Raises UnknownNameError."""
    key = name.replace("-", "_")
    if key not in STAGES:
        raise UnknownNameError(f"Unknown stage '{name}'.", cure=nearest(key, STAGES))
    return STAGES[key]


def run_pipeline(request: Request) -> dict[str, StageRecord]:
    """Run what is asked; returns the records by stage. Raises CotrayError."""
    wanted = _wanted(request)
    prints = fingerprints(request.config)
    run = Run(request.run)
    run.begin(request.config)
    if request.force:
        run.forget(_from(find_stage(request.force).name))
    todo = [stage for stage in wanted if not is_complete(run, stage.name, prints)]
    for stage in todo:
        _check(stage, wanted, run, request.config)
    tracker: Tracker | None = None
    records: dict[str, StageRecord] = {}
    try:
        for stage in wanted:
            if stage in todo:
                if tracker is None:
                    connect(request.verbose)
                    use_gpu(request.config.compute)  # refused now rather than after the first stages
                    tracker = _open(run, request.config)
                records[stage.name] = run_stage(stage, request, run, prints[stage.name], tracker)
            else:
                records[stage.name] = run.need(stage.name)
                request.voice.say(f"{stage.name}: done already, skipped")
    except BaseException as error:
        if tracker is not None:
            tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    if tracker is not None:
        tracker.finish()
    return records


def run_stage(stage: Stage, request: Request, run: Run, print_: str, tracker: Tracker) -> StageRecord:
    """One stage, tracked and recorded; before it, the split it will read is verified. SplitChangedError."""
    _verify(stage, run)
    begun = run.start(stage.name, print_)
    child = tracker.child(stage.name, begun.get("mlflow_run_id"))
    run.stage(stage.name).write_json("started.json", begun | {"mlflow_run_id": child.run_id})
    child.params(stage.settings(request.config) | {"fingerprint": print_})
    request.voice.say(f"{stage.name}: {stage.summary}")
    at = StageRun(stage.name, run, print_, child, request.voice)
    started = time.perf_counter()
    try:
        result = stage.run(request.config, at)
    except BaseException as error:
        child.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    seconds = time.perf_counter() - started
    child.metrics({**result.metrics, **result.counts, "seconds": seconds})
    child.finish()
    record = StageRecord(stage.name, print_, seconds, now(), result, child.run_id)
    run.complete(record)
    for note in result.notes:
        request.voice.say(f"{stage.name}: {note}")
    return record


def fingerprints(config: Config) -> dict[str, str]:
    """Fingerprint of every stage under a config. Raises DatasetNotFoundError."""
    prints: dict[str, str] = {}
    for stage in STAGES.values():
        inputs = [prints[name] for name in stage.needs]
        prints[stage.name] = fingerprint(stage.name, stage.version, stage.determinants(config), inputs)
    return prints


def is_complete(run: Run, name: str, prints: dict[str, str]) -> bool:
    """Whether a stage is done with exactly this work."""
    record = run.record(name)
    return record is not None and record.fingerprint == prints[name]


def _verify(stage: Stage, run: Run) -> None:
    """Raise SplitChangedError where the split that the stage will read is not the frozen one."""
    if stage.needs and run.record("ingest"):  # a run on a table has no images to split
        beside = stage.name not in STAGES  # as the audit, which reads ingest alone
        verify_split(run, () if beside else list(takewhile(lambda name: name != stage.name, STAGES)))


def _check(stage: Stage, wanted: Sequence[Stage], run: Run, config: Config) -> None:
    """Raise what can be known before Ray is started, which takes seconds."""
    for name in stage.needs:
        if name not in [other.name for other in wanted] and run.record(name) is None:
            _verify(stage, run)  # a changed split is worse news
            run.need(name)
    if stage.check:
        stage.check(config)


def _wanted(request: Request) -> list[Stage]:
    if request.only:
        return [find_stage(request.only)]
    names = list(STAGES)
    last = names.index(find_stage(request.until).name) if request.until else len(names) - 1
    return [STAGES[name] for name in names[: last + 1]]


def _from(name: str) -> Sequence[str]:
    names = list(STAGES)
    return names[names.index(name) :]


def _open(run: Run, config: Config) -> Tracker:
    """The parent MLflow run of this pipeline run, continued if it was begun before."""
    tracker = open_tracker(config, run.folder, run.note().get("mlflow_run_id"))
    run.annotate(mlflow_run_id=tracker.run_id)
    tracker.params({"preset": config.preset, "seed": config.seed, "dataset": config.dataset.model_dump()})
    tracker.tags({f"env.{k}": v for k, v in environment().items()})
    tracker.artifact("config.yaml", run.folder.read_bytes("config.yaml"))
    return tracker
