"""Feature selection as a scikit-learn transformer. N samples, D features, M members."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from cotray.config import Config, FitnessConfig, merge, validate
from cotray.errors import InvalidValueError, UnknownNameError, nearest
from cotray.selection.check import check_table
from cotray.selection.choose import frequency, stability
from cotray.selection.drive import Evaluate, Memo
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Problem
from cotray.selection.search import Search
from cotray.selection.select import Hooks, MemberJob, Selection, here, select_features
from cotray.selection.transfer import Masks

BACKENDS = "cotray.evaluators"
"""Group of entry points: context managers that are given an engine and give whoever evaluates masks."""
SETTINGS = {
    "engine": "fitness.engine",
    "k": "fitness.k",
    "metric": "fitness.metric",
    "soft": "fitness.soft",
    "weight": "fitness.weight",
    "scheme": "fitness.scheme",
    "folds": "fitness.folds",
    "max_samples": "fitness.max_cells",
    "agents": "sca.agents",
    "iterations": "sca.iterations",
    "transfer": "sca.transfer",
    "init": "sca.init",
    "optimizer": "select.optimizer",
    "budget": "select.budget",
    "rule": "select.rule",
    "members": "select.members",
    "islands": "select.islands",
    "max_features": "select.max_features",
}
"""Parameter of the selector -> setting."""

MakeEngine = Callable[[Problem, FitnessConfig], Fitness]
Backend = Callable[[Fitness], AbstractContextManager[Evaluate]]


class SineCosineSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Select features by a sine-cosine search refined by adaptive beta-hill climbing.

    The search minimises ``weight * error + (1 - weight) * |S| / D`` over subsets S of D features. The error
    is that of a classifier on samples that it did not learn from; no group is on both sides.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn classifier, which is trained for every subset (slow). None: `engine`.
    engine : {"knn", "knn-torch", "ridge", "logistic", "sklearn"}, default="knn"
        Built-in classifier that gives the error: nearest neighbours (exact and incremental), the same on a
        GPU, ridge, logistic regression. Ignored if `estimator` is given.
    k : int, default=5
        Neighbours of `engine="knn"`.
    agents, iterations : int, default=20
        Population size and iterations of the search.
    optimizer : {"sca", "ga", "pso", "random"}, default="sca"
        The search itself; the others are there for comparison.
    budget : str, default=None
        Stop after this much: ``"620 evaluations"`` or ``"30 seconds"``. None: when `iterations` are done.
    transfer : {"sigmoid", "s1", ..., "s4", "vshaped", "v1", ..., "v4"}, default="sigmoid"
        How a position becomes a subset.
    init : {"ranked", "sparse", "random"}, default="ranked"
        Where agents start: at the best features by univariate score, at few random ones, at half of all.
    scheme : {"auto", "folds", "holdout", "leave_out"}, default="auto"
        How samples judge subsets: by folds, one held-out part, or every group (without groups: sample) in
        turn. "auto": the last for nearest neighbours, else folds.
    folds : int, default=3
        Folds of `scheme="folds"`.
    metric : {"plain", "balanced"}, default="plain"
        Error: 1 - accuracy, or 1 - balanced accuracy.
    soft : float in [0, 1], default=0.5
        Part of the error that is the share of votes (or probability) given to wrong classes.
    rule : {"best", "one_se", "consensus"}, default="best"
        Which subset is chosen: the fittest, the smallest within one standard error of it, or what `members`
        agree on where that is fitter.
    members : int, default=0
        Additional searches on halves of the groups, for `frequency_`, `stability_` and the rule "consensus".
    islands : int, default=1
        Populations that search side by side and pass on their best subsets.
    weight : float in (0, 1], default=0.99
        Error against size.
    max_features : int, default=None
        Only so many features, the best by univariate score, take part. It does not limit what is chosen.
    max_samples : int, default=2000
        At most so many samples judge subsets, classes in proportion. None: all.
    backend : str, default="serial"
        Who evaluates: "serial" is this process, "ray" a Ray cluster or all CPUs. The result is the same.
    random_state : int, RandomState instance or None, default=None
        Seed. Pass an int for reproducible results (budgets in seconds apart).
    verbose : int, default=0
        Print notes, and a line for each iteration.
    config : dict, default=None
        Any other setting by its dotted name, such as ``{"abhc.steps": 20}``; it has the last word.

    Attributes
    ----------
    support_ : ndarray of shape (n_features_in_,), bool
        The chosen features: the very subset whose fitness is `fitness_`.
    fitness_ : float
        Its fitness; smaller is better. It flatters: the search chose the subset for it.
    scores_ : ndarray of shape (n_features_in_,)
        Univariate scores, higher is better.
    history_ : list of dict
        For each iteration: best_fitness, best_size, mean_fitness, evaluations.
    frequency_ : ndarray of shape (n_features_in_,)
        Share of `members` that chose each feature; only if there are any.
    stability_ : float
        Nogueira's stability of `members`: 1 is always the same features, 0 chance; NaN if fewer than two.
    notes_ : list of str
        What is odd about the data: constant features, few samples, settings that could not be followed.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        engine: str = "knn",
        k: int = 5,
        agents: int = 20,
        iterations: int = 20,
        optimizer: str = "sca",
        budget: str | None = None,
        transfer: str = "sigmoid",
        init: str = "ranked",
        scheme: str = "auto",
        folds: int = 3,
        metric: str = "plain",
        soft: float = 0.5,
        rule: str = "best",
        members: int = 0,
        islands: int = 1,
        weight: float = 0.99,
        max_features: int | None = None,
        max_samples: int | None = 2000,
        backend: str = "serial",
        random_state: Any = None,
        verbose: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.estimator = estimator
        self.engine = engine
        self.k = k
        self.agents = agents
        self.iterations = iterations
        self.optimizer = optimizer
        self.budget = budget
        self.transfer = transfer
        self.init = init
        self.scheme = scheme
        self.folds = folds
        self.metric = metric
        self.soft = soft
        self.rule = rule
        self.members = members
        self.islands = islands
        self.weight = weight
        self.max_features = max_features
        self.max_samples = max_samples
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose
        self.config = config

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Search for the features that tell the classes apart.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)
            Finite numbers.
        y : array-like of shape (n_samples,)
            Classes: numbers, text or booleans.
        groups : array-like of shape (n_samples,), default=None
            Samples of one group (patient, batch) never judge what learned from one another.

        Returns
        -------
        self : SineCosineSelector
            Raises ValueErrors that are CotrayErrors: what is wrong, with which column, and the cure.
        """
        config = build_config(self)
        hooks = Hooks(evaluator=find_backend(self.backend), engine=find_engine(self.estimator))
        hooks.run_all = partial(_members, engine=hooks.engine)
        checked = check_table(X, y, groups, config=config)
        # The table is checked already; scikit-learn wants to remember what the columns were.
        validate_data(self, X=X, skip_check_array=True)
        for note in checked.overruled:
            warnings.warn(note, UserWarning, stacklevel=2)
        if self.verbose:
            print(*(f"note: {note}" for note in checked.notes), sep="\n")
            hooks.on_iteration = _tell
        self._keep(select_features(checked.table, config, seed_of(self.random_state), hooks))
        self.notes_ = list(checked.notes)
        return self

    def _keep(self, found: Selection) -> None:
        self.support_ = found.mask_D
        self.fitness_ = float(found.fitness)
        self.scores_ = found.score_D
        self.history_ = found.result.history
        self.stability_ = stability(found.member_MD) if len(found.member_MD) > 1 else float("nan")
        if len(found.member_MD):
            self.frequency_ = frequency(found.member_MD)

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def build_config(selector: SineCosineSelector) -> Config:
    """The settings that a selector's parameters stand for. Raises InvalidValueError, UnknownKeyError."""
    given = {key: getattr(selector, name) for name, key in SETTINGS.items()}
    if selector.estimator is not None:
        given["fitness.engine"] = "sklearn"
    if selector.config is not None and not isinstance(selector.config, Mapping):
        raise InvalidValueError("`config` is no dict.", cure='Write it as {"abhc.steps": 20}.')
    given |= selector.config or {}
    tree: dict[str, Any] = Config().model_dump()
    for key, value in given.items():
        over: Any = value
        for part in reversed(str(key).split(".")):
            over = {part: over}
        tree = merge(tree, over)
    return validate(tree)


def find_engine(estimator: Any) -> MakeEngine:
    """What makes the engine for a classifier; for None what the settings say. Raises InvalidValueError."""
    if estimator is None:
        return make_fitness
    if isinstance(estimator, type) or not hasattr(estimator, "fit") or not is_classifier(estimator):
        raise InvalidValueError(
            f"{type(estimator).__name__} is no scikit-learn classifier.",
            where="estimator",
            cure="Give a classifier such as sklearn.svm.LinearSVC(), or None.",
        )
    from cotray.selection.universal import EstimatorFitness

    return partial(EstimatorFitness, estimator=estimator)


def find_backend(name: str) -> Backend:
    """Who evaluates, by name: "serial", or an entry point. Raises UnknownNameError."""
    if name == "serial":
        return here
    found = {point.name: point for point in entry_points(group=BACKENDS)}
    if name not in found:
        raise UnknownNameError(f"Unknown backend '{name}'.", cure=nearest(str(name), ["serial", *found]))
    backend: Backend = found[name].load()
    return backend


def seed_of(random_state: Any) -> int:
    """The seed that a scikit-learn ``random_state`` stands for; an int is its own."""
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _members(jobs: Sequence[MemberJob], engine: MakeEngine) -> list[Masks]:
    hooks = Hooks(engine=engine)
    return [
        select_features(table.rows(rows), config, seed, hooks).mask_D for table, rows, config, seed in jobs
    ]


def _tell(search: Search, memo: Memo) -> None:
    row = search.history[-1]
    print(
        f"iteration {len(search.history)}: fitness {row['best_fitness']:.4f}, "
        f"{int(row['best_size'])} features, {int(row['evaluations'])} evaluations"
    )
