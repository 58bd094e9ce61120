"""Training cells streamed from part files by Ray Data (`train.data=stream`), for more than memory holds.

The order is that of (seed, epoch): pieces of part files in a new order each epoch, then a buffer of
`train.buffer` cells that is drawn from. One worker sees every cell once an epoch, several none twice; all
have as many steps, known beforehand. A killed training begins its epoch again with the order that it had.

Exact: a run repeated or continued with as many workers sees the same batches, as long as Ray Data hands its
blocks on in order, which it is asked to (`preserve_order`). Another number of workers, another buffer, or
`cached`, is another order. N cells of a piece, S side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.train import DataConfig

from cotray.data.decode import decode_png
from cotray.errors import RunError
from cotray.fitting.job import Arrays, CachedFeed, Job, Pieces, in_pieces
from cotray.imaging.resize import resize_square
from cotray.learning import Batch, derive_seed
from cotray.stages.cells import labels
from cotray.storage import ROW_GROUP, Folder

TASK = 4
"""Pieces that a task reads: about a quarter of a thousand cells, so that Ray's own work is little."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a part file, and which of them are trained on."""

    folder: str
    name: str
    rows: int
    """Of the whole file: another number means that it is not the file of the manifest."""
    start: int
    keep: NDArray[np.bool_]
    label_N: NDArray[np.int64]
    """Of those kept."""

    def read(self, side: int) -> NDArray[np.uint8]:
        """(N, S, S, 3) the cells that are kept. Raises RunError."""
        table, there = Folder(self.folder).read_rows(
            self.name, self.start, self.start + len(self.keep), ["image"]
        )
        if there != self.rows:
            raise RunError(
                f"This file has {there} cells, its manifest {self.rows}.",
                where=f"{self.folder}/{self.name}",
                cure="Redo the stage that wrote it with --force.",
            )
        images = [decode_png(data) for data in table.filter(pa.array(self.keep))["image"].to_pylist()]
        return resize_square(np.stack(images), side)


def pieces_of(
    folder: Folder, rows: pa.Table, keep_N: NDArray[np.bool_], files: Mapping[int, str]
) -> list[Piece]:
    """Pieces of the files that a manifest's rows lie in, if any cell is kept; ``files`` by part number."""
    part_N, label_N = rows["part"].to_numpy(), labels(rows)
    found = []
    for part in np.unique(part_N):
        inside = np.flatnonzero(part_N == part)
        for start in range(0, len(inside), ROW_GROUP):
            some = inside[start : start + ROW_GROUP]
            keep = keep_N[some]
            if keep.any():
                known = (folder.uri, files[int(part)], len(inside), start)
                found.append(Piece(*known, keep, label_N[some][keep]))
    return found


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
        """For Ray Train. ``board`` knows the epoch: the same data set is read anew in each.

        Its tasks ask for no CPU: where training workers hold them all, they would wait for ever.
        """
        places = np.array_split(np.arange(len(self.pieces)), math.ceil(len(self.pieces) / TASK))
        blocks = ray.data.from_pandas([pd.DataFrame({"place": some}) for some in places])

        def read(batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            order = self.order(ray.get(board.epoch.remote()))
            some = [self.pieces[order[place]] for place in batch["place"]]
            return {
                "image": np.concatenate([piece.read(self.side) for piece in some]),
                "label": np.concatenate([piece.label_N for piece in some]),
            }

        return {"train": blocks.map_batches(read, batch_size=None, num_cpus=0)}


def in_order() -> DataConfig:
    """Blocks reach workers in their order, whichever was read first."""
    return DataConfig(
        execution_options=ray.data.ExecutionOptions(preserve_order=True), enable_shard_locality=False
    )


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
            ray.get(self.board.begin.remote(epoch))  # no rank is given a cell before rank 0 asks for some
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
