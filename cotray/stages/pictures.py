"""What the report shows of a run: overlays, mistakes, curves. Pictures as PNG bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cotray import manifest
from cotray.bundle import Bundle
from cotray.data.decode import decode_stored, encode_png
from cotray.evaluation.explain import grad_cam, heat_overlay
from cotray.evaluation.figures import (
    confusion_figure,
    history_figure,
    overlay,
    probability_figure,
    reliability_figure,
    roc_figure,
    selection_figure,
)
from cotray.evaluation.report import Sample
from cotray.features.learner import to_input
from cotray.features.zoo import build_backbone
from cotray.imaging.masks import decode_rle
from cotray.imaging.resize import resize_square
from cotray.predictor import load_net
from cotray.segmentation.registry import SEGMENTERS
from cotray.stages.base import StageRun
from cotray.stages.images import open_images
from cotray.stages.parts import part_name
from cotray.stages.scores import Held, Scores
from cotray.stages.synthetic import PICTURES

MISTAKES = 12
"""Wrong answers shown at most, the most confident first."""
CELL_COLUMNS = ["id", "image_id", "label", "box", "mask_rle", "width", "height", "part"]
TRAINED = {
    "segment": tuple(SEGMENTERS),
    "synthesize": ("leugan",),
    "train_backbone": ("backbone",),
    "classify": ("hdlc",),
}
"""Stage -> models whose training curve it may keep."""


def score_figures(images: Scores, floor: Scores) -> dict[str, bytes]:
    """Figures of the held-out scores; those that need both classes are left out where one is absent."""
    called = images.prob_N >= images.threshold
    figures = {
        "confusion": confusion_figure(images.label_N, called),
        "reliability": reliability_figure(images.label_N, images.prob_N),
        "probability": probability_figure(images.label_N, images.prob_N, images.threshold),
    }
    if len(np.unique(images.label_N)) == 2:
        curves = {"cotray": (images.label_N, images.prob_N)}
        if len(np.unique(floor.label_N)) == 2:
            curves["colour alone"] = (floor.label_N, floor.prob_N)
        figures["roc"] = roc_figure(curves)
    return figures


def history_figures(at: StageRun) -> dict[str, bytes]:
    """Training curves by model, of those that were trained."""
    found: dict[str, bytes] = {}
    for stage, model in ((stage, model) for stage, models in TRAINED.items() for model in models):
        folder = at.run.stage(stage)
        if folder.exists(f"{model}.history.json"):
            history = folder.read_json(f"{model}.history.json")
            if history:  # empty where weights were taken as they are
                found[model] = history_figure(history)
    return found


def synthetic_pictures(at: StageRun) -> dict[str, bytes]:
    """What synthesize kept, by the report's names."""
    folder = at.run.stage("synthesize")
    names = {"synthetic": "samples"} | {f"synthetic_{name}": name for name in PICTURES if name != "samples"}
    return {ours: folder.read_bytes(f"{n}.png") for ours, n in names.items() if folder.exists(f"{n}.png")}


def as_sentence(notes: Sequence[str]) -> str:
    """A stage's notes as sentences."""
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in notes if note)


def search_figure(at: StageRun) -> bytes:
    """The feature search's best fitness and size."""
    return selection_figure(at.run.stage("select").read_json("history.json"))


def pick_overlays(images: Scores, count: int) -> list[int]:
    """Indices of test images to show, evenly over the probabilities, so that doubtful ones are among them."""
    order = np.argsort(images.prob_N, kind="stable")
    spread = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[i]) for i in dict.fromkeys(spread.tolist())]


def pick_mistakes(images: Scores) -> list[int]:
    """Indices of wrong answers, the most confident first."""
    wrong = np.flatnonzero((images.prob_N >= images.threshold) != (images.label_N > 0))
    surest = np.argsort(-np.abs(images.prob_N[wrong] - images.threshold), kind="stable")
    return [int(i) for i in wrong[surest][:MISTAKES]]


def samples(at: StageRun, held: Held, chosen: Sequence[int]) -> list[Sample]:
    """Chosen test images with the cells that were found drawn in."""
    names = [held.images.id_N[i] for i in chosen]
    pixels = _pixels(at, names)
    cells = _cells_of(at, names)
    return [
        Sample(
            png=_draw(pixels[name], cells.get(name, []), held.cell_prob),
            name=name,
            truth=int(held.images.label_N[i]),
            probability=float(held.images.prob_N[i]),
        )
        for i, name in zip(chosen, names, strict=True)
    ]


def _pixels(at: StageRun, names: Iterable[str]) -> dict[str, NDArray[np.uint8]]:
    """Enhanced images by id."""
    wanted = set(names)
    rows = at.run.stage("ingest").read_parquet("manifest.parquet")
    part_of = dict(zip(rows["id"].to_pylist(), rows["part"].to_pylist(), strict=True))
    images, found = open_images(at.run.stage("ingest")), dict[str, NDArray[np.uint8]]()
    for part in sorted({part_of[name] for name in wanted}):
        found |= {row["id"]: images.rgb(row) for row in images.rows(part, ("image",)) if row["id"] in wanted}
    return found


def _cells_of(at: StageRun, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    wanted, found = set(names), dict[str, list[dict[str, Any]]]()
    rows: pa.Table = at.run.stage("segment").read_parquet("manifest.parquet")
    for row in rows.select(CELL_COLUMNS).to_pylist():
        if row["image_id"] in wanted:
            found.setdefault(row["image_id"], []).append(row)
    return found


def _draw(rgb: NDArray[np.uint8], cells: Sequence[dict[str, Any]], cell_prob: dict[str, float]) -> bytes:
    masks = [decode_rle(cell["mask_rle"], cell["height"], cell["width"]) for cell in cells]
    texts = [f"{cell_prob[cell['id']]:.2f}" if cell["id"] in cell_prob else "" for cell in cells]
    return encode_png(overlay(rgb, masks, [tuple(cell["box"]) for cell in cells], texts))


def explanations(at: StageRun, bundle: Bundle, held: Held, chosen: Sequence[int]) -> list[Sample]:
    """The most suspicious cell of each chosen image beside where the backbone looked (Grad-CAM)."""
    net = build_backbone(bundle.config.backbone)
    load_net(net, bundle.tensors["backbone"], "backbone")
    if net.maps is None:
        return []  # a backbone without convolutions has no maps to weigh
    names = [held.images.id_N[i] for i in chosen]
    tops = {name: _top_cell(cells, held.cell_prob) for name, cells in _cells_of(at, names).items()}
    pixels = _cell_pixels(at, tops.values())
    images = resize_square(
        np.stack([pixels[cell["id"]] for cell in tops.values()]), bundle.config.backbone.image_size
    )
    heats = grad_cam(net, net.maps, to_input(torch.from_numpy(images)))
    return [
        Sample(
            png=encode_png(image),
            beside=encode_png(heat_overlay(image, heat)),
            name=cell["id"],
            truth=None if cell["label"] is None else int(cell["label"]),
            probability=held.cell_prob.get(cell["id"]),
        )
        for image, heat, cell in zip(images, heats, tops.values(), strict=True)
    ]


def _top_cell(cells: Sequence[dict[str, Any]], cell_prob: dict[str, float]) -> dict[str, Any]:
    return max(cells, key=lambda cell: cell_prob.get(cell["id"], -1.0))


def _cell_pixels(at: StageRun, cells: Iterable[dict[str, Any]]) -> dict[str, NDArray[np.uint8]]:
    """Cut-outs by cell id."""
    wanted = {cell["id"]: cell["part"] for cell in cells}
    found: dict[str, NDArray[np.uint8]] = {}
    for part in sorted(set(wanted.values())):
        table = (at.run.stage("segment") / "cells").read_parquet(part_name(part), ["id", "image"])
        found |= {row["id"]: decode_stored(row["image"]) for row in table.to_pylist() if row["id"] in wanted}
    return found


def split_rows(images: pa.Table, cells: pa.Table) -> list[dict[str, str | int]]:
    """Rows of the report's data table: images, groups and cells by split and class."""
    rows: list[dict[str, str | int]] = []
    for split in ("train", "val", "test", "unlabelled"):
        for label, name in ((1, "malignant"), (0, "normal"), (None, "unlabelled")):
            of = _where(images, split, label)
            if len(of):
                counts = {"images": len(of), "groups": len(set(of["group"].to_pylist()))}
                rows.append(
                    {"split": split, "class": name, **counts, "cells": len(_where(cells, split, label))}
                )
    return rows


def _where(rows: pa.Table, split: str, label: int | None) -> pa.Table:
    inside = manifest.where(rows, split=split)
    keep = [value == label for value in inside["label"].to_pylist()]
    return inside.filter(pa.array(keep, pa.bool_()))


def log_pictures(at: StageRun, figures: dict[str, bytes]) -> None:
    """Keep figures in the stage's folder and in the tracker."""
    keep: Callable[[str, bytes], None]
    for keep in (at.folder.write_bytes, at.tracker.artifact):
        for name, png in figures.items():
            keep(f"figures/{name}.png", png)
