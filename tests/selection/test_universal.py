"""Any scikit-learn classifier as a fitness: against fits fold by fold, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from judging import SCHEMES, errors, settings, some_masks, toy
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from cotray.config import FitnessConfig
from cotray.errors import InvalidValueError, UnknownNameError
from cotray.selection.universal import EstimatorFitness

Codes, Values = NDArray[np.int64], NDArray[np.float64]


def fit_anew(make: Any, classes: int) -> Any:
    def ask(learned: Values, label: Codes, asked: Values) -> tuple[Codes, Values]:
        model = make().fit(learned.astype(np.float32), label)
        called = model.predict(asked.astype(np.float32))
        share = np.zeros((len(asked), classes))
        if hasattr(model, "predict_proba"):
            share[:, model.classes_] = model.predict_proba(asked.astype(np.float32))
        else:
            share[np.arange(len(asked)), called] = 1
        return called, share

    return ask


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [GaussianNB, NearestCentroid])
@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_a_fit_to_the_rest_of_each_fold(scheme: str, kind: Any, classes: int) -> None:
    cfg = settings("sklearn", **SCHEMES[scheme])
    problem, masks = toy(cfg, classes=classes), some_masks(2)
    expected = [errors(problem, mask, fit_anew(kind, classes), cfg) for mask in masks]
    np.testing.assert_allclose(EstimatorFitness(problem, cfg, kind()).errors(masks), expected, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
        lambda: SVC(kernel="rbf", gamma=0.1),
        lambda: LogisticRegression(C=0.5),
        lambda: DecisionTreeClassifier(max_depth=3, random_state=7),
    ],
)
def test_objects_keep_their_settings(make: Any) -> None:
    cfg = settings("sklearn")
    problem, masks = toy(cfg), some_masks(2)
    expected = [errors(problem, mask, fit_anew(make, 2), cfg) for mask in masks]
    np.testing.assert_allclose(EstimatorFitness(problem, cfg, make()).errors(masks), expected, atol=1e-6)


def test_a_name_is_that_classifier() -> None:
    cfg = settings("sklearn", estimator="sklearn.tree.DecisionTreeClassifier")
    problem, masks = toy(cfg), some_masks(3)
    named, given = EstimatorFitness(problem, cfg), EstimatorFitness(problem, cfg, DecisionTreeClassifier())
    np.testing.assert_array_equal(named(masks), given(masks))
    assert (named(masks) != EstimatorFitness(problem, settings("sklearn"))(masks)).any()


def test_the_default_judges_by_calls_alone() -> None:
    cfg = FitnessConfig(engine="sklearn", soft=1.0)
    problem, masks = toy(cfg), some_masks(2)
    assert isinstance(EstimatorFitness(problem, cfg).estimator, LinearSVC)
    hard = cfg.model_copy(update={"soft": 0.0})
    np.testing.assert_array_equal(
        EstimatorFitness(problem, cfg)(masks), EstimatorFitness(problem, hard)(masks)
    )


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=5, max_features=1),
        make_pipeline(StandardScaler(), SGDClassifier(max_iter=5, tol=None)),
    ],
)
def test_a_classifier_that_draws_numbers_draws_the_same_ones(estimator: Any) -> None:
    cfg = settings("sklearn")
    problem, masks = toy(cfg), some_masks(3)
    fitness = EstimatorFitness(problem, cfg, estimator)
    first = fitness(masks)
    np.testing.assert_array_equal(fitness(masks[::-1])[::-1], first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitness))(masks), first)
    assert all(v is None for k, v in estimator.get_params().items() if k.endswith("random_state"))


def test_a_seed_that_is_set_stays() -> None:
    cfg = settings("sklearn")
    forest = RandomForestClassifier(n_estimators=3, max_features=1, random_state=11)
    problem, masks = toy(cfg), some_masks(3)
    seeded, zero = (
        EstimatorFitness(problem, cfg, f) for f in (forest, RandomForestClassifier(3, max_features=1))
    )
    assert seeded.estimator.random_state == 11
    assert (seeded(masks) != zero(masks)).any()


def test_who_stops_early_is_judged_without_a_warning() -> None:
    cfg = settings("sklearn")
    fitness = EstimatorFitness(toy(cfg), cfg, LogisticRegression(max_iter=1))
    assert fitness.errors(some_masks(1)).shape == (1, 1)


# -- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        (
            "sklearn.svm.LinearSCV",
            UnknownNameError,
            r"no 'sklearn.svm.LinearSCV'.*mean sklearn.svm.LinearSVC",
        ),
        (
            "sklearn.trees.DecisionTreeClassifier",
            UnknownNameError,
            "mean sklearn.tree.DecisionTreeClassifier",
        ),
        ("sklearn.svm", InvalidValueError, "Did you mean sklearn.svm.SVC"),
        ("sklearn.nothing.Alike", UnknownNameError, "Give the dotted name of a classifier"),
        ("sklearn.base.clone", InvalidValueError, "is not a classifier"),
        ("sklearn.base.warnings", InvalidValueError, "is not a classifier"),
        ("sklearn.linear_model.LinearRegression", InvalidValueError, "LinearRegression is not a classifier"),
        ("sklearn.preprocessing.StandardScaler", InvalidValueError, "StandardScaler is not a classifier"),
        ("sklearn.ensemble.VotingClassifier", InvalidValueError, "without arguments.*from Python"),
        ("xgboost.XGBClassifier", InvalidValueError, "not a part of scikit-learn"),
        ("os.system", InvalidValueError, "may name no other code"),
        ("sklearnish.svm.SVC", InvalidValueError, "not a part of scikit-learn"),
        ("LinearSVC", InvalidValueError, "a name like sklearn.svm.LinearSVC"),
    ],
)
def test_names_that_are_refused(name: str, kind: type[Exception], says: str) -> None:
    cfg = settings("sklearn", estimator=name)
    with pytest.raises(kind, match=says) as caught:
        EstimatorFitness(toy(cfg), cfg)
    assert "fitness.estimator" in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (LinearSVC, r"is a class.*Give an object: LinearSVC\(\)"),
        (LinearRegression(), "is not a classifier"),
        (StandardScaler(), "is not a classifier"),
        (make_pipeline(StandardScaler()), "is not a classifier"),
        ("sklearn.svm.SVC", "str is not a classifier"),
    ],
)
def test_objects_that_are_refused(estimator: Any, says: str) -> None:
    cfg = settings("sklearn")
    with pytest.raises(InvalidValueError, match=says):
        EstimatorFitness(toy(cfg), cfg, estimator)


def test_a_classifier_that_cannot_take_such_features() -> None:
    cfg = settings("sklearn", estimator="sklearn.naive_bayes.MultinomialNB")
    with pytest.raises(InvalidValueError, match=r"MultinomialNB cannot be fitted.*standardised"):
        EstimatorFitness(toy(cfg), cfg)(some_masks(1))
