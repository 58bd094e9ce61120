"""Segment: train LeuSAM, or a rival (on the dataset's masks, else on phantoms); find and cut every cell."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config, SegmentConfig
from cotray.data.decode import decode_png, encode_png
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import EmptyDatasetError, WeightsError
from cotray.imaging.masks import decode_rle, encode_rle, iou, mask_box
from cotray.imaging.roi import find_cells
from cotray.learning import Learner, derive_seed
from cotray.predictor import Cell, build_segmenter, cut_cells, prepare
from cotray.preparation import carried
from cotray.runs import StageResult
from cotray.segmentation.checkpoint import load_sam_checkpoint
from cotray.segmentation.learner import training_windows
from cotray.segmentation.registry import SEGMENTERS
from cotray.stages.base import Stage, StageRun
from cotray.stages.ingest import single_cell
from cotray.stages.parts import Plan, part_name, read_parts, run_parts
from cotray.stages.training import Arrays, Job, fit
from cotray.storage import Folder, absolute

MIN_MASKS = 20
"""Fewer training masks than this and LeuSAM learns from phantoms instead."""


def run(config: Config, at: StageRun) -> StageResult:
    """Train the segmenter on masks of the training split, then cut the cells of every image.

    Raises EmptyDatasetError where no image has a cell; WeightsError, TrainingError from training.
    """
    ingest = at.input("ingest")
    config = carried(config, ingest)
    images = ingest.read_parquet("manifest.parquet")
    parts = at.run.need("ingest").result.counts["parts"]
    weights, origin = train_segmenter(config, at, images, ingest / "images", parts)
    work = functools.partial(_Cutter, config, weights, single_cell(config), ingest / "images")
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
    agreement = mask_agreement(cells, images, ingest / "images", parts)
    return _result(config, images, cells, without, agreement, origin)


def train_segmenter(
    config: Config, at: StageRun, images: pa.Table, folder: Folder, parts: int
) -> tuple[dict[str, Any], str]:
    """(weights, which masks it learned from) of `segment.model`; no weights where nothing is learned."""
    kind = SEGMENTERS[config.segment.model]
    if kind.build_learner is None:
        return {}, "no"
    train, valid, origin = training_data(config, images, folder, parts)
    at.say(f"{kind.title} learns from {len(train['mask'])} {origin} masks")
    fitted = fit(segmenter_job(config, train, valid), config.compute, at)
    return fitted.weights[config.segment.model], origin


def segmenter_job(config: Config, train: Arrays, valid: Arrays) -> Job:
    """The segmenter as a training job; LeuSAM's `vit_*` starts from the SAM checkpoint."""
    segment, seed = config.segment, derive_seed(config.seed, 1)
    build = functools.partial(build_learner, segment, seed)
    return Job(segment.model, build, train, valid, segment.train, seed)


def require_checkpoint(config: Config) -> None:
    """Raise WeightsError where a `vit_*` variant has no SAM checkpoint to start from."""
    segment = config.segment
    if segment.model == "leusam" and segment.variant != "tiny" and not segment.checkpoint:
        raise WeightsError(
            f"segment.variant={segment.variant} fine-tunes a Segment Anything checkpoint, and none is given.",
            cure="Give the file with --set segment.checkpoint=FILE, or use --set segment.variant=tiny.",
        )


def build_learner(segment: SegmentConfig, seed: int) -> Learner:
    """The segmenter's learner; in the worker, so that a large checkpoint is read where it is used."""
    build = SEGMENTERS[segment.model].build_learner
    assert build is not None  # what learns nothing has no job
    learner = build(segment, seed)
    if segment.model == "leusam" and segment.variant != "tiny" and segment.checkpoint:
        load_sam_checkpoint(learner.nets["leusam"], read_sam_state(segment.checkpoint))
    return learner


def read_sam_state(uri: str) -> dict[str, Any]:
    """A SAM checkpoint's tensors; nothing in it is unpickled but tensors. Raises WeightsError."""
    parent, _, name = absolute(uri).rpartition("/")
    try:
        data = Folder(parent or "/").read_bytes(name)
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(
            "There is no such checkpoint.", where=uri, cure="Check segment.checkpoint."
        ) from error
    except Exception as error:  # torch raises pickle, zip and runtime errors here
        raise WeightsError(
            f"This is not a SAM checkpoint: {str(error).splitlines()[0][:200]}",
            where=uri,
            cure="Use a file from the Segment Anything project, such as sam_vit_b_*.pth.",
        ) from error
    return state


# ---- training data ---------------------------------------------------------------------------------


def training_data(config: Config, images: pa.Table, folder: Folder, parts: int) -> tuple[Arrays, Arrays, str]:
    """(train, valid, origin) windows with masks; only images of those splits are looked at."""
    items: dict[str, list[dict[str, NDArray[Any]]]] = {"train": [], "val": []}
    split = dict(zip(images["id"].to_pylist(), images["split"].to_pylist(), strict=True))
    for part in range(parts):
        for row in folder.read_parquet(part_name(part), ["id", "image", "mask"]).to_pylist():
            side = split.get(row["id"])
            if row["mask"] is not None and side in items:
                mask = decode_png(row["mask"])[..., 0] > 127
                items[side] += _windows(decode_png(row["image"]), mask, config, single_cell(config))
    if len(items["train"]) >= MIN_MASKS:
        return (
            _stack(items["train"]),
            _stack(items["val"]),
            "real" if config.dataset.name != "phantom" else "phantom",
        )
    drawn = _phantom_windows(config)
    cut = max(1, len(drawn) // 8)
    return _stack(drawn[cut:]), _stack(drawn[:cut]), "phantom"


def _windows(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], config: Config, single: bool
) -> list[dict[str, NDArray[Any]]]:
    """One training item for a mask, prompted by the box that the ROI step would give."""
    true = mask_box(mask)
    if true is None:
        return []
    boxes = [region.box for region in find_cells(rgb, config.roi, single=single)]
    best = max(boxes, key=lambda box: box_iou(box, true), default=true)
    box = best if box_iou(best, true) >= 0.3 else true
    return [training_windows(rgb, mask, box, config.segment)]


def _phantom_windows(config: Config) -> list[dict[str, NDArray[Any]]]:
    """Cells of phantom smears, single ones and fields, enhanced like the real images."""
    wanted, items = config.segment.phantom_cells, []
    seed = derive_seed(config.seed, 2) % 2**31
    layouts = ("all-idb2",) if single_cell(config) else ("all-idb2", "fields")
    specs = [spec for name in layouts for spec in phantom_index(name, max(4, wanted // 10), 10, seed)]
    order = np.random.default_rng(seed).permutation(len(specs))
    for index in order:
        drawn = draw_phantom(specs[int(index)])
        rgb = prepare(drawn.rgb, config)
        for number in range(1, int(drawn.instances.max()) + 1):
            items += _windows(rgb, drawn.instances == number, config, single=drawn.instances.max() == 1)
        if len(items) >= wanted:
            break
    return items[:wanted]


def box_iou(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of two boxes."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / max(1, areas - both)


def _stack(items: list[dict[str, NDArray[Any]]]) -> Arrays:
    return {key: np.stack([item[key] for item in items]) for key in items[0]} if items else {}


# ---- cutting ---------------------------------------------------------------------------------------


class _Cutter:
    """Holds LeuSAM in a Ray actor; cuts the cells of one part of images."""

    def __init__(self, config: Config, weights: dict[str, Any], single: bool, images: Folder) -> None:
        self.config, self.single, self.images = config, single, images
        self.segmenter = build_segmenter(config, weights)

    def __call__(self, part: int, kept: set[str]) -> pa.Table:
        rows = self.images.read_parquet(part_name(part)).to_pylist()
        return manifest.table(cell for row in rows if row["id"] in kept for cell in self._cells(row))

    def _cells(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        cells = cut_cells(decode_png(row["image"]), self.segmenter, self.config, single=self.single)
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


def mask_agreement(cells: pa.Table, images: pa.Table, folder: Folder, parts: int) -> list[float]:
    """IoU of the segmenter's mask with the true one, for test images that have one cell and a true mask."""
    test = set(manifest.where(images, split="test")["id"].to_pylist())
    rle = {
        row["image_id"]: row
        for row in cells.select(["image_id", "mask_rle", "width", "height"]).to_pylist()
        if row["image_id"] in test
    }
    found: list[float] = []
    for part in range(parts):
        for row in folder.read_parquet(part_name(part), ["id", "mask"]).to_pylist():
            cell = rle.get(row["id"])
            if row["mask"] is not None and cell is not None:
                predicted = decode_rle(cell["mask_rle"], cell["height"], cell["width"])
                found.append(iou(predicted, decode_png(row["mask"])[..., 0] > 127))
    return found


def _result(
    config: Config,
    images: pa.Table,
    cells: pa.Table,
    without: list[str],
    agreement: list[float],
    origin: str,
) -> StageResult:
    counts = {"images": len(images), "cells": len(cells), "images_without_cell": len(without)}
    metrics = {"cells_per_image": len(cells) / max(1, len(images))}
    if agreement:
        metrics["test_mask_iou"] = float(np.mean(agreement))
    kind = SEGMENTERS[config.segment.model]
    notes = [f"{kind.title} trained on {origin} masks"]
    if without:
        notes.append(f"{len(without)} images without a cell: no_cell.json")
    files = {"manifest": "manifest.parquet", "no_cell": "no_cell.json"}
    if kind.build_net is not None:
        files["weights"] = f"{config.segment.model}.safetensors"
    return StageResult(counts, metrics, files, notes)


STAGE = Stage(
    name="segment",
    summary="train LeuSAM; find, segment and cut every cell",
    version=1,
    sections=("roi", "segment"),
    needs=("ingest",),
    run=run,
    check=require_checkpoint,
)
