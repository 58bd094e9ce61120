"""Which settings are tried next, and which trials are stopped: Optuna's TPE and ASHA, both exact to restore.

Ray's own way back after a kill would unpickle them, and run trials from their beginning that were under
way with a sampler that begins anew. Here both are rebuilt from the records of trials: the study's trials
have the numbers they had, and every suggestion draws from a generator of its own, made of the seed and
the trial's number. With one trial at a time a tuning that was killed tries what an unbroken one tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from cotray.config import TuneConfig
from cotray.learning import derive_seed
from cotray.stages.tune_records import TrialRecord
from cotray.stages.tune_space import Params, Space

METRIC, TIME = "objective", "iteration"
STUDY = "cotray"
ENDLESS = 10**9
"""ASHA's largest iteration: a search ends by itself."""


class NumberedSampler(BaseSampler):
    """TPE that depends on the seed, the trial's number and the trials before; on nothing else."""

    def __init__(self, seed: int, startup: int) -> None:
        self.seed, self.startup = seed, startup
        self._number, self._sampler = -1, TPESampler()

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if trial.number != self._number:
            seed = derive_seed(self.seed, 34, trial.number) % 2**32
            self._number, self._sampler = (
                trial.number,
                TPESampler(seed=seed, n_startup_trials=self.startup),
            )
        return self._sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As TPE does."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE does."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As TPE does."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


def make_searcher(
    space: Space, first: Params | None, records: Sequence[TrialRecord], cfg: TuneConfig, seed: int
) -> OptunaSearch:
    """A searcher that knows the trials so far, and asks for those under way again before others.

    ``first``: the settings given, which are tried before others.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = InMemoryStorage()
    study = make_study(space, records, storage)
    if first is not None and all(record.params != first for record in records):
        study.enqueue_trial(first)
    return OptunaSearch(
        space=space,
        metric=METRIC,
        mode="min",
        sampler=NumberedSampler(seed, cfg.startup),
        storage=storage,
        study_name=STUDY,
    )


def make_study(space: Space, records: Sequence[TrialRecord], storage: InMemoryStorage | None = None) -> Study:
    """A study that holds the records under their numbers; trials under way wait to be run."""
    study = optuna.create_study(storage=storage, study_name=STUDY, direction="minimize")
    for record in sorted(records, key=lambda record: record.number):
        if record.state == "running":
            study.enqueue_trial(record.params)
        elif record.figures:
            study.add_trial(create_trial(params=record.params, distributions=space, value=record.objective))
        else:
            failed = TrialState.FAIL
            study.add_trial(create_trial(state=failed, params=record.params, distributions=space))
    return study


def make_scheduler(records: Sequence[TrialRecord], cfg: TuneConfig) -> TrialScheduler:
    """ASHA that knows how far every trial came and how good it was there."""
    if not cfg.stop_early:
        return FIFOScheduler()
    asha = ASHAScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode="min",
        max_t=ENDLESS,
        grace_period=cfg.grace,
        reduction_factor=cfg.reduction,
    )
    for record in records:
        if record.state != "running":
            past = SimpleNamespace(trial_id=f"trial-{record.number}")  # all that ASHA reads of a trial
            asha.on_trial_add(None, past)
            for iteration, objective in record.curve:
                asha.on_trial_result(None, past, {TIME: iteration, METRIC: objective})
    return asha
