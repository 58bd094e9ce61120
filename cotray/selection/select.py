"""A whole selection: prepare, search, choose. Whoever evaluates is brought along by hooks.

N samples, D features, M members, P candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cotray.config import Config, FitnessConfig
from cotray.errors import FeatureError
from cotray.selection.budget import parse_budget
from cotray.selection.choose import consensus_candidates, halves, one_se
from cotray.selection.drive import Evaluate, Memo, drive, make_search
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Labels, Problem, Table, table_problem
from cotray.selection.scores import SCORES
from cotray.selection.search import Search, SelectionResult, Values
from cotray.selection.transfer import Masks

FINALISTS = 200
"""Fittest masks seen among which `one_se` chooses."""


MemberJob = tuple[Table, Labels, Config, int]
"""Table, rows that take part, settings, seed."""


@contextmanager
def here(fitness: Fitness) -> Iterator[Evaluate]:
    """Evaluate in this process."""
    yield fitness


@dataclass
class Hooks:
    """Where a selection meets the world; the defaults do everything in this process, silently."""

    evaluator: Callable[[Fitness], AbstractContextManager[Evaluate]] = here
    """Context manager that gives whoever evaluates, made from an engine."""
    engine: Callable[[Problem, FitnessConfig], Fitness] = make_fitness
    """What makes the engine; the settings' own, but for classifiers that no setting can name."""
    run_all: Callable[[Sequence[MemberJob]], list[Masks]] = field(
        default=lambda jobs: [member(*job) for job in jobs]
    )
    """Runs :func:`member` for each tuple of arguments; the jobs do not depend on one another."""
    on_iteration: Callable[[Search, Memo], None] | None = None
    on_scored: Callable[[Masks, Values], None] | None = None
    """Told of every batch of masks that was evaluated, as soon as it was."""
    recall: Callable[[Memo], None] | None = None
    """Gives the memo what was scored before."""


@dataclass(frozen=True)
class Selection:
    """What came of it."""

    mask_D: Masks
    """The reported mask."""
    fitness: float
    """Its fitness: that of this very mask."""
    result: SelectionResult
    """Of the search itself."""
    pool: NDArray[np.int64]
    """Features that took part (`select.max_features`)."""
    score_D: Values
    """Univariate score of every feature."""
    member_MD: Masks
    """Masks of the searches on halves of the data; none if `select.members` is 0."""
    scored: int
    """Masks that were evaluated in this process' life; those known before are not counted."""


def select_features(table: Table, config: Config, seed: int, hooks: Hooks | None = None) -> Selection:
    """Search for a mask of the table's features.

    The result depends on the table, the settings and the seed, not on the hooks (`engine` apart). Raises
    ClassError, TooFewGroupsError, InvalidValueError, FeatureError (every feature is constant).
    """
    hooks = hooks or Hooks()
    budget = parse_budget(config.select.budget)
    problem = table_problem(table, config.fitness, seed)
    score_D = SCORES[config.select.scores](problem.feat_ND, problem.label_N)
    varies_D = np.asarray(problem.feat_ND.any(axis=0))
    pool = candidate_pool(score_D, config.select.max_features, varies_D)
    fitness = hooks.engine(problem.only(pool), config.fitness)
    # First: members bring evaluators of their own, which must not wait for CPUs that ours would hold.
    member_MD = run_members(table, config, seed, hooks)
    with hooks.evaluator(fitness) as evaluate:
        memo = Memo(evaluate, hooks.on_scored)
        if hooks.recall:
            hooks.recall(memo)
        search = make_search(len(pool), config, budget, seed=seed, init_scores=score_D[pool])
        told = hooks.on_iteration
        result = drive(search, memo, budget, (lambda s: told(s, memo)) if told else None)
        mask, worth = choose(result, memo, fitness, member_MD[:, pool], score_D[pool], config)
    return Selection(spread(mask, pool, len(score_D)), worth, result, pool, score_D, member_MD, memo.scored)


def candidate_pool(score_D: Values, limit: int | None, varies_D: Masks) -> NDArray[np.int64]:
    """Indices of the features that take part, ascending: the best, and none that is constant."""
    if not varies_D.any():
        raise FeatureError(
            "Every feature is constant: nothing tells the classes apart.", cure="Give features that vary."
        )
    order = np.argsort(-score_D, kind="stable")
    return np.sort(order[varies_D[order]][:limit])


def spread(mask_S: Masks, pool: NDArray[np.int64], width: int) -> Masks:
    """A mask of the pool as a mask of all features."""
    mask_D = np.zeros(width, bool)
    mask_D[pool[mask_S]] = True
    return mask_D


def run_members(table: Table, config: Config, seed: int, hooks: Hooks) -> Masks:
    """Masks of `select.members` searches, each on half of the groups: (M, D)."""
    if not config.select.members:
        return np.zeros((0, table.feat_ND.shape[1]), bool)
    alone = {"members": 0, "islands": 1, "rule": "best", "evaluator": "serial"}
    small = config.model_copy(update={"select": config.select.model_copy(update=alone)})
    rows = halved(table, config.select.members, seed)
    seeds = np.random.SeedSequence(seed).generate_state(config.select.members)
    return np.stack(
        hooks.run_all([(table, kept, small, int(s)) for kept, s in zip(rows, seeds, strict=True)])
    )


def halved(table: Table, members: int, seed: int) -> list[Labels]:
    """Rows for each member: a half of what is learned from, and all that is asked."""
    learned, _ = table.sides()
    _, code = np.unique(learned.label_N, return_inverse=True)
    rows = halves(code, learned.group_N, members, seed)
    if table.asked_N is None:
        return rows
    of, asked = np.flatnonzero(~table.asked_N), np.flatnonzero(table.asked_N)
    return [np.sort(np.concatenate([of[kept], asked])) for kept in rows]


def member(table: Table, rows: Labels, config: Config, seed: int) -> Masks:
    """The mask that a search finds on some of the rows."""
    return select_features(table.rows(rows), config, seed).mask_D


def choose(
    result: SelectionResult, memo: Memo, fitness: Fitness, member_MD: Masks, score_D: Values, config: Config
) -> tuple[Masks, float]:
    """The mask to report, by `select.rule`, and its fitness."""
    if config.select.rule == "consensus" and len(member_MD):
        mask_PD = np.concatenate([result.mask[None], consensus_candidates(member_MD, score_D)])
        value_P = memo(mask_PD)
        fittest = int(np.argmin(value_P))
        return mask_PD[fittest], float(value_P[fittest])
    if config.select.rule == "one_se":
        mask_PD, value_P = memo.fittest(FINALISTS, len(score_D))
        chosen = one_se(mask_PD, value_P, fitness.errors(mask_PD), fitness.answers_given)
        return mask_PD[chosen], float(value_P[chosen])
    return result.mask, result.fitness
