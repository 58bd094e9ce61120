"""What a search is judged on: standardising, folding, subsampling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from judging import SCHEMES, settings, toy
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from cotray.config import FitnessConfig
from cotray.errors import ClassError, TooFewGroupsError
from cotray.selection.problem import (
    TRAIN,
    fold_samples,
    inner_folds,
    make_problem,
    moments,
    standardise,
    subsample,
)


def cells(count: int = 90) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Labels and groups: five cells of each, a third of the groups malignant."""
    group = np.arange(count) // 5
    return (group % 3 == 0).astype(np.int64), np.array([f"subject {g}" for g in group])


# -- features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [7, 2000, 4001])
def test_standardised_constants_become_zero(rows: int) -> None:
    rng = np.random.default_rng(0)
    feat = np.full((rows, 5), [3.7, 0.1, -1e6, 0.0, 0.0], np.float32)
    feat[:, 4] = rng.normal(50, 3, rows)
    scaled = standardise(feat)
    assert scaled.dtype == np.float32
    assert not scaled[:, :4].any()
    expected = StandardScaler().fit_transform(feat[:, 4:].astype(np.float64))
    np.testing.assert_allclose(scaled[:, 4:], expected, atol=1e-5)


def test_moments_are_mean_and_inverse_deviation() -> None:
    feat = np.random.default_rng(1).normal(7, [1, 20, 300], (50, 3))
    mean, scale = moments(feat)
    np.testing.assert_allclose(mean, feat.sum(axis=0) / 50)
    np.testing.assert_allclose(1 / scale, np.sqrt(((feat - feat.mean(axis=0)) ** 2).mean(axis=0)))


def test_scale_and_place_of_a_feature_do_not_matter() -> None:
    feat = np.random.default_rng(2).normal(size=(40, 3))
    np.testing.assert_allclose(
        standardise(feat * [1e-8, 5, 1e8] + [0, 3, -1e8]), standardise(feat), atol=1e-5
    )


def test_some_of_the_features_are_the_same_problem() -> None:
    problem = toy(settings("knn"), classes=3)
    part = problem.only(np.array([7, 2]))
    np.testing.assert_array_equal(part.feat_ND, problem.feat_ND[:, [7, 2]])
    np.testing.assert_array_equal(part.fold_RN, problem.fold_RN)
    assert (part.width, part.classes, problem.width) == (2, 3, 12)


# -- folds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_group_is_in_two_folds(scheme: str) -> None:
    label, group = cells()
    fold_RN = fold_samples(label, group, settings("ridge", **SCHEMES[scheme]), seed=3)
    for fold_N in fold_RN:
        assert all(len(set(fold_N[group == g])) == 1 for g in np.unique(group))


def test_folds_leave_every_class_to_both_sides() -> None:
    label, group = cells()
    fold_RN = fold_samples(label, group, settings("ridge", folds=4, repeats=3), seed=3)
    assert fold_RN.shape == (3, 90)
    for fold_N in fold_RN:
        assert set(fold_N) == {0, 1, 2, 3}
        assert all(set(label[fold_N == f]) == set(label[fold_N != f]) == {0, 1} for f in range(4))
    assert all((one != other).any() for one, other in pairwise(fold_RN))


@pytest.mark.parametrize(("share", "folds"), [(0.5, 2), (0.25, 4), (0.2, 5)])
def test_a_holdout_is_one_fold_and_the_rest_is_learned_from(share: float, folds: int) -> None:
    label, group = cells()
    fold_RN = fold_samples(label, group, settings("ridge", scheme="holdout", holdout=share, repeats=2), 3)
    assert set(fold_RN.ravel()) == {0, TRAIN}
    assert all(abs((fold_N == 0).mean() - 1 / folds) < 0.06 for fold_N in fold_RN)
    assert (fold_RN[0] != fold_RN[1]).any()


def test_left_out_is_every_group_in_turn_once_whatever_the_seed() -> None:
    label, group = cells()
    cfg = settings("knn", scheme="leave_out", repeats=5)
    fold_RN = fold_samples(label, group, cfg, seed=3)
    assert fold_RN.shape == (1, 90) and len(set(fold_RN[0])) == 18
    np.testing.assert_array_equal(fold_RN, fold_samples(label, group, cfg, seed=4))


@pytest.mark.parametrize(
    ("engine", "folds"), [("knn", 18), ("knn-torch", 18), ("ridge", 3), ("logistic", 3), ("sklearn", 3)]
)
def test_what_auto_stands_for(engine: str, folds: int) -> None:
    label, group = cells()
    assert len(set(fold_samples(label, group, settings(engine), seed=0)[0])) == folds


def test_more_repeats_add_to_those_there_were() -> None:
    label, group = cells()
    few, more = (fold_samples(label, group, settings("ridge", repeats=n), seed=5) for n in (1, 4))
    np.testing.assert_array_equal(few[0], more[0])


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_repeat_with_the_seed_only(folds: int) -> None:
    label, group = cells()
    fold = inner_folds(label, group, folds, seed=3)
    assert set(fold) == set(range(folds))
    np.testing.assert_array_equal(fold, inner_folds(label, group, folds, seed=3))
    assert (fold != inner_folds(label, group, folds, seed=4)).any()


def test_fewer_folds_where_a_class_has_fewer_groups() -> None:
    label = np.array([0] * 8 + [1] * 4)
    group = np.array(list("aabbccddeeff"))
    assert set(inner_folds(label, group, 5, seed=0)) == {0, 1}


@pytest.mark.parametrize(
    ("label", "group"),
    [([0, 0, 1, 1], "aabb"), ([0, 0, 0, 1], "abcd"), ([1, 1, 1, 1], "abcd"), ([], "")],
)
def test_too_few_groups(label: list[int], group: str) -> None:
    with pytest.raises(TooFewGroupsError, match="groups per class"):
        inner_folds(np.array(label, np.int64), np.array(list(group), str), 3, seed=0)


# -- samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [10, 11, 37, 89])
def test_subsample_keeps_proportions_and_its_limit(most: int) -> None:
    label = np.repeat([0, 1], [60, 30])
    kept = subsample(label, most, seed=5)
    assert most - 1 <= len(kept) <= most
    assert abs((label[kept] == 1).sum() - most / 3) < 1
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, subsample(label, most, seed=5))
    assert set(kept) != set(subsample(label, most, seed=6))


def test_subsample_keeps_a_rare_class_and_small_sets() -> None:
    label = np.repeat([0, 1], [999, 1])
    kept = subsample(label, 10, seed=0)
    assert len(kept) == 10 and label[kept].sum() == 1
    np.testing.assert_array_equal(subsample(label, None, 0), np.arange(1000))
    np.testing.assert_array_equal(subsample(label, 1000, 0), np.arange(1000))


def test_most_cells_limits_what_takes_part() -> None:
    label, group = cells()
    feat = np.random.default_rng(0).normal(5, 2, (90, 4))
    problem = make_problem(feat, label, group, FitnessConfig(max_cells=45), seed=0)
    kept = subsample(label, 45, seed=0)
    np.testing.assert_array_equal(problem.feat_ND, standardise(feat[kept]))
    np.testing.assert_array_equal(problem.label_N, label[kept])
    assert problem.fold_RN.shape == (1, 45)


@examples(deadline=None, max_examples=30)
@given(st.permutations(["blast", "normal", "band"]), st.integers(0, 2**31))
def test_classes_become_codes_in_the_order_of_their_names(names: list[str], seed: int) -> None:
    label = np.array(names)[np.random.default_rng(seed).permutation(np.arange(30) % 3)]
    problem = make_problem(np.arange(60.0).reshape(30, 2), label, np.arange(30), FitnessConfig(), 0)
    np.testing.assert_array_equal(np.array(sorted(names))[problem.label_N], label)
    assert problem.classes == 3


@pytest.mark.parametrize("label", [["b"] * 4, []])
def test_one_class_is_no_problem_to_solve(label: list[str]) -> None:
    with pytest.raises(ClassError, match="needs two classes"):
        make_problem(
            np.zeros((len(label), 2)), np.array(label, str), np.arange(len(label)), FitnessConfig(), 0
        )
