"""What is trained, on what, and how long; the batches of an epoch.

The order of items depends on (seed, epoch) alone and a rank takes its share of each batch, so a continued run
repeats what an unbroken one would have done.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cotray.config import TrainConfig
from cotray.learning import Batch, Learner, Weights, derive_seed

Arrays = Mapping[str, Any]
"""Arrays of items by name; or what gives some of an array's rows when it is asked (StoredRows)."""
Pieces = Sequence[Batch]
"""A batch, in as many pieces as `train.accumulate` makes of it."""


@dataclass(frozen=True)
class Job:
    """A model to train: how to build its learner, on what, and how long."""

    name: str
    build: Callable[[], Learner]
    """Picklable and deterministic: every worker and every resumed run calls it."""
    train: Arrays
    """Arrays of equal first length; a batch is the same slice of each."""
    valid: Arrays
    """Likewise; may be empty (length 0): then the training loss decides which epoch is best."""
    config: TrainConfig
    seed: int
    finish: Callable[[Weights], Weights] | None = None
    """Makes what is kept of the best weights, where the learner trains only a part of its networks."""
    preview_every: int = 0
    """Epochs between the learner's pictures (and after the first and last); 0 = none."""
    streamed: int = 0
    """Training items that come from elsewhere than ``train``."""


class Feed(Protocol):
    """Where one rank's batches come from."""

    steps: int
    """Optimizer steps of an epoch."""

    def train(self, epoch: int) -> Iterator[Pieces]:
        """This rank's share of each batch of an epoch, in an order of its own."""

    def valid(self) -> Iterator[Batch]:
        """The whole validation split in order; nothing where there is none."""


class CachedFeed:
    """Batches of arrays that lie in memory (or give their rows when asked)."""

    def __init__(self, job: Job, train: Arrays, valid: Arrays, rank: int = 0, world: int = 1) -> None:
        self.job, self.arrays, self.held, self.rank, self.world = job, train, valid, rank, world
        self.steps = sum(1 for _ in self._rows(0))

    def train(self, epoch: int) -> Iterator[Pieces]:
        """Batches of an epoch."""
        for pieces in self._rows(epoch):
            yield [take(self.arrays, piece) for piece in pieces]

    def valid(self) -> Iterator[Batch]:
        """Validation batches."""
        n, size = length(self.held), self.job.config.batch_size
        for start in range(0, n, size):
            yield take(self.held, np.arange(start, min(start + size, n)))

    def _rows(self, epoch: int) -> Iterator[list[NDArray[np.int64]]]:
        """A last batch too small to norm is left out.

        A batch comes in at most ``accumulate`` pieces of ``batch_size`` items over all ranks, as many for
        every rank: each ends with an exchange of gradients.
        """
        order, config = self._order(epoch), self.job.config
        size = max(config.batch_size * config.accumulate, 2 * self.world)
        for start in range(0, len(order), size):
            whole = order[start : start + size]
            if start and len(whole) < 2 * self.world:
                return
            most = min(math.ceil(len(whole) / config.batch_size), len(whole) // (2 * self.world))
            count = max(1, min(config.accumulate, most))
            yield [piece[self.rank :: self.world] for piece in np.array_split(whole, count)]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(derive_seed(self.job.seed, epoch, 7))
        order = rng.permutation(length(self.arrays))
        if self.job.config.classes != "sample" or "label" not in self.arrays:
            return order
        return balanced(order, np.asarray(self.arrays["label"])[order], rng)


def balanced(
    order_N: NDArray[np.int64], label_N: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """As many items, each class as often: some of a larger class, a smaller one's repeatedly."""
    classes = np.unique(label_N)
    share = math.ceil(len(order_N) / len(classes))
    drawn = [np.resize(order_N[label_N == kind], share) for kind in classes]  # repeats in order: evenly often
    return rng.permutation(np.concatenate(drawn))[: len(order_N)]


def take(arrays: Arrays, index: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """Some items as tensors."""
    return {key: torch.from_numpy(values[index]) for key, values in arrays.items()}


def in_pieces(batch: Batch, count: int) -> Pieces:
    """A batch in at most ``count`` pieces of two items at least."""
    items = len(next(iter(batch.values())))
    count = max(1, min(count, items // 2))
    split = {key: tensor.tensor_split(count) for key, tensor in batch.items()}
    return [{key: parts[number] for key, parts in split.items()} for number in range(count)]


def length(arrays: Arrays) -> int:
    """Items in a split; 0 where there is none."""
    return len(next(iter(arrays.values()))) if arrays else 0


def within_limit(job: Job) -> Job:
    """The job with as many epochs as ``max_steps`` leaves, at least one."""
    config = job.config
    if config.max_steps is None:
        return job
    steps = max(1, math.ceil((job.streamed or length(job.train)) / (config.batch_size * config.accumulate)))
    epochs = max(1, min(config.epochs, round(config.max_steps / steps)))
    return dataclasses.replace(job, config=config.model_copy(update={"epochs": epochs}))
