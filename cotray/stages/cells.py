"""Reading cut cells (real and synthetic) as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.data.decode import decode_stored
from cotray.stages.base import StageRun
from cotray.stages.parts import part_name


@dataclass(frozen=True)
class Cells:
    """Cells of a run with their pixels. N cells, S side."""

    rows: pa.Table
    """Light manifest rows, in order."""
    image_NSS3: NDArray[np.uint8]

    @property
    def label_N(self) -> NDArray[np.int64]:
        """1 malignant, 0 normal, -1 unlabelled."""
        return labels(self.rows)

    def take(self, keep_N: NDArray[np.bool_]) -> Cells:
        """The cells where ``keep_N`` holds."""
        return Cells(self.rows.filter(pa.array(keep_N)), self.image_NSS3[keep_N])

    def __len__(self) -> int:
        return len(self.rows)


def labels(rows: pa.Table) -> NDArray[np.int64]:
    """Labels with -1 for none."""
    return np.asarray(rows["label"].fill_null(-1).to_pylist(), np.int64)


def column(rows: pa.Table, name: str) -> NDArray[np.str_]:
    """A text column as an array ('' for null)."""
    return np.asarray([value or "" for value in rows[name].to_pylist()], dtype=np.str_)


def real_cells(at: StageRun, splits: tuple[str, ...]) -> Cells:
    """Real cells of the given splits, from segment."""
    rows = at.input("segment").read_parquet("manifest.parquet")
    folder = at.run.stage("segment") / "cells"
    return _load(rows, splits, lambda part: folder.read_parquet(part_name(part), ["id", "image"]))


def synthetic_cells(at: StageRun) -> Cells:
    """LeuGAN's cells (all of them belong to train); may be empty."""
    folder = at.input("synthesize")
    rows = folder.read_parquet("manifest.parquet")
    return _load(rows, ("train",), lambda part: folder.read_parquet("cells.parquet", ["id", "image"]))


def _load(rows: pa.Table, splits: tuple[str, ...], read: Callable[[int], pa.Table]) -> Cells:
    keep = np.isin(column(rows, "split"), splits)
    rows = rows.filter(pa.array(keep))
    pixels: dict[str, NDArray[np.uint8]] = {}
    wanted = set(rows["id"].to_pylist())
    for part in sorted(set(rows["part"].to_pylist())):
        table = read(part)
        for name, data in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True):
            if name in wanted:
                pixels[name] = decode_stored(data)
    images = [pixels[name] for name in rows["id"].to_pylist()]
    return Cells(rows, np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8))


def concat(a: Cells, b: Cells) -> Cells:
    """Both, in order."""
    if not len(b):
        return a
    return Cells(pa.concat_tables([a.rows, b.rows]), np.concatenate([a.image_NSS3, b.image_NSS3]))


def class_weight(label_N: NDArray[np.int64]) -> tuple[float, float]:
    """Weights (normal, malignant) that give both classes the same say; mean 1 over the items."""
    counts = np.bincount(label_N, minlength=2)[:2].astype(float)
    weight = counts.sum() / (2.0 * np.maximum(counts, 1.0))
    return float(weight[0]), float(weight[1])


def split_of(cells: Cells, name: str) -> Cells:
    """Labelled cells of one split."""
    return cells.take((column(cells.rows, "split") == name) & (cells.label_N >= 0))
