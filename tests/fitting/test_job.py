from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotray.config import TrainConfig
from cotray.fitting.job import CachedFeed, Job, balanced, within_limit
from cotray.learning import Learner


def never() -> Learner:
    raise AssertionError("a feed builds no learner")


def job(n: int, **settings: object) -> Job:
    config = TrainConfig().model_copy(update=settings)
    label = (np.arange(n) % 10 == 0).astype(np.int64)  # one in ten
    arrays = {"number": np.arange(n), "label": label}
    return Job("toy", never, arrays, {"number": np.arange(7)}, config, seed=3)


def rows(made: Job, epoch: int, rank: int = 0, world: int = 1) -> list[list[list[int]]]:
    feed = CachedFeed(made, made.train, made.valid, rank, world)
    return [[piece["number"].tolist() for piece in pieces] for pieces in feed.train(epoch)]


@given(st.integers(2, 90), st.integers(1, 20), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_ranks_share_every_batch_and_no_item_comes_twice(
    n: int, batch: int, accumulate: int, world: int, epoch: int
) -> None:
    made = job(max(n, 2 * world), batch_size=batch, accumulate=accumulate)
    shares = [rows(made, epoch, rank, world) for rank in range(world)]
    flat = sorted(item for share in shares for step in share for piece in step for item in piece)
    n = max(n, 2 * world)
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(n))
    assert n - len(flat) < 2 * world  # only a last batch too small to norm is left out
    for steps in zip(*shares, strict=True):  # as many steps and pieces for every rank
        assert len({len(step) for step in steps}) == 1
        assert all(piece for step in steps for piece in step)


def test_order_follows_seed_and_epoch_alone() -> None:
    made = job(50, batch_size=8)
    assert rows(made, 1) == rows(made, 1)
    assert rows(made, 1) != rows(made, 2)
    assert rows(dataclasses.replace(made, seed=4), 1) != rows(made, 1)


def test_validation_is_whole_and_in_order() -> None:
    made = job(20, batch_size=3)
    feed = CachedFeed(made, made.train, made.valid)
    assert [batch["number"].tolist() for batch in feed.valid()] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(CachedFeed(made, made.train, {}).valid()) == []


def test_sampling_gives_both_classes_the_same_say() -> None:
    made = job(200, batch_size=16, classes="sample")
    seen = np.array([item for step in rows(made, 0) for piece in step for item in piece])
    assert len(seen) == 200
    assert np.bincount(seen % 10 == 0).tolist() == [100, 100]
    rare = np.bincount(seen[seen % 10 == 0], minlength=200)[::10]
    assert rare.tolist() == [5] * 20  # evenly often
    assert np.bincount(seen[seen % 10 != 0]).max() == 1
    plain = np.array([i for step in rows(job(200, batch_size=16), 0) for piece in step for i in piece])
    assert sorted(plain.tolist()) == list(range(200))


@given(st.lists(st.integers(0, 2), min_size=3, max_size=40), st.integers(0, 9))
def test_balanced_is_as_long_and_as_even_as_can_be(labels: list[int], seed: int) -> None:
    label = np.array(labels)
    drawn = label[balanced(np.arange(len(label)), label, np.random.default_rng(seed))]
    counts = np.bincount(drawn, minlength=3)[np.unique(label)]
    assert len(drawn) == len(label)
    assert counts.max() <= np.ceil(len(label) / len(counts))


@pytest.mark.parametrize(("most", "epochs"), [(None, 10), (1, 1), (14, 2), (1000, 10)])
def test_steps_bound_epochs(most: int | None, epochs: int) -> None:
    made = job(100, batch_size=16, max_steps=most)  # seven steps an epoch
    assert within_limit(made).config.epochs == epochs
