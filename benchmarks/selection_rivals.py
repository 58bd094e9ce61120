"""The other side of the selection benchmark: searches of other libraries, and scikit-learn's selectors.

Every search has a population of 20 and the budget of evaluations, is used as its documentation shows, and
minimises the same objective, scikit-learn code. D features.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.selection_sets import Data, Floats, Mask, Objective, weigh

POPULATION = 20
SIZES = 30
"""Sizes that selectors try, geometric from 1 to all."""


def random_search(objective: Objective, budget: int, seed: int) -> Mask:
    """Masks of random density, uniform from 0 to 1, and random content."""
    rng, dim = np.random.default_rng(seed), objective.data.feat_ND.shape[1]
    for _ in range(budget):
        objective(rng.uniform(size=dim) < rng.uniform())
    return objective.best_mask_D


def mealpy_sca(objective: Objective, budget: int, seed: int) -> Mask:
    """DevSCA on a BinaryVar, which the problem decodes."""
    from mealpy import SCA, BinaryVar
    from mealpy import Problem as MealpyProblem

    class Selection(MealpyProblem):
        def obj_func(self, solution: Any) -> float:
            return objective(self.decode_solution(solution)["binary"])

    problem = Selection(BinaryVar(n_vars=objective.data.feat_ND.shape[1]), minmax="min", log_to=None)
    model = SCA.DevSCA(**_generations(budget))
    best = model.solve(problem, seed=seed)
    return np.asarray(problem.decode_solution(best.solution)["binary"]) != 0


def mafese_sca(objective: Objective, budget: int, seed: int) -> Mask:
    """MhaSelector with DevSCA, its own problem class and k-NN; our split instead of its own.

    Its variable draws bits anew whenever a position is decoded, so the mask that it reports is not the one
    that it scored.
    """
    import plotly.io

    if not hasattr(plotly.io.kaleido, "scope"):  # what mafese sets at import is gone from later plotly
        plotly.io.kaleido.scope = SimpleNamespace()
    from mafese import MhaSelector
    from mafese.utils.data_loader import Data as MafeseData
    from mafese.utils.mealpy_util import FeatureSelectionProblem

    class Counted(FeatureSelectionProblem):
        def decode_solution(self, x: Any) -> Any:
            self.last = super().decode_solution(x)
            return self.last

        def obj_func(self, solution: Any) -> Any:
            told = super().obj_func(solution)
            mask_D = np.asarray(self.last["my_var"]) != 0
            objective.told(mask_D, weigh(1.0 - told[1], mask_D))
            return told

    def make(data: Any, log_to: Any, **known: Any) -> Any:
        (learn, label), (asked, truth) = objective.learn, objective.validate
        data = MafeseData(data.X, data.y).set_train_test(learn, label, asked, truth)
        return Counted(data=data, log_to="None", **known)

    selector = MhaSelector(
        problem="classification",
        obj_name="AS",
        estimator="knn",
        estimator_paras={"n_neighbors": 5},
        optimizer="DevSCA",
        optimizer_paras=_generations(budget),
        seed=seed,
        verbose=False,
    )
    selector.fit(objective.data.feat_ND, objective.data.label_N, fit_weights=(0.99, 0.01), fs_problem=make)
    return np.asarray(selector.selected_feature_masks)


def zoofs_pso(objective: Objective, budget: int, seed: int) -> Mask:
    """ParticleSwarmOptimization; it has no seed of its own, only numpy's global one."""
    import pandas as pd
    from zoofs import ParticleSwarmOptimization

    dim = objective.data.feat_ND.shape[1]

    def score(model: Any, learn: Any, label: Any, asked: Any, truth: Any) -> float:
        model.fit(learn, label)
        mask_D = np.isin(np.arange(dim), learn.columns.astype(int))
        fitness = weigh(1.0 - model.score(asked, truth), mask_D)
        objective.told(mask_D, fitness)
        return fitness

    from sklearn.neighbors import KNeighborsClassifier

    np.random.seed(seed)
    population = min(POPULATION, budget)
    search = ParticleSwarmOptimization(
        score, n_iteration=max(1, budget // population), population_size=population, minimize=True
    )
    names = [str(i) for i in range(dim)]
    frames = [pd.DataFrame(part[0], columns=names) for part in (objective.learn, objective.validate)]
    labels = [pd.Series(part[1]) for part in (objective.learn, objective.validate)]
    knn = KNeighborsClassifier(5)
    found = search.fit(knn, frames[0], labels[0], frames[1], labels[1], verbose=False)
    return np.isin(names, found)


def pymoo_ga(objective: Objective, budget: int, seed: int) -> Mask:
    """The binary genetic algorithm of pymoo's guide: two-point crossover, bit flips, no duplicates."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.optimize import minimize

    class Problem(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=objective.data.feat_ND.shape[1], n_obj=1, vtype=bool)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = objective(x)

    search = GA(
        pop_size=min(POPULATION, budget),
        sampling=BinaryRandomSampling(),
        crossover=TwoPointCrossover(),
        mutation=BitflipMutation(),
        eliminate_duplicates=True,
    )
    return np.asarray(minimize(Problem(), search, ("n_eval", budget), seed=seed).X) != 0


def niapy_sca(objective: Objective, budget: int, seed: int) -> Mask:
    """SineCosineAlgorithm in [0, 1], a feature taken above 0.5 (as in NiaPy's own example)."""
    from niapy.algorithms.basic import SineCosineAlgorithm
    from niapy.problems import Problem
    from niapy.task import Task

    class Selection(Problem):
        def _evaluate(self, x: Any) -> float:
            return objective(x > 0.5)

    task = Task(Selection(objective.data.feat_ND.shape[1], 0.0, 1.0), max_evals=budget)
    best, _ = SineCosineAlgorithm(population_size=min(POPULATION, budget), seed=seed).run(task)
    return np.asarray(best) > 0.5


def _generations(budget: int) -> dict[str, int]:
    """Of mealpy's searches: the first population counts too; it takes no fewer than 5 agents."""
    population = min(POPULATION, max(5, budget // 2))
    return {"pop_size": population, "epoch": max(1, budget // population - 1)}


# -- selectors: their order (or path) is learned from the first part; the best size (or penalty) by the same
# objective; then, as GridSearchCV does, they are fitted again on both parts.


def kbest_anova(objective: Objective, budget: int, seed: int) -> Mask:
    """SelectKBest with the F of an analysis of variance."""
    from sklearn.feature_selection import f_classif

    return _kbest(objective, lambda feat_ND, label_N: f_classif(feat_ND, label_N)[0])


def kbest_information(objective: Objective, budget: int, seed: int) -> Mask:
    """SelectKBest with mutual information."""
    from sklearn.feature_selection import mutual_info_classif

    return _kbest(
        objective, lambda feat_ND, label_N: mutual_info_classif(feat_ND, label_N, random_state=seed)
    )


def _kbest(objective: Objective, score: Any) -> Mask:
    def masks(feat_ND: Floats, label_N: Any) -> list[Mask]:
        order = np.argsort(-np.nan_to_num(score(feat_ND, label_N)), kind="stable")
        rank = np.argsort(order)
        return [rank < size for size in _sizes(len(order))]

    return _best_of(objective, masks)


def rfe_logistic(objective: Objective, budget: int, seed: int) -> Mask:
    """Recursive elimination with logistic regression, from one size of the grid to the next."""
    from sklearn.feature_selection import RFE
    from sklearn.linear_model import LogisticRegression

    def masks(feat_ND: Floats, label_N: Any) -> list[Mask]:
        kept, found = np.arange(feat_ND.shape[1]), []
        for size in _sizes(len(kept))[::-1]:
            if size < len(kept):
                # A step as long as the way to the next size: one fit for each.
                rfe = RFE(LogisticRegression(max_iter=200), n_features_to_select=int(size), step=len(kept))
                kept = kept[rfe.fit(feat_ND[:, kept], label_N).support_]
            found.append(np.isin(np.arange(feat_ND.shape[1]), kept))
        return found

    return _best_of(objective, masks)


def l1_logistic(objective: Objective, budget: int, seed: int) -> Mask:
    """Features with a weight in L1-penalised logistic regression (one class against the rest)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    def masks(feat_ND: Floats, label_N: Any) -> list[Mask]:
        found = []
        for strength in np.logspace(-2.5, 0.5, 13):
            model = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", random_state=seed)
            fitted = OneVsRestClassifier(model).fit(feat_ND, label_N)
            weight_CD = np.abs(np.concatenate([one.coef_ for one in fitted.estimators_]))
            found.append(weight_CD.max(axis=0) > 0)
        return found

    return _best_of(objective, masks)


def _best_of(objective: Objective, masks: Any) -> Mask:
    data: Data = objective.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant features and slow convergence are their users' to see
        fitness = [objective(mask_D) for mask_D in masks(*objective.learn)]
        mask_D: Mask = masks(data.feat_ND, data.label_N)[int(np.argmin(fitness))]
    return mask_D if mask_D.any() else objective.best_mask_D


def _sizes(dim: int) -> Any:
    return np.unique(np.rint(np.geomspace(1, dim, SIZES)).astype(int))


SEARCHES = {
    "random search": random_search,
    "mealpy DevSCA": mealpy_sca,
    "mafese DevSCA": mafese_sca,
    "zoofs PSO": zoofs_pso,
    "pymoo GA": pymoo_ga,
    "niapy SCA": niapy_sca,
}
SELECTORS = {
    "SelectKBest F": kbest_anova,
    "SelectKBest MI": kbest_information,
    "RFE logistic": rfe_logistic,
    "L1 logistic": l1_logistic,
}
"""Name -> (objective, budget, seed) -> the mask that it reports."""
