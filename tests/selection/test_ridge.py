"""The ridge engine against scikit-learn's RidgeClassifier, fold by fold, and its exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from judging import SCHEMES, Ask, error, held_out, settings, some_masks, toy
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier

from cotray.selection.linear import learned_rows, to_grid
from cotray.selection.problem import TRAIN, Problem
from cotray.selection.ridge import MANY, RidgeFitness
from cotray.selection.transfer import Masks

Codes, Values = NDArray[np.int64], NDArray[np.float64]
WIDE = 150
"""More features than samples."""


def ridge_ask(penalty: float, classes: int) -> Ask:
    """A share is (1 + score) / 2, in [0, 1]; classes that are not learned have none."""

    def ask(learned: Values, label: Codes, asked: Values) -> tuple[Codes, Values]:
        model = RidgeClassifier(penalty, solver="cholesky").fit(learned, label)
        score = model.decision_function(asked)
        score = np.stack([-score, score], axis=1) if score.ndim == 1 else score
        share = np.zeros((len(asked), classes))
        share[:, model.classes_] = np.clip((1 + score) / 2, 0, 1)
        return model.predict(asked), share

    return ask


def assert_scikit_learns(problem: Problem, masks: Masks, **others: Any) -> None:
    cfg = settings("ridge", **others)
    fitness = RidgeFitness(problem, cfg)
    for mask_D in masks:
        called, share = held_out(problem, mask_D, ridge_ask(cfg.ridge, problem.classes))
        found = fitness.answers(mask_D)
        asked = problem.fold_RN >= 0
        np.testing.assert_allclose(found[1][asked], share[asked], atol=2e-5)
        np.testing.assert_array_equal(found[0], called)
        expected = [error(problem.label_N, c, s, cfg) for c, s in zip(called, share, strict=True)]
        np.testing.assert_allclose(fitness.errors(mask_D[None])[0], expected, atol=2e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 300.0])
def test_it_is_scikit_learns(scheme: str, classes: int, penalty: float) -> None:
    problem = toy(settings("ridge", **SCHEMES[scheme]), seed=classes, classes=classes)
    assert_scikit_learns(problem, some_masks(3), ridge=penalty)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("classes", [2, 3])
def test_more_features_than_samples(scheme: str, classes: int) -> None:
    cfg = settings("ridge", **SCHEMES[scheme])
    problem = toy(cfg, classes=classes, cells=60, width=WIDE)
    masks = some_masks(2, WIDE, share=0.7)
    assert masks.sum(axis=1).min() > 60
    assert_scikit_learns(problem, masks, ridge=3.0)


@pytest.mark.parametrize("size", [1, 3])
def test_all_groups_of_one_size_left_out(size: int) -> None:
    problem = toy(settings("ridge", scheme="leave_out"))
    fold = np.arange(len(problem.label_N), dtype=np.int32)[None] // size
    assert fold.max() > MANY
    assert_scikit_learns(Problem(problem.feat_ND, problem.label_N, fold), some_masks(3))


@pytest.mark.parametrize("folds", [2, MANY, MANY + 1])
def test_few_and_many_folds_beside_samples_only_learned_from(folds: int) -> None:
    problem = toy(settings("ridge"), classes=3)
    fold = (np.arange(len(problem.label_N)) % (folds + 1) - 1).astype(np.int32)
    both = np.stack([fold, np.where(fold == 0, 0, TRAIN)]).astype(np.int32)
    assert_scikit_learns(Problem(problem.feat_ND, problem.label_N, both), some_masks(3))


def test_the_intercept_is_that_of_the_rest_of_each_fold() -> None:
    """Features far from mean 0 in one fold: centring on all samples would not do."""
    problem = toy(settings("ridge"), seed=4)
    problem.feat_ND[problem.fold_RN[0] == 1] += 2
    assert_scikit_learns(problem, some_masks(3), ridge=30.0)


@pytest.mark.parametrize("classes", [3, 4])
def test_a_class_without_samples_to_learn_from(classes: int) -> None:
    problem = toy(settings("ridge"), classes=classes)
    fold = np.where(problem.label_N == 1, 0, 1 + np.arange(len(problem.label_N)) % 2)
    assert_scikit_learns(
        Problem(problem.feat_ND, problem.label_N, fold[None].astype(np.int32)), some_masks(3)
    )


def test_equal_features_and_hardly_a_penalty() -> None:
    problem = toy(settings("ridge"))
    feat = np.repeat(problem.feat_ND[:, :3], 2, axis=1)
    cfg = settings("ridge", ridge=1e-300)
    fitness = RidgeFitness(Problem(feat, problem.label_N, problem.fold_RN), cfg)
    twice, once = fitness.errors(np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0]], bool))
    np.testing.assert_allclose(twice, once, atol=1e-4)


# -- exact sums -----------------------------------------------------------------------------------------


@examples(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 3000), tail=st.sampled_from([1.5, 3.0, 50.0]))
def test_sums_of_products_are_exact_on_the_grid(seed: int, rows: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    feat = rng.standard_t(tail, (rows, 2)).astype(np.float32)
    feat /= feat.std(axis=0)
    grid = to_grid(feat, np.ones(rows, bool))
    x, y = grid.astype(np.float64).T
    exact = math.fsum((x * y).tolist())
    assert x @ y == exact
    assert np.cumsum((x * y)[rng.permutation(rows)])[-1] == exact
    finest = np.sqrt(max((feat.astype(np.float64) ** 2).sum(axis=0).max(), rows) / 2**52)
    np.testing.assert_allclose(grid, feat, rtol=0, atol=finest)


def test_samples_that_nobody_learns_from_do_not_coarsen_the_grid() -> None:
    fold = np.array([[0, 0, TRAIN, TRAIN]], np.int32)
    np.testing.assert_array_equal(learned_rows(fold), [False, False, True, True])
    np.testing.assert_array_equal(learned_rows(np.array([[0, 1, 1, TRAIN], [0, TRAIN, 0, 0]])), [True] * 4)
    feat = np.array([[1e6, -1e6, 0.3, 0.7]], np.float32).T
    np.testing.assert_allclose(to_grid(feat, learned_rows(fold))[2:], feat[2:], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_kept_sums_give_the_same_bits(scheme: str, classes: int) -> None:
    """After a mask of all features the sums of all pairs are kept; a pickle forgets them."""
    cfg = settings("ridge", **SCHEMES[scheme])
    problem = toy(cfg, classes=classes)
    fitness, masks = RidgeFitness(problem, cfg), some_masks(6)
    before = fitness.errors(masks[:2])
    fitness.errors(np.ones((2, problem.width), bool))
    np.testing.assert_array_equal(fitness.errors(masks[:2]), before)
    small = cfg.model_copy(update={"cache_mb": 0.0})
    np.testing.assert_array_equal(RidgeFitness(problem, small).errors(masks), fitness.errors(masks))
