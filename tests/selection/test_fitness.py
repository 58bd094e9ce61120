"""What holds for every fitness engine; what each computes is tested beside it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from judging import SCHEMES, WIDTH, error, settings, some_masks, toy
from threadpoolctl import threadpool_limits

from cotray.config import FitnessConfig
from cotray.errors import UnknownNameError
from cotray.selection.engines import ENGINES, make_fitness
from cotray.selection.fitness import Codes, Fitness, Values
from cotray.selection.problem import TRAIN, Problem, make_problem
from cotray.selection.transfer import Masks

EVERY = pytest.mark.parametrize("name", sorted(ENGINES))


def engine(name: str, seed: int = 0, classes: int = 2, **others: object) -> Fitness:
    cfg = settings(name, **others)
    return make_fitness(toy(cfg, seed, classes), cfg)


# -- the registry ---------------------------------------------------------------------------------------


def test_the_settings_name_every_engine() -> None:
    assert set(ENGINES) == set(get_args(FitnessConfig.model_fields["engine"].annotation))


def test_an_unknown_engine_is_refused() -> None:
    cfg = FitnessConfig().model_copy(update={"engine": "knn-touch"})
    with pytest.raises(UnknownNameError, match=r"Did you mean 'knn-torch'\?"):
        make_fitness(toy(FitnessConfig()), cfg)


def test_naming_engines_imports_none_of_them() -> None:
    code = (
        "import sys, cotray.selection.engines\n"
        "print({'torch', 'numba', 'cotray.selection.knn', 'cotray.selection.universal'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- the formula ----------------------------------------------------------------------------------------


class Told(Fitness):
    """Answers that are given, so that only their weighing is left."""

    def errors(self, mask_PD: Masks) -> Values:
        raise AssertionError("not asked")


@examples(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 5),
    soft=st.floats(0, 1),
    metric=st.sampled_from(["plain", "balanced"]),
)
def test_errors_are_means_of_wrong_calls_and_of_shares_given_away(
    seed: int, classes: int, soft: float, metric: str
) -> None:
    rng = np.random.default_rng(seed)
    label = np.append(np.arange(classes), rng.integers(0, classes, 30))
    asked = np.sort(rng.permutation(len(label))[:20])
    called = rng.integers(-1, classes, (3, 20))
    called[:, 0] = 0
    share = rng.uniform(size=(3, 20))
    cfg = FitnessConfig(soft=soft, metric=metric)
    told = Told(
        Problem(np.zeros((len(label), 2), np.float32), label, np.zeros((3, len(label)), np.int32)), cfg
    )
    expected = [error(label[asked], c, g, cfg) for c, g in zip(called, share, strict=True)]
    np.testing.assert_allclose(told.score(called, share, asked), expected, atol=1e-12)


def test_guessing_the_larger_class_buys_nothing_when_balanced() -> None:
    label = np.repeat([0, 1], [90, 10])
    problem = Problem(np.zeros((100, 2), np.float32), label, np.zeros((1, 100), np.int32))
    called, given_share = np.zeros((1, 100), np.int64), (label == 0)[None].astype(float)
    found = {
        metric: Told(problem, FitnessConfig(metric=metric)).score(called, given_share, np.arange(100))[0]
        for metric in ("plain", "balanced")
    }
    assert found == {"plain": pytest.approx(0.1), "balanced": pytest.approx(0.5)}


@EVERY
def test_size_counts_with_the_rest_of_the_weight(name: str) -> None:
    masks = some_masks(3)
    full, alone = engine(name, weight=0.7)(masks), engine(name, weight=1.0)(masks)
    np.testing.assert_allclose(full, 0.7 * alone + 0.3 * masks.mean(axis=1))


@EVERY
def test_a_value_is_the_mean_of_its_repeats(name: str) -> None:
    fitness, masks = engine(name, weight=0.9, **SCHEMES["repeats"]), some_masks(4)
    error_PR = fitness.errors(masks)
    assert error_PR.shape == (4, 3) and len(set(error_PR.ravel().tolist())) > 3
    np.testing.assert_allclose(fitness(masks), 0.9 * error_PR.mean(axis=1) + 0.1 * masks.mean(axis=1))


@EVERY
def test_softness_goes_from_calls_to_shares(name: str) -> None:
    masks = some_masks(4)
    hard, half, soft = (engine(name, soft=s).errors(masks) for s in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (hard + soft) / 2)
    assert (hard != soft).any()


# -- a value belongs to its mask ------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("classes", [2, 3])
def test_batches_pickles_and_the_past_do_not_change_values(name: str, scheme: str, classes: int) -> None:
    fitness = engine(name, classes=classes, **SCHEMES[scheme])
    masks = some_masks(5)
    whole = fitness(masks)
    assert whole.shape == (5,) and whole.dtype == np.float64 and len(set(whole.tolist())) > 3
    np.testing.assert_array_equal(np.concatenate([fitness(m) for m in np.array_split(masks, 3)]), whole)
    np.testing.assert_array_equal(fitness(masks[::-1])[::-1], whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitness))(masks), whole)
    np.testing.assert_array_equal(cloudpickle.loads(cloudpickle.dumps(fitness))(masks), whole)
    np.testing.assert_array_equal(engine(name, classes=classes, **SCHEMES[scheme])(masks), whole)


@EVERY
@pytest.mark.parametrize("cache_mb", [0, 0.02, 0.2])
def test_memory_saves_time_and_changes_nothing(name: str, cache_mb: float) -> None:
    masks = some_masks(30)
    small, large = (engine(name, cache_mb=mb, **SCHEMES["repeats"]) for mb in (cache_mb, 512))
    np.testing.assert_array_equal(small(masks), large(masks))


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_threads_decide_nothing(name: str) -> None:
    """Products large enough for a library to share them out among threads, and then to round otherwise."""
    cfg = settings(name)
    fitness = make_fitness(toy(cfg, cells=600, width=300), cfg)
    masks = some_masks(3, 300, share=0.7)
    with threadpool_limits(1):
        alone = fitness(masks)
    with threadpool_limits(2):
        np.testing.assert_array_equal(fitness(masks), alone)


@EVERY
def test_a_pickle_holds_no_caches(name: str) -> None:
    fitness = engine(name)
    fresh = len(pickle.dumps(fitness))
    fitness(some_masks(40))
    assert len(pickle.dumps(fitness)) == fresh


@EVERY
def test_features_outside_the_mask_do_not_matter(name: str) -> None:
    cfg = settings(name)
    problem = toy(cfg)
    feat = problem.feat_ND.copy()
    feat[:, 6:] = feat[::-1, 6:]
    mask = np.arange(WIDTH)[None] < 6
    one, other = (make_fitness(p, cfg).errors(mask) for p in (problem, replace(problem, feat_ND=feat)))
    np.testing.assert_array_equal(one, other)
    assert make_fitness(problem, cfg).errors(~mask) != one


# -- honesty --------------------------------------------------------------------------------------------


def answers(problem: Problem, cfg: FitnessConfig) -> tuple[Codes, Values]:
    """Class called for each sample, -1 where it is not asked, and share given to its true class: (R, N)."""
    fitness = make_fitness(problem, cfg)
    found = fitness.answers(np.ones(problem.width, bool))  # type: ignore[attr-defined]
    called, share = np.full(problem.fold_RN.shape, -1, np.int64), np.zeros(problem.fold_RN.shape)
    asked = getattr(fitness, "query_Q", slice(None))
    called[:, asked], share[:, asked] = found
    return called, share


@EVERY
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_sample_is_judged_by_its_own_group(name: str, scheme: str) -> None:
    """A double of the sample with a wrong label: in its own group nobody listens to it, elsewhere they do."""
    cfg = settings(name, k=1, **SCHEMES[scheme])
    problem = toy(cfg)
    called, share = answers(problem, cfg)
    mate = (problem.fold_RN[:, :-1] == problem.fold_RN[:, 1:]).all(axis=0)
    right = ((called == problem.label_N) | (called < 0)).all(axis=0) & (called >= 0).any(axis=0)
    sample = int(np.flatnonzero(mate & right[:-1])[0])
    feat, label = problem.feat_ND.copy(), problem.label_N.copy()
    feat[sample + 1], label[sample + 1] = feat[sample], 1 - label[sample]
    doubled = replace(problem, feat_ND=feat, label_N=label)
    elsewhere = problem.fold_RN.copy()
    for fold_N in elsewhere:
        others = [f for f in np.unique(fold_N) if f != fold_N[sample]]
        fold_N[sample + 1] = TRAIN if TRAIN in others else others[0]
    within_called, within = (found[:, sample] for found in answers(doubled, cfg))
    beyond = answers(replace(doubled, fold_RN=elsewhere), cfg)[1][:, sample]
    np.testing.assert_array_equal(within_called, called[:, sample])
    np.testing.assert_allclose(within, share[:, sample], atol=1e-6)
    asked = called[:, sample] >= 0
    assert (beyond[asked] < within[asked] - 1e-3).all()


@EVERY
@pytest.mark.parametrize("classes", [2, 4])
def test_informative_features_are_worth_more_than_noise(name: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(160) % classes
    feat = rng.normal(size=(160, 10))
    feat[:, :3] += 4 * (label[:, None] == np.arange(3)) + 2 * (label[:, None] == 3)
    group = np.array([f"{i // 16}-{i % classes}" for i in range(160)])
    cfg = settings(name, soft=0)
    fitness = make_fitness(make_problem(feat, label, group, cfg, 0), cfg)
    masks = np.zeros((2, 10), bool)
    masks[0, :3], masks[1, 3:6] = True, True
    good, noise = fitness(masks)
    assert good < 0.15 < 0.35 < noise


@EVERY
def test_a_class_that_is_not_learned_is_called_wrongly(name: str) -> None:
    """All of class 2 is one group: whoever is asked of it has never seen it."""
    cfg = settings(name, soft=0, metric="balanced")
    rng = np.random.default_rng(3)
    label = np.repeat([0, 1, 2], [30, 30, 10])
    feat = rng.normal(size=(70, 4)) + 3 * label[:, None]
    fold = np.where(label == 2, 3, np.arange(70) % 3).astype(np.int32)[None]
    problem = Problem(feat.astype(np.float32), label, fold)
    fitness = make_fitness(problem, cfg)
    assert 1 / 3 <= fitness.errors(np.ones((1, 4), bool))[0, 0] < 0.5


@EVERY
def test_a_single_class_to_learn_from_is_always_called(name: str) -> None:
    cfg = settings(name, metric="plain", soft=0)
    label = np.repeat([0, 1], 20)
    fold = np.where(np.arange(40) < 10, TRAIN, 0).astype(np.int32)[None]
    feat = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    fitness = make_fitness(Problem(feat, label, fold), cfg)
    assert fitness.errors(np.ones((1, 3), bool))[0, 0] == pytest.approx(2 / 3)
