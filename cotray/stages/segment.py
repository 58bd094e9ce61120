"""Segment: train LeuSAM, or a rival (on the dataset's masks, else on phantoms); find and cut every cell."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from cotray import manifest
from cotray.config import Config
from cotray.data.decode import encode_png
from cotray.errors import EmptyDatasetError
from cotray.imaging.masks import decode_rle, encode_rle, iou, own_cell
from cotray.predictor import Cell, build_segmenter, cut_cells
from cotray.preparation import carried
from cotray.runs import StageResult
from cotray.segmentation.registry import SEGMENTERS
from cotray.stages.base import Stage, StageRun
from cotray.stages.cluster import use_gpu
from cotray.stages.images import Images, open_images
from cotray.stages.ingest import single_cell
from cotray.stages.parts import Plan, read_parts, run_parts
from cotray.stages.segment_start import require_start, start_mark
from cotray.stages.segment_training import train_segmenter


def run(config: Config, at: StageRun) -> StageResult:
    """Train the segmenter on masks of the training split, then cut the cells of every image.

    Raises EmptyDatasetError where no image has a cell; SourceChangedError where a file that ingest kept a
    reference to is not what it was; WeightsError, TrainingError from training.
    """
    ingest = at.input("ingest")
    config = carried(config, ingest)
    images = ingest.read_parquet("manifest.parquet")
    parts = at.run.need("ingest").result.counts["parts"]
    source = open_images(ingest)
    weights, learned = train_segmenter(config, at, images, source, parts)
    device = "cuda" if use_gpu(config.compute) else "cpu"
    work = functools.partial(_Cutter, config, weights, single_cell(config), source, device)
    plan = Plan("cells", work, _kept(images, parts), at.folder / "cells", actors=True)
    run_parts(plan, config.compute, at)
    cells = _with_split(read_parts(at.folder / "cells", parts), images)
    if not len(cells):
        raise EmptyDatasetError(
            "No cell was found in any image.", cure="Try --set roi.min_area=0.001, or look at the images."
        )
    at.folder.write_parquet("manifest.parquet", manifest.check(cells))
    without = sorted(set(images["id"].to_pylist()) - set(cells["image_id"].to_pylist()))
    at.folder.write_json("no_cell.json", without)
    agreement = mask_agreement(cells, images, source, parts, single_cell(config))
    return _result(config, images, cells, without, agreement, learned)


# ---- cutting ---------------------------------------------------------------------------------------


class _Cutter:
    """Holds LeuSAM in a Ray actor; cuts the cells of one part of images."""

    def __init__(
        self, config: Config, weights: dict[str, Any], single: bool, images: Images, device: str
    ) -> None:
        self.config, self.single, self.images = config, single, images
        self.segmenter = build_segmenter(config, weights, device)

    def __call__(self, part: int, kept: set[str]) -> pa.Table:
        rows = self.images.rows(part, ("image",))
        return manifest.table(cell for row in rows if row["id"] in kept for cell in self._cells(row))

    def _cells(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        cells = cut_cells(self.images.rgb(row), self.segmenter, self.config, single=self.single)
        return [_cell_row(row, number, cell) for number, cell in enumerate(cells)]


def _cell_row(row: dict[str, Any], number: int, cell: Cell) -> dict[str, Any]:
    keep = ("source", "label", "class_name", "subject", "width", "height")
    return {
        **{name: row[name] for name in keep},
        "id": f"{row['id']}#{number}",
        "image_id": row["id"],
        "status": "used",
        "box": list(cell.box),
        "mask_rle": encode_rle(cell.mask),
        "score": cell.score,
        "image": encode_png(cell.image),
    }


def _kept(images: pa.Table, parts: int) -> list[set[str]]:
    """Ids of the used images of each part."""
    kept: list[set[str]] = [set() for _ in range(parts)]
    for name, part in zip(images["id"].to_pylist(), images["part"].to_pylist(), strict=True):
        kept[part].add(name)
    return kept


def _with_split(cells: pa.Table, images: pa.Table) -> pa.Table:
    """Cells take group and split from their image."""
    for column in ("group", "split"):
        of = dict(zip(images["id"].to_pylist(), images[column].to_pylist(), strict=True))
        cells = manifest.assign(cells, column, [of[i] for i in cells["image_id"].to_pylist()])
    return cells


def mask_agreement(
    cells: pa.Table, images: pa.Table, source: Images, parts: int, single: bool
) -> list[float]:
    """IoU of the segmenter's mask with the true one, for test images that have one cell and a true mask."""
    test = set(manifest.where(images, split="test")["id"].to_pylist())
    rle = {
        row["image_id"]: row
        for row in cells.select(["image_id", "mask_rle", "width", "height"]).to_pylist()
        if row["image_id"] in test
    }
    found: list[float] = []
    for part in range(parts):
        for row in source.rows(part, ("mask",)):
            cell = rle.get(row["id"])
            mask = source.mask(row) if cell else None
            if cell is not None and mask is not None:
                mask = own_cell(mask) if single else mask
                found.append(iou(decode_rle(cell["mask_rle"], cell["height"], cell["width"]), mask))
    return found


def _result(
    config: Config,
    images: pa.Table,
    cells: pa.Table,
    without: list[str],
    agreement: list[float],
    learned: str,
) -> StageResult:
    counts = {"images": len(images), "cells": len(cells), "images_without_cell": len(without)}
    metrics = {"cells_per_image": len(cells) / max(1, len(images))}
    if agreement:
        metrics["test_mask_iou"] = float(np.mean(agreement))
    kind = SEGMENTERS[config.segment.model]
    notes = [learned]
    if without:
        notes.append(f"{len(without)} images without a cell: no_cell.json")
    files = {"manifest": "manifest.parquet", "no_cell": "no_cell.json"}
    if kind.build_net is not None:
        files["weights"] = f"{config.segment.model}.safetensors"
    return StageResult(counts, metrics, files, notes)


STAGE = Stage(
    name="segment",
    summary="train LeuSAM; find, segment and cut every cell",
    version=3,
    sections=("roi", "segment"),
    needs=("ingest",),
    run=run,
    extra=start_mark,
    check=require_start,
)
