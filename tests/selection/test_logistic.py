"""The logistic engine against scikit-learn's LogisticRegression, fold by fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judging import SCHEMES, Ask, error, held_out, settings, some_masks, toy
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cotray.selection.logistic import LogisticFitness
from cotray.selection.problem import TRAIN, Problem
from cotray.selection.transfer import Masks

Codes, Values = NDArray[np.int64], NDArray[np.float64]
NEAR = 3e-3
"""Tolerance of a probability: both stop where the gradient is small, and features are rounded."""


def logistic_ask(penalty: float, classes: int) -> Ask:
    def ask(learned: Values, label: Codes, asked: Values) -> tuple[Codes, Values]:
        model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=5000).fit(learned, label)
        share = np.zeros((len(asked), classes))
        share[:, model.classes_] = model.predict_proba(asked)
        return model.predict(asked), share

    return ask


def assert_scikit_learns(problem: Problem, masks: Masks, **others: Any) -> None:
    cfg = settings("logistic", **others)
    fitness = LogisticFitness(problem, cfg)
    for mask_D in masks:
        called, share = held_out(problem, mask_D, logistic_ask(cfg.ridge, problem.classes))
        found = fitness.answers(mask_D)
        asked = problem.fold_RN >= 0
        np.testing.assert_allclose(found[1][asked], share[asked], atol=NEAR)
        assert np.mean(found[0] != called) < 0.01  # those on the fence
        expected = [error(problem.label_N, c, s, cfg) for c, s in zip(found[0], share, strict=True)]
        np.testing.assert_allclose(fitness.errors(mask_D[None])[0], expected, atol=NEAR)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("penalty", [0.3, 30.0])
def test_it_is_scikit_learns(scheme: str, classes: int, penalty: float) -> None:
    problem = toy(settings("logistic", **SCHEMES[scheme]), seed=classes, classes=classes, cells=60)
    assert_scikit_learns(problem, some_masks(2), ridge=penalty)


@pytest.mark.parametrize("scheme", ["repeats", "holdout"])
@pytest.mark.parametrize("classes", [2, 3])
def test_more_features_than_samples(scheme: str, classes: int) -> None:
    cfg = settings("logistic", **SCHEMES[scheme])
    problem = toy(cfg, classes=classes, cells=60, width=150)
    assert_scikit_learns(problem, some_masks(2, 150, share=0.7), ridge=3.0)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_are_perfectly_separable(classes: int) -> None:
    """The weights would grow for ever but for the penalty."""
    problem = toy(settings("logistic"), classes=classes)
    problem.feat_ND[:, 0] = 3 * problem.label_N
    assert_scikit_learns(problem, some_masks(2), ridge=0.1)


def test_rare_classes() -> None:
    problem = toy(settings("logistic"), seed=5)
    label = (np.arange(len(problem.label_N)) % 15 == 3).astype(np.int64)
    fold = (np.arange(len(label)) // 15 % 3).astype(np.int32)[None]
    assert_scikit_learns(Problem(problem.feat_ND, label, fold), some_masks(2))


def test_an_intercept_far_away() -> None:
    """Features whose mean is far from 0 in what is learned from."""
    problem = toy(settings("logistic"), seed=6)
    problem.feat_ND[:] += 4
    assert_scikit_learns(problem, some_masks(2), ridge=10.0)


def test_extreme_samples_do_not_overflow() -> None:
    problem = toy(settings("logistic", scheme="holdout"))
    problem.feat_ND[problem.fold_RN[0] == 0] *= 1e5
    fitness = LogisticFitness(problem, settings("logistic", ridge=1e-3))
    found = fitness.errors(some_masks(3))
    assert ((found >= 0) & (found <= 1)).all()


def test_an_absent_class_gets_hardly_any_probability() -> None:
    problem = toy(settings("logistic"), classes=3)
    fold = np.where(problem.label_N == 2, 0, TRAIN).astype(np.int32)[None]
    absent = Problem(problem.feat_ND, problem.label_N, fold)
    called, share = LogisticFitness(absent, settings("logistic")).answers(some_masks(1)[0])
    asked = fold >= 0
    assert share[asked].max() < 0.01 and not (called[asked] == 2).any()
