"""Pieces of part files that hold training cells, and their reader, which runs in Ray Data's tasks.

Imports nothing heavy (no torch): readers start quickly and stay small. N cells of a piece, S side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from cotray.data.decode import decode_stored
from cotray.errors import RunError
from cotray.imaging.resize import resize_square
from cotray.storage import ROW_GROUP, Folder


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
        images = [decode_stored(data) for data in table.filter(pa.array(self.keep))["image"].to_pylist()]
        return resize_square(np.stack(images), side)


def pieces_of(
    folder: Folder,
    rows: pa.Table,
    label_N: NDArray[np.int64],
    keep_N: NDArray[np.bool_],
    files: Mapping[int, str],
) -> list[Piece]:
    """Pieces of the files that a manifest's rows lie in, if any cell is kept; ``files`` by part number."""
    part_N = rows["part"].to_numpy()
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
class Reader:
    """Reads the pieces at some places of the epoch's order, which the board knows."""

    pieces: Sequence[Piece]
    board: Any
    side: int

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Rows of place -> rows of image and label. Raises RunError."""
        order = ray.get(self.board.order.remote(batch["place"]))
        some = [self.pieces[number] for number in order]
        return {
            "image": np.concatenate([piece.read(self.side) for piece in some]),
            "label": np.concatenate([piece.label_N for piece in some]),
        }
