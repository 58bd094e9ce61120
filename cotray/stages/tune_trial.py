"""One trial: a selection on the inside of every fold, all a step at a time, judged on the outsides.

The very code of a selection runs, unchanged: in a thread for each fold, of which only one runs at a time.
So a trial can say after each iteration what its masks are worth on samples that the searches do not see,
and can be stopped if that is little. P masks, D features.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from cotray.config import Config, FitnessConfig
from cotray.errors import CotrayError
from cotray.learning import derive_seed
from cotray.selection.budget import parse_budget
from cotray.selection.drive import Evaluate, Memo
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Table, make_problem, outer_problem
from cotray.selection.scores import SCORES
from cotray.selection.search import Search
from cotray.selection.select import Hooks, Selection, candidate_pool, here, select_features, spread
from cotray.selection.transfer import Masks
from cotray.stages.tune_ground import Fold

Row = dict[str, Any]
Evaluator = Callable[[Fitness], AbstractContextManager[Evaluate]]
WORST = 1.0
"""Objective of settings that cannot be run."""


class _Abandoned(BaseException):
    """Ends the thread of a search that nobody wants to go on."""


class PacedSelection:
    """A selection that waits after each iteration until it is asked to go on."""

    def __init__(self, table: Table, config: Config, seed: int, evaluator: Evaluator = here) -> None:
        self.table, self.config, self.seed = table, config, seed
        self.hooks = Hooks(evaluator=evaluator, on_iteration=self._pause)
        self.pool = _pool(table, config, seed)
        self.selection: Selection | None = None
        self.evaluations, self.iterations = 0, 0
        self._mask_D: Masks = np.zeros(table.feat_ND.shape[1], bool)
        self._error: BaseException | None = None
        self._abandoned = False
        self._go, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def mask_D(self) -> Masks:
        """The best mask so far; at the end the one that is reported."""
        return self._mask_D if self.selection is None else self.selection.mask_D

    def step(self) -> bool:
        """Go on to the end of the next iteration; False if there is none. Raises what the search raises."""
        if self.selection is not None:
            return False
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._rest.acquire()
        if self._error is not None:
            raise self._error
        return self.selection is None

    def close(self) -> None:
        """Give the search up, wherever it is."""
        if self._thread.is_alive():
            self._abandoned = True
            self._go.release()
            self._thread.join()

    def _work(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                self.selection = select_features(self.table, self.config, self.seed, self.hooks)
                self.evaluations = int(self.selection.result.history[-1]["evaluations"])
        except BaseException as error:
            self._error = error
        finally:
            self._rest.release()

    def _pause(self, search: Search, memo: Memo) -> None:
        self._mask_D = spread(search.best[0], self.pool, len(self._mask_D))
        self.evaluations, self.iterations = search.evaluations, len(search.history)
        self._rest.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned


def _pool(table: Table, config: Config, seed: int) -> Any:
    """Indices of the features that the search will take part with, as `select_features` finds them."""
    problem = make_problem(table.feat_ND, table.label_N, table.group_N, config.fitness, seed)
    varies_D = np.asarray(problem.feat_ND.any(axis=0))
    if config.select.max_features is None:
        return np.flatnonzero(varies_D)
    score_D = SCORES[config.select.scores](problem.feat_ND, problem.label_N)
    return candidate_pool(score_D, config.select.max_features, varies_D)


class Judge:
    """Error of masks outside a fold: of calls, by one classifier for all trials."""

    def __init__(self, fold: Fold, cfg: FitnessConfig, seed: int) -> None:
        hard = cfg.model_copy(update={"soft": 0.0})
        self.fitness = make_fitness(outer_problem(fold.inside, fold.outside, hard, seed), hard)

    def __call__(self, mask_D: Masks) -> float:
        """Error of a mask, learned inside and asked outside."""
        return float(self.fitness.errors(mask_D[None]).mean())


def trial_rows(
    settings: Config, given: Config, folds: tuple[Fold, ...], evaluator: Evaluator = here
) -> Iterator[Row]:
    """Run a trial; a row after each iteration, and a final one about the masks that are reported.

    ``settings`` are the trial's; ``given`` those of the tuning, whose classifier judges every trial alike
    and whose seed all trials share. Raises CotrayError where the settings cannot be run.
    """
    seeds = [derive_seed(given.seed, 33, n) for n in range(len(folds))]
    judges = [Judge(fold, given.fitness, seed) for fold, seed in zip(folds, seeds, strict=True)]
    paced = [
        PacedSelection(fold.inside, shared_time(settings, len(folds)), seed, evaluator)
        for fold, seed in zip(folds, seeds, strict=True)
    ]
    weight = given.tune.size_weight
    try:
        while sum(search.step() for search in paced):  # `any` would let some searches wait
            yield row_of(paced, judges, weight)
        yield row_of(paced, judges, weight) | {"final": True}
    finally:
        for search in paced:
            search.close()


def row_of(paced: list[PacedSelection], judges: list[Judge], weight: float) -> Row:
    """What is known of a trial now: objective, error and share of features as means over folds."""
    error_F = np.array([judge(search.mask_D) for judge, search in zip(judges, paced, strict=True)])
    size_F = np.array([search.mask_D.sum() for search in paced])
    share = size_F.mean() / len(paced[0].mask_D)
    return {
        "objective": float(error_F.mean() + weight * share),
        "error": float(error_F.mean()),
        "spread": float(error_F.std()),
        "features": float(size_F.mean()),
        "iteration": max(1, *(search.iterations for search in paced)),
        "evaluations": sum(search.evaluations for search in paced),
        "final": False,
    }


def shared_time(config: Config, folds: int) -> Config:
    """Searches that take turns see the clock go on while they wait: a budget of seconds is for all turns."""
    seconds = parse_budget(config.select.budget).seconds
    if seconds is None:
        return config
    budget = f"{seconds * folds:.3f} seconds"
    return config.model_copy(update={"select": config.select.model_copy(update={"budget": budget})})


def failed_row(error: CotrayError) -> Row:
    """The row of settings that cannot be run."""
    figures = {"objective": WORST, "error": WORST, "spread": 0.0, "features": 0.0}
    return figures | {"iteration": 1, "evaluations": 0, "final": True, "failed": str(error)}
