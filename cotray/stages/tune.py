"""Tuning: Ray Tune over the selection's parameters, on a table or on the cells of a pipeline run.

Optuna proposes settings, ASHA stops those that fall behind, and each trial is judged on folds that its
searches do not see. Of many trials the best one looks better than it is; therefore groups that no trial
saw judge the settings given and the best ones at the end.

::

    OUT/tune.json  OUT/trials/         what is tuned; every trial
    OUT/best.yaml                      settings for --config of `cotray select` and `cotray run`
    OUT/report.html  OUT/summary.json  what came of it
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cotray.config import Config
from cotray.errors import CotrayError, InvalidValueError
from cotray.learning import derive_seed
from cotray.runs import Run, environment
from cotray.selection.budget import parse_budget
from cotray.selection.select import here
from cotray.stages.base import Voice
from cotray.stages.cluster import connect, cpus
from cotray.stages.evaluators import actors
from cotray.stages.frozen import verify_split
from cotray.stages.table import pipeline_only
from cotray.stages.table_file import TEXT
from cotray.stages.tune_follow import Follow
from cotray.stages.tune_ground import Fold, Ground, TableSource, ground_of_run, ground_of_table
from cotray.stages.tune_records import Records, claim
from cotray.stages.tune_results import Outcome, conclude
from cotray.stages.tune_search import make_scheduler, make_searcher
from cotray.stages.tune_space import (
    BEFORE,
    SELECTION,
    Space,
    given_point,
    make_space,
    needs_pipeline,
    with_settings,
)
from cotray.stages.tune_stages import EARLIER, StageTrials, require_same_stages
from cotray.stages.tune_trial import Evaluator, failed_row, trial_rows
from cotray.storage import Folder, absolute, require_writable
from cotray.tracking import Tracker, open_tracker

QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are written by Follow
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends cotray as everywhere; the same command continues
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray's new reporter speaks even when it is asked to be silent
}


@dataclass(frozen=True)
class TuneRequest:
    """What is asked."""

    source: TableSource | str
    """A table, or the folder or URI of a pipeline run."""
    config: Config
    out: str | None = None
    """Folder or URI; None = runs/tune-<file's name>, or the run's with `-tune`."""
    voice: Voice = field(default_factory=Voice)
    verbose: bool = False

    @property
    def place(self) -> str:
        """Folder or URI of the results."""
        if self.out:
            return self.out
        if isinstance(self.source, str):
            return f"{self.source.rstrip('/')}-tune"
        name = self.source.features.rstrip("/").rpartition("/")[2]
        return f"runs/tune-{re.sub(r'[.](parquet|pq)$', '', TEXT.sub('', name), flags=re.IGNORECASE)}"


def run_tuning(request: TuneRequest) -> Outcome:
    """Try settings, judge the best, report. Raises CotrayError.

    The same request goes on with a tuning that was killed, and repeats no trial that is finished.
    """
    config = request.config
    parse_budget(config.select.budget)
    space = make_space(config)
    trials = stage_trials(request, space)
    ground = trials.ground if trials else plain_ground(request, space)
    folder = Folder(absolute(request.place))
    require_writable(folder)
    claim(folder, about(config, space, ground))
    records = Records(folder)
    connect(request.verbose)
    tracker = begin_tracking(request, folder, ground)
    try:
        say_ground(ground, records, request.voice)
        try_settings(request, space, trials or ground, folder, records, tracker)
        outcome = conclude(config, space, trials or ground, folder, records, tracker, request.voice)
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish()
    return outcome


def plain_ground(request: TuneRequest, space: Space) -> Ground:
    """What is judged on, where features stay as they are. Raises InvalidValueError, DataError."""
    if isinstance(request.source, str):
        return ground_of_run(open_run(request), request.config)
    if needs_pipeline(space):
        keys = [key for key in space if needs_pipeline([key])]
        raise InvalidValueError(
            f"A table's features are given: {', '.join(keys)} cannot change them.",
            where="tune.search",
            cure=f"Tune settings of {', '.join(SELECTION)}, or name a run of the pipeline with --run.",
        )
    return ground_of_table(request.source, request.config)


def open_run(request: TuneRequest) -> Run:
    """The pipeline run that is tuned. Raises RunError and its kind: no such run, a stage missing, the
    frozen split changed."""
    assert isinstance(request.source, str)
    run = pipeline_only(request.source)
    run.need("extract")
    verify_split(run, EARLIER)
    require_same_stages(run, request.config)
    return run


def stage_trials(request: TuneRequest, space: Space) -> StageTrials | None:
    """Trials that run stages before the selection; None where no key asks for that."""
    if not isinstance(request.source, str) or not needs_pipeline(space):
        return None
    return StageTrials.of(open_run(request), request.place, request.config)


def about(config: Config, space: Space, ground: Ground) -> dict[str, Any]:
    """What makes trials comparable: none may go on beside those of another table, space or seed."""
    tree = config.model_dump(mode="json")
    names = (*SELECTION, *(BEFORE if needs_pipeline(space) else ()))
    told = ("outer_folds", "holdout", "size_weight", "stop_early", "grace", "reduction", "startup")
    return {
        "data": ground.digest,
        "settings": {name: tree[name] for name in names},
        "tune settings": {name: tree["tune"][name] for name in told},
        "ranges": {key: str(distribution) for key, distribution in space.items()},
        "seed": config.seed,
    }


def say_ground(ground: Ground, records: Records, voice: Voice) -> None:
    """What there is to tune on, and what is known already."""
    counts = ground.counts
    voice.say(
        f"{counts['inside']} samples in {len(ground.folds)} folds for the trials, {counts['outside']} that "
        f"none of them sees; {counts['groups']} groups, {counts['features']} features"
        if len(ground.folds) > 1
        else f"{counts['inside']} training cells, {counts['outside']} that judge every trial"
    )
    for note in ground.notes:
        voice.say(note)
    if records.trials:
        finished = len(records.finished)
        voice.say(f"continuing: {finished} trials are done, {len(records.trials) - finished} begin again")


# -- Ray Tune -----------------------------------------------------------------------------------------------


def try_settings(
    request: TuneRequest,
    space: Space,
    ground: Ground | StageTrials,
    folder: Folder,
    records: Records,
    tracker: Tracker,
) -> None:
    """Run the trials that are still to be run."""
    from ray import tune

    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    config, cfg = request.config, request.config.tune
    missing = cfg.trials - len(records.finished)
    if missing <= 0:
        return
    follow = Follow(records, tracker, request.voice, cfg.trials)
    staged = isinstance(ground, StageTrials)
    given = given_point(space, config)
    work = tune.with_parameters(run_trial, config=config, ground=ground)
    scratch, filesystem = (folder / "ray").arrow()[::-1]
    folder.remove("ray")  # of an earlier life: Ray's own way back is not used
    tuner = tune.Tuner(
        tune.with_resources(work, resources(config, space, staged)),
        tune_config=tune.TuneConfig(
            search_alg=make_searcher(space, given, records.trials, cfg, derive_seed(config.seed, 30)),
            scheduler=make_scheduler(records.trials, cfg),
            num_samples=missing,
            max_concurrent_trials=at_once(config, staged),
            time_budget_s=cfg.budget_seconds,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=scratch,
            storage_filesystem=filesystem,
            verbose=0,
            callbacks=[follow],
            failure_config=tune.FailureConfig(max_failures=config.compute.max_failures),
        ),
    )
    try:
        tuner.fit()
    finally:
        follow.let_go()
    folder.remove("ray")


def run_trial(params: Mapping[str, Any], config: Config, ground: Ground | StageTrials) -> None:
    """What Ray runs for each trial; settings that cannot be run are reported as the worst."""
    from ray import tune

    try:
        settings = with_settings(config, params)
        folds = ground.folds if isinstance(ground, Ground) else ground.prepare(params, config).folds
        for row in trial_rows(settings, config, folds, evaluator_of(config, folds)):
            tune.report(row)
    except CotrayError as error:
        tune.report(failed_row(error))


def evaluator_of(config: Config, folds: tuple[Fold, ...]) -> Evaluator:
    """Who scores masks for a trial: itself, or workers of its own.

    The folds take turns, and each has its workers: the share of a CPU that one of them takes is such that
    all of them fit into what the trial reserved, or they would wait for one another for ever.
    """
    workers = config.tune.evaluators_per_trial
    if not workers:
        return here
    share = (10_000 // len(folds)) / 10_000  # Ray counts in ten-thousandths of a CPU
    return partial(actors, workers=workers, cpu=share)


def resources(config: Config, space: Space, staged: bool) -> Any:
    """What a trial reserves, all at once: trials that hold a part and wait for the rest could deadlock."""
    from ray import tune

    workers, gpu = config.tune.evaluators_per_trial, gpu_share(config, space, staged)
    if workers > cpus():
        raise InvalidValueError(
            f"There are {cpus()} CPUs for {workers} workers.",
            where="tune.evaluators_per_trial",
            cure="Ask for fewer, or join a larger cluster.",
        )
    if workers and gpu:
        raise InvalidValueError(
            "The engine 'knn-torch' scores on a GPU in the trial itself, which needs no workers.",
            where="tune.evaluators_per_trial",
            cure="Set it to 0.",
        )
    if staged:
        return {"cpu": 0.01}  # its stages ask Ray for what they need
    if not workers:
        return {"cpu": 1, "gpu": gpu} if gpu else {"cpu": 1}
    return tune.PlacementGroupFactory([{"CPU": 0.0}, *({"CPU": 1.0} for _ in range(workers))])


def gpu_share(config: Config, space: Space, staged: bool) -> float:
    """GPUs of a trial: an equal share of all there are, if its engine may be the one that uses them."""
    import ray

    engines = {config.fitness.engine, *getattr(space.get("fitness.engine"), "choices", ())}
    if "knn-torch" not in engines or staged:
        return 0.0
    share = float(ray.cluster_resources().get("GPU", 0)) / at_once(config, staged)
    return min(1.0, math.floor(100 * share) / 100)


def at_once(config: Config, staged: bool) -> int:
    """Trials at a time; one where stages use the whole cluster."""
    if staged:
        return 1
    return config.tune.concurrent or max(1, cpus() // max(1, config.tune.evaluators_per_trial))


def begin_tracking(request: TuneRequest, folder: Folder, ground: Ground) -> Tracker:
    """The parent MLflow run of all trials, continued if it was begun before."""
    known = folder.read_json("mlflow.json") if folder.exists("mlflow.json") else {}
    tracker = open_tracker(request.config, folder, known.get("run_id"))
    folder.write_json("mlflow.json", {"run_id": tracker.run_id})
    name = folder.uri.rstrip("/").rpartition("/")[2]
    tracker.tags({"mlflow.runName": name} | {f"env.{k}": v for k, v in environment().items()})
    tracker.params({"seed": request.config.seed, "tune": request.config.tune.model_dump(mode="json")})
    tracker.dataset(ground.source.rstrip("/").rpartition("/")[2], ground.digest, ground.source, ground.counts)
    return tracker
