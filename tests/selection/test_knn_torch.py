"""The k-NN engine for GPUs against the one for CPUs: equal to the last bit, on whatever device there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from judging import SCHEMES, coarse, settings, some_masks, toy

from cotray.selection.knn import KnnFitness
from cotray.selection.knn_torch import LEAST, TorchKnnFitness
from cotray.selection.problem import TRAIN, Problem


@examples(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    scheme=st.sampled_from(sorted(SCHEMES)),
    k=st.sampled_from([1, 2, 5, 8, 1000]),
    classes=st.integers(2, 4),
    ties=st.booleans(),
    share=st.floats(0.02, 1),
)
def test_it_is_the_engine_for_cpus(
    seed: int, scheme: str, k: int, classes: int, ties: bool, share: float
) -> None:
    cfg = settings("knn-torch", k=k, **SCHEMES[scheme])
    problem = toy(cfg, seed % 11, classes)
    problem = coarse(problem, steps=1) if ties else problem
    masks = some_masks(5, seed=seed, share=share)
    one, other = TorchKnnFitness(problem, cfg), KnnFitness(problem, cfg)
    np.testing.assert_array_equal(one(masks), other(masks))
    for mask_D in masks[:2]:
        for found, expected in zip(one.answers(mask_D), other.answers(mask_D), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cache_mb", [0, 0.05, 1, 3])
def test_batches_of_masks_and_of_queries(cache_mb: float) -> None:
    """From a part of one mask's queries at a time to all masks at once."""
    cfg = settings("knn-torch", cache_mb=cache_mb, **SCHEMES["repeats"])
    problem = coarse(toy(cfg, cells=3 * LEAST + 7))
    masks = some_masks(9)
    np.testing.assert_array_equal(TorchKnnFitness(problem, cfg)(masks), KnnFitness(problem, cfg)(masks))


@pytest.mark.parametrize("kind", [KnnFitness, TorchKnnFitness])
def test_large_distances_are_told_apart_to_the_last_unit(kind: type[KnnFitness]) -> None:
    """40000^2 + 1 against 40000^2: equal in single precision, where the lower row would come first."""
    feat = np.array([[0, 0], [40000, 1], [40000, 0]], np.float32)
    problem = Problem(feat, np.array([1, 0, 1]), np.array([[0, TRAIN, TRAIN]], np.int32))
    fitness = kind(problem, settings("knn", k=1))
    assert fitness.resolution == 1
    called, share = fitness.answers(np.ones(2, bool))
    assert (called[0, 0], share[0, 0]) == (1, 1.0)
