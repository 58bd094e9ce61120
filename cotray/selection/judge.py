"""How good a selection is on samples that the search never saw. N samples, D features, S of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cotray.config import FitnessConfig
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Values
from cotray.selection.problem import Table, make_problem, outer_problem, table_problem
from cotray.selection.transfer import Masks

FILTER_SIZES = 30


@dataclass(frozen=True)
class Judgement:
    """Errors are those of calls (`fitness.soft` = 0), balanced or plain as `fitness.metric` says."""

    inner_error: float
    """Of the mask, on the folds that the search used: too good, because the search chose it for that."""
    outer_error: float
    """Of the mask, on samples never seen."""
    all_error: float
    """Of all features, on samples never seen."""
    filter_error: float
    """Of SelectKBest (k by the inner folds), on samples never seen: the floor."""
    filter_size: int

    @property
    def gap(self) -> float:
        """Outer minus inner error: what the inner figure flatters."""
        return self.outer_error - self.inner_error


def judge(
    mask_D: Masks, score_D: Values, inside: Table, outside: Table, cfg: FitnessConfig, seed: int
) -> Judgement:
    """Inner and outer error of a mask, beside all features and the best filter."""
    hard = cfg.model_copy(update={"soft": 0.0})
    inner = make_fitness(make_problem(inside.feat_ND, inside.label_N, inside.group_N, hard, seed), hard)
    outer = make_fitness(outer_problem(inside, outside, hard, seed), hard)
    filter_PD = filters(score_D)
    kept_D = filter_PD[int(np.argmin(inner(filter_PD)))]
    asked_PD = np.stack([mask_D, np.ones_like(mask_D), kept_D])
    own, everything, best_filter = outer.errors(asked_PD).mean(axis=1)
    inner_error = float(inner.errors(mask_D[None]).mean())
    return Judgement(inner_error, float(own), float(everything), float(best_filter), int(kept_D.sum()))


@dataclass(frozen=True)
class Choice:
    """Errors of calls on the samples that were asked: the mask was chosen by them, so its own is too good."""

    asked_error: float
    asked_all_error: float
    """Of all features."""
    asked_filter_error: float
    """Of SelectKBest, whose k is chosen by the same samples."""
    asked_filter_size: int


def compare_asked(mask_D: Masks, score_D: Values, table: Table, cfg: FitnessConfig, seed: int) -> Choice:
    """A mask beside all features and the best filter, on the samples of ``table`` that are asked."""
    hard = cfg.model_copy(update={"soft": 0.0})
    fitness = make_fitness(table_problem(table, hard, seed), hard)
    filter_PD = filters(score_D)
    error_P = fitness.errors(filter_PD).mean(axis=1)
    best = int(np.argmin(error_P))
    own, everything = fitness.errors(np.stack([mask_D, np.ones_like(mask_D)])).mean(axis=1)
    return Choice(float(own), float(everything), float(error_P[best]), int(filter_PD[best].sum()))


def filters(score_D: Values) -> Masks:
    """The masks that SelectKBest would try: 30 sizes from 1 to all, geometrically: (P, D)."""
    order = np.argsort(-score_D, kind="stable")
    sizes = np.unique(np.rint(np.geomspace(1, len(score_D), FILTER_SIZES)).astype(int))
    mask_PD = np.zeros((len(sizes), len(score_D)), bool)
    for row, size in enumerate(sizes):
        mask_PD[row, order[:size]] = True
    return mask_PD
