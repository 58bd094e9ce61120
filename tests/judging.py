"""Toy problems for fitness engines, and what a classifier is worth on them, written out fold by fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import FitnessConfig
from cotray.selection.problem import Problem, make_problem
from cotray.selection.transfer import Masks

CELLS, WIDTH = 90, 12
SCHEMES: dict[str, dict[str, Any]] = {
    "folds": {"scheme": "folds", "folds": 3},
    "repeats": {"scheme": "folds", "folds": 2, "repeats": 3},
    "holdout": {"scheme": "holdout", "holdout": 0.3},
    "holdouts": {"scheme": "holdout", "holdout": 0.3, "repeats": 2},
    "leave_out": {"scheme": "leave_out"},
}
Codes, Values = NDArray[np.int64], NDArray[np.float64]
Ask = Callable[[Values, Codes, Values], tuple[Codes, Values]]
"""Features and labels learned from, features asked -> classes called (Q,), shares of the classes (Q, C)."""


def settings(engine: str, **others: Any) -> FitnessConfig:
    """With a classifier for the engine that needs one."""
    given = {"engine": engine, "estimator": "sklearn.naive_bayes.GaussianNB"} | others
    return FitnessConfig.model_validate(given)


def toy(
    cfg: FitnessConfig, seed: int = 0, classes: int = 2, cells: int = CELLS, width: int = WIDTH
) -> Problem:
    """Groups of one to five cells, unequal classes, unequal scales and worths, a constant feature."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(cells), rng.integers(1, 6, cells))[:cells]
    label = np.minimum(group % (classes + 1), classes - 1)
    feat = rng.normal(size=(cells, width)) + label[:, None] * rng.uniform(0, 1.2, width)
    feat *= rng.uniform(0.1, 30, width)
    feat[:, 3] = 0.1
    return make_problem(feat.astype(np.float32), label, group, cfg, seed)


def coarse(problem: Problem, steps: int = 2) -> Problem:
    """The same with few different values, so that many distances are equal."""
    return replace(problem, feat_ND=np.rint(problem.feat_ND * steps) / np.float32(steps))


def some_masks(count: int, width: int = WIDTH, seed: int = 1, share: float = 0.4) -> Masks:
    """Random masks, none empty."""
    mask_PD = np.random.default_rng(seed).uniform(size=(count, width)) < share
    mask_PD[:, 0] = True
    return mask_PD


def held_out(problem: Problem, mask_D: Masks, ask: Ask) -> tuple[Codes, Values]:
    """Class called and share given to the true class, both (R, N): each fold by fits to the rest."""
    called, given = np.full(problem.fold_RN.shape, -1, np.int64), np.zeros(problem.fold_RN.shape)
    feat, label = problem.feat_ND[:, mask_D].astype(np.float64), problem.label_N
    for repeat, fold_N in enumerate(problem.fold_RN):
        for fold in set(fold_N.tolist()) - {-1}:
            out, rest = np.flatnonzero(fold_N == fold), fold_N != fold
            called[repeat, out], share = ask(feat[rest], label[rest], feat[out])
            given[repeat, out] = share[np.arange(len(out)), label[out]]
    return called, given


def error(truth: Codes, called: Codes, given: Values, cfg: FitnessConfig) -> float:
    """Of one repeat, a sample and a class at a time."""
    per_class: dict[int, list[float]] = {}
    for t, c, g in zip(truth.tolist(), called.tolist(), given.tolist(), strict=True):
        if c >= 0:
            per_class.setdefault(t, []).append((1 - cfg.soft) * (c != t) + cfg.soft * (1 - g))
    means = [sum(wrong) / len(wrong) for wrong in per_class.values()]
    everything = [w for wrong in per_class.values() for w in wrong]
    return sum(means) / len(means) if cfg.metric == "balanced" else sum(everything) / len(everything)


def errors(problem: Problem, mask_D: Masks, ask: Ask, cfg: FitnessConfig) -> Values:
    """Of a mask in each repeat: (R,)."""
    pairs = zip(*held_out(problem, mask_D, ask), strict=True)
    return np.array([error(problem.label_N, called, given, cfg) for called, given in pairs])
