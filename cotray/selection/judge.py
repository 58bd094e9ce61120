"""How good a selection is on samples that the search never saw. N samples, D features, S of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cotray.config import FitnessConfig
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Values
from cotray.selection.problem import TRAIN, Problem, make_problem, moments, subsample
from cotray.selection.select import Table
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


def outer_problem(inside: Table, outside: Table, cfg: FitnessConfig, seed: int) -> Problem:
    """All of ``inside`` learned from, all of ``outside`` asked; standardised by what is learned from."""
    inside = inside.rows(subsample(inside.label_N, cfg.max_cells, seed))
    mean_D, scale_D = moments(inside.feat_ND)
    classes = np.unique(inside.label_N)
    known = np.isin(outside.label_N, classes)
    label = np.searchsorted(classes, np.concatenate([inside.label_N, outside.label_N[known]]))
    feat = np.concatenate([inside.feat_ND, outside.feat_ND[known]])
    fold = np.full(len(label), TRAIN, np.int32)
    fold[len(inside.label_N) :] = 0
    return Problem(((feat - mean_D) * scale_D).astype(np.float32), label.astype(np.int64), fold[None])


def filters(score_D: Values) -> Masks:
    """The masks that SelectKBest would try: 30 sizes from 1 to all, geometrically: (P, D)."""
    order = np.argsort(-score_D, kind="stable")
    sizes = np.unique(np.rint(np.geomspace(1, len(score_D), FILTER_SIZES)).astype(int))
    mask_PD = np.zeros((len(sizes), len(score_D)), bool)
    for row, size in enumerate(sizes):
        mask_PD[row, order[:size]] = True
    return mask_PD
