"""Fitness engines against scikit-learn's classifiers and plain algebra."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from cotray.config import FitnessConfig
from cotray.errors import TooFewGroupsError
from cotray.selection.fitness import FITNESS, Fitness, inner_folds, standardise, subsample

CELLS, WIDTH = 90, 12


def toy(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]:
    """Unequal classes, unequal scales, a constant feature; groups of five cells."""
    rng = np.random.default_rng(seed)
    group = np.arange(CELLS) // 5
    label = (group % 3 == 0).astype(np.int64)
    feat = rng.normal(size=(CELLS, WIDTH)) * rng.uniform(0.1, 30, WIDTH) + label[:, None] * np.arange(WIDTH)
    feat[:, 3] = 0.1
    return feat.astype(np.float32), label, group.astype(str)


def engine(name: str, seed: int = 0, **settings: object) -> Fitness:
    return FITNESS[name](*toy(seed), FitnessConfig.model_validate(settings), seed)


def some_masks(count: int, seed: int = 1) -> NDArray[np.bool_]:
    masks = np.random.default_rng(seed).uniform(size=(count, WIDTH)) < 0.4
    masks[:, 0] = True
    return masks


def held_out(
    fitness: Fitness, feat: NDArray[np.float64], label: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """scikit-learn's k-NN, fold by fold."""
    called = np.zeros(len(label), bool)
    for fold in np.unique(fitness.fold_N):
        out = fitness.fold_N == fold
        model = KNeighborsClassifier(k, algorithm="brute").fit(feat[~out], label[~out])
        called[out] = model.predict(feat[out]) > 0
    return called


def ridge_held_out(
    fitness: Fitness, feat: NDArray[np.float64], label: NDArray[np.int64], penalty: float
) -> NDArray[np.bool_]:
    """The primal solution: (X'X + penalty I) w = X'(y - mean y), one D x D system per fold."""
    target = 2.0 * label - 1
    score = np.zeros(len(label))
    for fold in np.unique(fitness.fold_N):
        out = fitness.fold_N == fold
        x, mean = feat[~out], target[~out].mean()
        w = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target[~out] - mean))
        score[out] = feat[out] @ w + mean
    return np.asarray(score > 0)


def value(label: NDArray[np.int64], called: NDArray[np.bool_], mask: NDArray[np.bool_], w: float) -> float:
    error = 1 - float(balanced_accuracy_score(label, called))
    return w * error + (1 - w) * float(mask.mean())


@pytest.mark.parametrize(("k", "folds", "seed"), [(1, 3, 0), (4, 2, 1), (5, 3, 2), (7, 5, 0)])
def test_knn_is_scikit_learns(k: int, folds: int, seed: int) -> None:
    feat, label, _ = toy(seed)
    scaled = StandardScaler().fit_transform(feat.astype(float))
    fitness = engine("knn", seed, k=k, folds=folds, weight=0.9)
    masks = some_masks(5, seed)
    expected = [value(label, held_out(fitness, scaled[:, m], label, k), m, 0.9) for m in masks]
    np.testing.assert_allclose(fitness(masks), expected, atol=1e-9)
    assert len(set(expected)) > 1


@pytest.mark.parametrize(("penalty", "seed"), [(0.01, 0), (1.0, 1), (300.0, 2)])
def test_ridge_is_the_primal_solution(penalty: float, seed: int) -> None:
    feat, label, _ = toy(seed)
    scaled = StandardScaler().fit_transform(feat.astype(float))
    fitness = engine("ridge", seed, ridge=penalty)
    masks = some_masks(5, seed)
    expected = [value(label, ridge_held_out(fitness, scaled[:, m], label, penalty), m, 0.99) for m in masks]
    np.testing.assert_allclose(fitness(masks), expected, atol=1e-9)


def test_more_neighbours_than_a_fold_leaves() -> None:
    feat, label, _ = toy(0)
    fitness = engine("knn", k=1000, folds=2)
    least = CELLS - np.bincount(fitness.fold_N).max()
    scaled = StandardScaler().fit_transform(feat.astype(float))
    mask = np.ones(WIDTH, bool)
    expected = value(label, held_out(fitness, scaled, label, int(least)), mask, 0.99)
    assert fitness(mask[None])[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(FITNESS))
def test_informative_features_are_worth_more_than_noise(name: str) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(80) % 2
    feat = rng.normal(size=(80, 10))
    feat[:, :3] += 3 * label[:, None]
    group = np.array([f"{i // 8}-{i % 2}" for i in range(80)])
    fitness = FITNESS[name](feat.astype(np.float32), label, group, FitnessConfig(), 0)
    masks = np.zeros((2, 10), bool)
    masks[0, :3], masks[1, 3:6] = True, True
    good, noise = fitness(masks)
    assert good < 0.1 < 0.3 < noise


@pytest.mark.parametrize("name", sorted(FITNESS))
def test_chunks_and_a_pickle_do_not_change_values(name: str) -> None:
    fitness = engine(name)
    masks = some_masks(7)
    whole = fitness(masks)
    assert whole.shape == (7,) and whole.dtype == np.float64
    np.testing.assert_array_equal(np.concatenate([fitness(m) for m in np.array_split(masks, 3)]), whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitness))(masks), whole)
    np.testing.assert_array_equal(engine(name)(masks), whole)


@pytest.mark.parametrize("name", sorted(FITNESS))
def test_size_counts_with_the_rest_of_the_weight(name: str) -> None:
    mask = some_masks(1)
    full, error = engine(name, weight=0.7)(mask)[0], engine(name, weight=1.0)(mask)[0]
    assert full == pytest.approx(0.7 * error + 0.3 * mask.mean())


@pytest.mark.parametrize("rows", [7, 2000, 4001])
def test_standardised_constants_become_zero(rows: int) -> None:
    rng = np.random.default_rng(0)
    feat = np.full((rows, 5), [3.7, 0.1, -1e6, 0.0, 0.0], np.float32)
    feat[:, 4] = rng.normal(50, 3, rows)
    scaled = standardise(feat)
    assert scaled.dtype == np.float32
    assert not scaled[:, :4].any()
    np.testing.assert_allclose(scaled[:, 4], StandardScaler().fit_transform(feat[:, 4:])[:, 0], atol=1e-3)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_group_is_in_two_folds(folds: int) -> None:
    _, label, group = toy(0)
    fold = inner_folds(label, group, folds, seed=3)
    assert set(fold) == set(range(folds))
    assert all(len(set(fold[group == g])) == 1 for g in np.unique(group))
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
    fitness = engine("knn", max_cells=45)
    assert len(fitness.label_N) == len(fitness.feat_ND) == len(fitness.fold_N) == 45
    assert fitness.label_N.mean() == pytest.approx(1 / 3)
