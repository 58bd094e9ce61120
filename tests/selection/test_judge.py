"""Outer figures against scikit-learn's k-NN, fitted on the one side and asked on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import GOOD, Values, table
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cotray.config import FitnessConfig
from cotray.errors import ClassError
from cotray.selection.judge import Judgement, compare_asked, filters, judge
from cotray.selection.problem import TRAIN, Table, ask, outer_problem, subsample, table_problem
from cotray.selection.scores import anova_f
from cotray.selection.transfer import Masks

DIM = 16


def sides(seed: int = 0) -> tuple[Table, Table]:
    """Groups of six inside and others outside; continuous, so that no two distances are equal."""
    whole = table(seed, samples=144, dim=DIM)
    feat = whole.feat_ND * np.linspace(0.5, 40, DIM) + np.linspace(-3, 900, DIM)
    whole = Table(feat, whole.label_N, whole.group_N)
    away = np.isin(whole.group_N, np.unique(whole.group_N)[::3])
    return whole.rows(~away), whole.rows(away)


def knn(k: int) -> Pipeline:
    """Learned from the inside alone: its mean, its deviation, its samples."""
    return make_pipeline(StandardScaler(), KNeighborsClassifier(k))


def error_of(truth: NDArray[Any], called: NDArray[Any], metric: str) -> float:
    if metric == "plain":
        return float((truth != called).mean())
    return 1.0 - float(balanced_accuracy_score(truth, called))


def outer_by_hand(mask: Masks, inside: Table, outside: Table, cfg: FitnessConfig) -> float:
    model = knn(cfg.k).fit(inside.feat_ND[:, mask], inside.label_N)
    return error_of(outside.label_N, model.predict(outside.feat_ND[:, mask]), cfg.metric)


def inner_by_hand(mask: Masks, inside: Table, cfg: FitnessConfig) -> float:
    """Every group in turn; standardised once, as the search does."""
    feat = StandardScaler().fit_transform(inside.feat_ND[:, mask])
    called = cross_val_predict(
        KNeighborsClassifier(cfg.k), feat, inside.label_N, groups=inside.group_N, cv=LeaveOneGroupOut()
    )
    return error_of(inside.label_N, called, cfg.metric)


def judged(
    inside: Table, outside: Table, mask: Masks | None = None, **fitness: Any
) -> tuple[Judgement, Masks, Values]:
    mask = np.arange(DIM) % 4 == 1 if mask is None else mask
    score = anova_f(inside.feat_ND.astype(np.float32), (inside.label_N == inside.label_N[0]).astype(np.int64))
    cfg = FitnessConfig.model_validate(fitness)
    return judge(mask, score, inside, outside, cfg, 0), mask, score


@pytest.mark.parametrize(("metric", "k", "seed"), [("balanced", 1, 0), ("plain", 5, 1), ("balanced", 7, 2)])
def test_figures_are_scikit_learns(metric: str, k: int, seed: int) -> None:
    """An odd k and two classes: no ties. Soft votes are for searching: errors here are those of calls."""
    inside, outside = sides(seed)
    verdict, mask, score = judged(inside, outside, metric=metric, k=k, soft=0.7)
    cfg = FitnessConfig.model_validate({"metric": metric, "k": k})
    assert verdict.inner_error == pytest.approx(inner_by_hand(mask, inside, cfg))
    assert verdict.outer_error == pytest.approx(outer_by_hand(mask, inside, outside, cfg))
    assert verdict.all_error == pytest.approx(outer_by_hand(np.ones(DIM, bool), inside, outside, cfg))
    assert verdict.gap == pytest.approx(verdict.outer_error - verdict.inner_error)
    order = np.argsort(-score)
    tried = [np.isin(np.arange(DIM), order[:size]) for size in range(1, DIM + 1)]
    worth = [0.99 * inner_by_hand(one, inside, cfg) + 0.01 * one.mean() for one in tried]
    best = tried[int(np.argmin(worth))]
    assert verdict.filter_size == best.sum()
    assert verdict.filter_error == pytest.approx(outer_by_hand(best, inside, outside, cfg))


def test_filters_are_what_selectkbest_would_try() -> None:
    score = np.random.default_rng(0).permutation(1000).astype(float)
    masks = filters(score)
    sizes = masks.sum(axis=1)
    assert sizes[0] == 1 and sizes[-1] == 1000 and (np.diff(sizes) > 0).all() and len(sizes) <= 30
    assert (np.diff(np.log(sizes[sizes > 20])) < 0.3).all()
    for mask, size in zip(masks, sizes, strict=True):
        np.testing.assert_array_equal(mask, score >= 1000 - size)
    assert filters(np.ones(1)).tolist() == [[True]]


def renamed(change: Callable[[NDArray[Any]], NDArray[Any]], *tables: Table) -> list[Table]:
    return [Table(one.feat_ND, change(one.label_N), one.group_N) for one in tables]


def test_what_classes_are_called_does_not_count() -> None:
    inside, outside = sides()
    named = renamed(lambda label: np.array(["a blast", "normal"])[label], inside, outside)
    assert judged(*named)[0] == judged(inside, outside)[0]


def test_classes_that_the_search_never_saw_are_not_asked() -> None:
    inside, outside = sides()
    foreign = Table(outside.feat_ND[:9] * 50, np.full(9, 7), outside.group_N[:9])
    more = Table(
        np.concatenate([foreign.feat_ND, outside.feat_ND]),
        np.concatenate([foreign.label_N, outside.label_N]),
        np.concatenate([foreign.group_N, outside.group_N]),
    )
    assert judged(inside, more)[0].outer_error == judged(inside, outside)[0].outer_error


def test_samples_never_seen_are_learned_nothing_from() -> None:
    """Neither their neighbours nor their scale: each is called as if it were alone."""
    inside, outside = sides(3)
    cfg = FitnessConfig(metric="plain")
    mask = np.arange(DIM) < 9
    alone = [
        judge(mask, np.arange(float(DIM)), inside, outside.rows(np.array([row])), cfg, 0).outer_error
        for row in range(0, len(outside.label_N), 4)
    ]
    some = outside.rows(np.arange(0, len(outside.label_N), 4))
    assert judge(mask, np.arange(float(DIM)), inside, some, cfg, 0).outer_error == np.mean(alone)
    assert 0 < np.mean(alone) < 1


@pytest.mark.parametrize("most", [None, 40])
def test_the_outer_problem_learns_from_all_inside_and_asks_all_outside(most: int | None) -> None:
    inside, outside = sides()
    cfg = FitnessConfig(max_cells=most)
    problem = outer_problem(inside, outside, cfg, 5)
    kept = inside.rows(subsample(inside.label_N, most, 5))
    learned, asked = problem.fold_RN[0] == TRAIN, problem.fold_RN[0] == 0
    assert learned.sum() == len(kept.label_N) <= (most or 144)
    assert asked.sum() == len(outside.label_N)
    assert (learned ^ asked).all() and problem.fold_RN.shape == (1, len(learned))
    np.testing.assert_array_equal(problem.label_N, np.concatenate([kept.label_N, outside.label_N]))
    np.testing.assert_allclose(problem.feat_ND[learned].mean(axis=0), 0, atol=1e-5)
    scaled = StandardScaler().fit(kept.feat_ND).transform(outside.feat_ND)
    np.testing.assert_allclose(problem.feat_ND[asked], scaled, atol=1e-4)


def test_a_feature_that_varies_outside_only_tells_nothing() -> None:
    inside, outside = sides()
    inside.feat_ND[:, 2] = 1.0
    problem = outer_problem(inside, outside, FitnessConfig(), 0)
    assert (problem.feat_ND[:, 2] == 0).all()


def fingerprints(seed: int) -> Table:
    """Every group has its own place and a class by lot: only who knows the group knows the class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(24), 6)
    feat = rng.normal(size=(24, DIM))[group] + 0.05 * rng.normal(size=(144, DIM))
    return Table(feat, rng.permutation(np.arange(24) % 2)[group], group)


def test_the_inner_figure_never_has_a_group_on_both_sides() -> None:
    honest, leaky = [], []
    for seed in range(8):
        fake = fingerprints(seed)
        alone = Table(fake.feat_ND, fake.label_N, np.arange(144))
        honest.append(judged(fake, fake.rows(np.arange(5)))[0].inner_error)
        leaky.append(judged(alone, alone.rows(np.arange(5)))[0].inner_error)
    assert np.mean(honest) > 0.35
    assert np.mean(leaky) < 0.05, "if groups are ignored it shows"


def test_good_features_are_told_from_bad_ones() -> None:
    inside, outside = sides(1)
    good = judged(inside, outside, np.arange(DIM) < GOOD)[0]
    bad = judged(inside, outside, np.arange(DIM) >= GOOD)[0]
    assert good.outer_error < bad.outer_error - 0.2
    assert good.inner_error < bad.inner_error - 0.2
    assert (good.all_error, good.filter_error) == (bad.all_error, bad.filter_error)


@pytest.mark.parametrize(("metric", "k"), [("balanced", 1), ("plain", 5)])
def test_what_is_asked_is_scikit_learns(metric: str, k: int) -> None:
    inside, outside = sides(1)
    cfg = FitnessConfig.model_validate({"metric": metric, "k": k, "soft": 0.7})
    mask = np.arange(DIM) % 4 == 1
    score = np.arange(float(DIM))[::-1]
    found = compare_asked(mask, score, ask(inside, outside), cfg, 0)
    assert found.asked_error == pytest.approx(outer_by_hand(mask, inside, outside, cfg))
    assert found.asked_all_error == pytest.approx(outer_by_hand(np.ones(DIM, bool), inside, outside, cfg))
    by_size = {int(f.sum()): outer_by_hand(f, inside, outside, cfg) for f in filters(score)}
    assert found.asked_filter_error == pytest.approx(min(by_size.values()))
    assert by_size[found.asked_filter_size] == pytest.approx(found.asked_filter_error)


def test_a_table_that_asks_is_the_outer_problem() -> None:
    inside, outside = sides()
    whole, cfg = ask(inside, outside), FitnessConfig()
    for side, given in zip(whole.sides(), (inside, outside), strict=True):
        assert np.array_equal(side.feat_ND, given.feat_ND) and side.asked_N is None
        assert (side.label_N == given.label_N).all() and (side.group_N == given.group_N).all()
    one, other = table_problem(whole, cfg, 3), outer_problem(inside, outside, cfg, 3)
    assert np.array_equal(one.feat_ND, other.feat_ND) and np.array_equal(one.fold_RN, other.fold_RN)
    some = np.arange(0, len(whole.label_N), 3)
    assert whole.asked_N is not None and np.array_equal(
        whole.rows(some).asked_N, whole.asked_N[some]
    )  # rows keep what they are
    assert not len(inside.sides()[1].label_N)  # nothing is asked: every sample has its turn


def test_what_is_asked_must_hold_the_classes_that_are_learned() -> None:
    inside, outside = sides()
    one = outside.rows(outside.label_N == 0)
    with pytest.raises(ClassError, match="none asked is of class 1"):
        table_problem(ask(inside, one), FitnessConfig(), 0)
    with pytest.raises(ClassError, match="1 is learned from"):
        table_problem(ask(inside.rows(inside.label_N == 0), outside), FitnessConfig(), 0)
