"""The error of masks under any scikit-learn classifier: cloned and fitted to the rest of every fold.

Slow beside the engines that know their classifier. N samples, S features of a mask, R repeats, P masks.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from cotray.config import FitnessConfig
from cotray.errors import InvalidValueError, UnknownNameError
from cotray.selection.fitness import Codes, Fitness, Masks, Values
from cotray.selection.problem import Features, Problem

WHERE = "fitness.estimator"
SEED = 0


class EstimatorFitness(Fitness):
    """Judges masks by a classifier: an object, or what `fitness.estimator` names.

    The share given to the true class is its probability, where the classifier tells one; else it is 1 if the
    call is right and 0 if not. Classifiers that draw numbers draw the same ones for every mask, unless their
    ``random_state`` is set. Raises UnknownNameError or InvalidValueError if this is no classifier.
    """

    def __init__(self, problem: Problem, cfg: FitnessConfig, estimator: Any = None) -> None:
        super().__init__(problem, cfg)
        self.feat_ND, self.fold_RN = problem.feat_ND, problem.fold_RN
        self.estimator = seeded(check(named(cfg.estimator) if estimator is None else estimator))

    def errors(self, mask_PD: Masks) -> Values:
        """Error of each mask in each repeat: (P, R)."""
        asked_Q = np.arange(len(self.label_N))
        # One thread, like every worker; and whoever stops before the optimum is judged as it is.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.stack([self.score(*self.answers(mask_D), asked_Q) for mask_D in mask_PD])

    def answers(self, mask_D: NDArray[np.bool_]) -> tuple[Codes, Values]:
        """Class called for each sample in each repeat, and share given to its true class: both (R, N).

        The class is -1 where a repeat does not ask the sample.
        """
        feat_NS = np.ascontiguousarray(self.feat_ND[:, mask_D])
        called_RN, given_RN = np.full(self.fold_RN.shape, -1, np.int64), np.zeros(self.fold_RN.shape)
        for repeat, fold_N in enumerate(self.fold_RN):
            for fold in np.unique(fold_N[fold_N >= 0]):
                rows = np.flatnonzero(fold_N == fold)
                found = self._ask(feat_NS[fold_N != fold], self.label_N[fold_N != fold], feat_NS[rows], rows)
                called_RN[repeat, rows], given_RN[repeat, rows] = found
        return called_RN, given_RN

    def _ask(
        self, learned_nS: Features, label_n: Codes, asked_QS: Features, rows_Q: Codes
    ) -> tuple[Codes, Values]:
        truth_Q, known = self.label_N[rows_Q], np.unique(label_n)
        if len(known) == 1:  # many classifiers refuse what leaves no choice
            return np.full(len(rows_Q), known[0]), (truth_Q == known[0]).astype(np.float64)
        model = self._fitted(learned_nS, label_n)
        called_Q = np.asarray(model.predict(asked_QS), np.int64)
        if not hasattr(model, "predict_proba"):
            return called_Q, (called_Q == truth_Q).astype(np.float64)
        chance_QC = np.zeros((len(rows_Q), self.classes))
        chance_QC[:, model.classes_] = model.predict_proba(asked_QS)
        return called_Q, chance_QC[np.arange(len(rows_Q)), truth_Q]

    def _fitted(self, learned_nS: Features, label_n: Codes) -> Any:
        model = clone(self.estimator)
        try:
            return model.fit(learned_nS, label_n)
        except (ValueError, TypeError) as error:
            raise InvalidValueError(
                f"{type(model).__name__} cannot be fitted: {error}",
                where=WHERE,
                cure="Give one that takes standardised features (negative ones, too) and class codes.",
            ) from error


def named(name: str) -> Any:
    """A classifier of scikit-learn by its dotted name. Raises UnknownNameError, InvalidValueError."""
    # Text that comes from elsewhere must not be able to import whatever it likes.
    if not name.startswith("sklearn."):
        raise InvalidValueError(
            f"'{name}' is not a part of scikit-learn; settings may name no other code.",
            where=WHERE,
            cure="Give a name like sklearn.svm.LinearSVC, or the classifier itself from Python.",
        )
    module, _, attribute = name.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        raise UnknownNameError(f"There is no '{name}'.", where=WHERE, cure=suggestion(name)) from None
    if not inspect.isclass(kind) or not issubclass(kind, BaseEstimator):
        raise InvalidValueError(f"'{name}' is not a classifier.", where=WHERE, cure=suggestion(name))
    try:
        return kind()
    except TypeError as error:
        raise InvalidValueError(
            f"'{name}' cannot be made without arguments: {error}.",
            where=WHERE,
            cure="Give the classifier itself from Python.",
        ) from error


def check(estimator: Any) -> Any:
    """The same, if it is a classifier. Raises InvalidValueError."""
    if inspect.isclass(estimator):
        raise InvalidValueError(
            f"{estimator.__name__} is a class.", where=WHERE, cure=f"Give an object: {estimator.__name__}()."
        )
    missing = [
        verb for verb in ("get_params", "fit", "predict", "__sklearn_tags__") if not hasattr(estimator, verb)
    ]
    if missing or not is_classifier(estimator):
        raise InvalidValueError(
            f"{type(estimator).__name__} is not a classifier.",
            where=WHERE,
            cure="Give a classifier, such as sklearn.svm.LinearSVC.",
        )
    return estimator


def seeded(estimator: Any) -> Any:
    """A copy that draws the same numbers at every fit: each ``random_state`` that is None is set."""
    copy = clone(estimator)
    unset = [
        name for name, value in copy.get_params().items() if name.endswith("random_state") and value is None
    ]
    return copy.set_params(**dict.fromkeys(unset, SEED))


def suggestion(name: str) -> str:
    """A cure: the classifiers of scikit-learn with the most similar names."""
    known = {public_name(kind) for _, kind in all_estimators(type_filter="classifier")}
    by_class = {full.rpartition(".")[2].lower(): full for full in known}
    close = difflib.get_close_matches(name.rpartition(".")[2].lower(), by_class, n=3, cutoff=0.6)
    if not close:
        return "Give the dotted name of a classifier, such as sklearn.svm.LinearSVC."
    return f"Did you mean {' or '.join(by_class[found] for found in close)}?"


def public_name(kind: type) -> str:
    """``sklearn.svm._classes.SVC`` -> ``sklearn.svm.SVC``."""
    parts = [part for part in kind.__module__.split(".") if not part.startswith("_")]
    return ".".join([*parts, kind.__name__])
