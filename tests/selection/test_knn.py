"""The incremental k-NN engine against distances and votes written out, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from judging import SCHEMES, coarse, error, held_out, settings, some_masks, toy
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from cotray.selection.knn import CLOSE, LARGE, KnnFitness, resolution
from cotray.selection.problem import Problem
from cotray.selection.transfer import Masks

Codes, Values = NDArray[np.int64], NDArray[np.float64]
WIDE = 90
"""Features: more than can be added one by one, so that whole products are made too."""


def by_hand(problem: Problem, mask_D: Masks, k: int) -> tuple[Codes, Values]:
    """Rounded features, all distances, a stable sort, a vote: class and share for the true one, (R, N)."""
    grid = np.rint(problem.feat_ND * np.float64(resolution(problem.feat_ND))).astype(np.int64)[:, mask_D]
    called = np.full(problem.fold_RN.shape, -1, np.int64)
    share = np.zeros(problem.fold_RN.shape)
    for repeat, fold_N in enumerate(problem.fold_RN):
        for i in np.flatnonzero(fold_N >= 0):
            others = np.flatnonzero(fold_N != fold_N[i])
            away = ((grid[others] - grid[i]) ** 2).sum(axis=1)
            near = others[np.argsort(away, kind="stable")[:k]]  # of equals the lower row
            votes = np.bincount(problem.label_N[near], minlength=problem.classes)
            called[repeat, i] = votes.argmax()  # of equals the lower class
            share[repeat, i] = votes[problem.label_N[i]] / len(near)
    return called, share


def assert_by_hand(fitness: KnnFitness, problem: Problem, masks: Masks) -> None:
    for mask_D in masks:
        called, share = by_hand(problem, mask_D, fitness.cfg.k)
        found = fitness.answers(mask_D)
        np.testing.assert_array_equal(found[0], called[:, fitness.query_Q])
        np.testing.assert_array_equal(found[1], share[:, fitness.query_Q])
        expected = [error(problem.label_N, c, s, fitness.cfg) for c, s in zip(called, share, strict=True)]
        np.testing.assert_allclose(fitness.errors(mask_D[None])[0], expected, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("k", "classes"), [(1, 2), (4, 2), (5, 3), (6, 4)])
def test_answers_are_those_written_out(scheme: str, k: int, classes: int) -> None:
    cfg = settings("knn", k=k, **SCHEMES[scheme])
    problem = toy(cfg, seed=k, classes=classes)
    assert_by_hand(KnnFitness(problem, cfg), problem, some_masks(4))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("k", [1, 4, 7])
def test_equal_distances_and_votes_go_to_the_lower_row_and_class(scheme: str, k: int) -> None:
    cfg = settings("knn", k=k, **SCHEMES[scheme])
    problem = coarse(toy(cfg, seed=k, classes=3), steps=1)
    masks = some_masks(6, share=0.1)
    near = np.rint(problem.feat_ND[:, masks[0]]).astype(int)
    away = ((near[:, None] - near[None]) ** 2).sum(axis=2)
    assert len(np.unique(away)) < 30  # there are ties
    assert_by_hand(KnnFitness(problem, cfg), problem, masks)


def test_more_neighbours_than_there_are_others() -> None:
    cfg = settings("knn", k=1000, **SCHEMES["repeats"])
    problem = toy(cfg, classes=3)
    assert_by_hand(KnnFitness(problem, cfg), problem, some_masks(3))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("k", "soft"), [(1, 0.0), (5, 0.5), (7, 1.0)])
def test_where_no_distances_are_equal_it_is_scikit_learns(scheme: str, k: int, soft: float) -> None:
    cfg = settings("knn", k=k, soft=soft, **SCHEMES[scheme])
    problem = toy(cfg, seed=k)
    fitness = KnnFitness(problem, cfg)
    grid = np.rint(problem.feat_ND * np.float64(fitness.resolution))

    def ask(learned: Values, label: Codes, asked: Values) -> tuple[Codes, Values]:
        away = ((asked[:, None] - learned[None]) ** 2).sum(axis=2)
        assert (np.diff(np.sort(away, axis=1)[:, : k + 1]) > 0).all()
        model = KNeighborsClassifier(k, algorithm="brute").fit(learned, label)
        return model.predict(asked), model.predict_proba(asked)

    whole = Problem(grid.astype(np.float32), problem.label_N, problem.fold_RN)
    for mask_D in some_masks(3, share=0.6):
        called, share = held_out(whole, mask_D, ask)
        found = fitness.answers(mask_D)
        np.testing.assert_array_equal(found[0], called[:, fitness.query_Q])
        np.testing.assert_allclose(found[1], share[:, fitness.query_Q], atol=1e-12)


# -- exactness: whatever was seen before, a mask has the value that it has from scratch -----------------


def walk(seed: int, steps: int) -> Masks:
    """Masks such as searches ask: small steps, jumps, returns; sparse, dense, and all features."""
    rng = np.random.default_rng(seed)
    masks = [rng.uniform(size=WIDE) < rng.uniform(0.02, 0.9)]
    for _ in range(steps):
        kind, mask = rng.integers(5), masks[rng.integers(len(masks))].copy()
        if kind == 0:
            mask = rng.uniform(size=WIDE) < rng.uniform(0.02, 0.9)
        elif kind == 1:
            mask[:] = True
        elif kind < 4:
            most = {2: CLOSE, 3: LARGE}[int(kind)]
            mask[rng.permutation(WIDE)[: rng.integers(1, most + 2)]] ^= True
        masks.append(mask)
    found = np.stack(masks)
    found[~found.any(axis=1), 0] = True
    return found


@examples(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    order=st.randoms(use_true_random=False),
    anchors=st.sampled_from([0, 1, 2, 3, 1000]),
    scheme=st.sampled_from(sorted(SCHEMES)),
    ties=st.booleans(),
)
def test_the_past_decides_nothing(
    seed: int, order: st.DataObject, anchors: int, scheme: str, ties: bool
) -> None:
    cells = 40
    cfg = settings("knn", k=3, cache_mb=anchors * 4 * cells**2 / 2**20, **SCHEMES[scheme])
    problem = toy(cfg, seed % 7, classes=2 + seed % 2, cells=cells, width=WIDE)
    problem = coarse(problem) if ties else problem
    masks = walk(seed, 12)
    fresh = np.stack([KnnFitness(problem, cfg).errors(mask[None])[0] for mask in masks])
    turn = list(range(len(masks))) * 2
    order.shuffle(turn)  # type: ignore[attr-defined]
    used = KnnFitness(problem, cfg)
    np.testing.assert_array_equal(np.stack([used.errors(masks[[i]])[0] for i in turn]), fresh[turn])
    np.testing.assert_array_equal(used.errors(masks), fresh)


def test_a_long_walk_ends_where_it_would_begin() -> None:
    cfg = settings("knn", cache_mb=0.3)
    problem = toy(cfg, cells=60, width=WIDE)
    fitness, masks = KnnFitness(problem, cfg), walk(5, 400)
    fitness.errors(masks)
    assert_by_hand(fitness, problem, masks[-3:])


# -- numbers --------------------------------------------------------------------------------------------


@examples(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(1, 300),
    scale=st.floats(1e-3, 1e3),
    tail=st.sampled_from([1.0, 2.0, 30.0]),
)
def test_no_distance_exceeds_32_bits_and_none_is_needlessly_rough(
    seed: int, width: int, scale: float, tail: float
) -> None:
    rng = np.random.default_rng(seed)
    feat = (rng.standard_t(tail, (30, width)) * scale).clip(-1e4, 1e4).astype(np.float32)
    feat[:2] = feat.min(axis=0), feat.max(axis=0)  # the farthest that two samples can be apart
    steps = resolution(feat)
    farthest = [
        ((np.rint(feat[0] * np.float64(s)) - np.rint(feat[1] * np.float64(s))) ** 2).sum()
        for s in (steps, 2 * steps)
    ]
    if steps > 1:
        assert farthest[0] < 2**31 - 1 < farthest[1] * 1.1


def test_far_outliers_are_still_told_apart_exactly() -> None:
    cfg = settings("knn", k=3, **SCHEMES["repeats"])
    problem = toy(cfg)
    problem.feat_ND[::17] *= 40
    assert_by_hand(KnnFitness(problem, cfg), problem, some_masks(3))


def test_folds_that_are_asked_learn_from_one_another_too() -> None:
    """One repeat with rows that are never asked: the asked folds still learn from each other."""
    cfg = settings("knn", k=3)
    given = toy(cfg)
    fold_1N = np.random.default_rng(0).integers(-1, 3, len(given.label_N)).astype(np.int32)[None]
    problem = Problem(given.feat_ND, given.label_N, fold_1N)
    assert_by_hand(KnnFitness(problem, cfg), problem, some_masks(4))
