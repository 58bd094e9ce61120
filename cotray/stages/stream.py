"""Training cells streamed from part files by Ray Data (`train.data=stream`), for more than memory holds.

The order is that of (seed, epoch): pieces of part files in a new order each epoch, then a buffer of
`train.buffer` cells that is drawn from. One worker sees every cell once an epoch, several none twice; all
have as many steps, known beforehand. A killed training begins its epoch again with the order that it had.

Exact: a run repeated or continued with as many workers sees the same batches, as long as Ray Data hands its
blocks on in order, which it is asked to (`preserve_order`). Another number of workers, another buffer, or
`cached`, is another order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data
from numpy.typing import NDArray
from ray.train import DataConfig

from cotray.fitting.job import Arrays, CachedFeed, Job, Pieces, in_pieces
from cotray.learning import Batch, derive_seed
from cotray.stages.cluster import cpus
from cotray.stages.pieces import Piece, Reader
from cotray.storage import ROW_GROUP

TASK = 4
"""Pieces that a task reads: about a quarter of a thousand cells, so that Ray's own work is little."""
AHEAD = 4
"""Blocks (what a task reads) in Ray's object store for each reader and each training worker."""


@dataclass(frozen=True)
class Stream:
    """What is streamed. Cheap to send: a few bytes a cell."""

    pieces: Sequence[Piece]
    seed: int
    side: int
    """To which cells are resized."""
    buffer: int
    """Cells that a worker holds to draw from."""

    @property
    def items(self) -> int:
        """Cells of an epoch."""
        return len(self.label_N)

    @property
    def label_N(self) -> NDArray[np.int64]:
        """All labels, pieces one after the other."""
        return np.concatenate([piece.label_N for piece in self.pieces] or [np.zeros(0, np.int64)])

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Of the pieces."""
        return np.random.default_rng(derive_seed(self.seed, epoch, 8)).permutation(len(self.pieces))

    def datasets(self, board: Any) -> dict[str, Any]:
        """For Ray Train. ``board`` knows the epoch's order: the same data set is read anew in each.

        Its tasks ask for no CPU: where training workers hold them all, they would wait for ever.
        """
        places = np.array_split(np.arange(len(self.pieces)), math.ceil(len(self.pieces) / TASK))
        blocks = ray.data.from_pandas([pd.DataFrame({"place": some}) for some in places])
        # Tasks without CPUs of their own are not counted by Ray: it would start a process for each.
        pool = ray.data.TaskPoolStrategy(size=readers())
        read = Reader(self.pieces, board, self.side)
        return {"train": blocks.map_batches(read, batch_size=None, num_cpus=0, compute=pool)}

    def options(self, world: int) -> DataConfig:
        """For Ray Train: blocks reach workers in their order, whichever was read first, and no more of them
        lie in Ray's object store than are soon asked for."""
        block = TASK * ROW_GROUP * self.side**2 * 3
        limits = ray.data.ExecutionResources(object_store_memory=AHEAD * (readers() + world) * block)
        options = ray.data.ExecutionOptions(preserve_order=True, resource_limits=limits)
        return DataConfig(execution_options=options, enable_shard_locality=False)


def readers() -> int:
    """Tasks that read at the same time."""
    return max(1, cpus() // 2)


class StreamFeed:
    """One rank's batches of a stream; validation lies in memory."""

    def __init__(self, job: Job, stream: Stream, valid: Arrays, board: Any, rank: int, world: int) -> None:
        self.job, self.stream, self.board, self.rank = job, stream, board, rank
        self.held = CachedFeed(job, {}, valid)
        self.share = stream.items // world  # Ray Data leaves the rest out, so that all have as many
        self.size = max(2, job.config.batch_size * job.config.accumulate // world)
        self.pieces = max(1, min(job.config.accumulate, self.size // 2))
        whole, rest = divmod(self.share, self.size)
        self.steps = max(1, whole + (rest > 1))

    def train(self, epoch: int) -> Iterator[Pieces]:
        """Batches of an epoch. A last batch too small to norm is left out."""
        from ray.train import get_dataset_shard

        if self.rank == 0:
            # No rank is given a cell before rank 0 asks for some.
            ray.get(self.board.begin.remote(self.stream.order(epoch)))
        batches = get_dataset_shard("train").iter_torch_batches(
            batch_size=self.size,
            device="cpu",
            local_shuffle_buffer_size=max(self.stream.buffer, self.size),
            local_shuffle_seed=derive_seed(self.job.seed, epoch, 9, self.rank),
        )
        for number, batch in enumerate(batches):
            if number < self.steps:
                yield in_pieces(batch, self.pieces)

    def valid(self) -> Iterator[Batch]:
        """Validation batches."""
        return self.held.valid()
