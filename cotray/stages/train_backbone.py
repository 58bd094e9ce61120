"""Train backbone: SMod, GMod + SMod or a rival, with a linear head, on real and synthetic training cells."""

from __future__ import annotations

import functools

import numpy as np

from cotray.config import BackboneConfig, Config, load_config
from cotray.errors import ClassError
from cotray.features.backbone import without_effect
from cotray.features.learner import BackboneLearner
from cotray.fitting.best import best_epoch
from cotray.fitting.job import Arrays, Job
from cotray.imaging.resize import resize_square
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import (
    Cells,
    class_weight,
    column,
    concat,
    labels,
    real_cells,
    split_of,
    synthetic_cells,
)
from cotray.stages.parts import part_name
from cotray.stages.pieces import pieces_of
from cotray.stages.pretrained import pretrained_mark, read_pretrained, require_backbone
from cotray.stages.stream import Stream
from cotray.stages.training import fit


def run(config: Config, at: StageRun) -> StageResult:
    """Train the backbone. Raises ClassError, TrainingError, NonFiniteLossError."""
    for name in without_effect(config.backbone, load_config(config.preset).backbone):
        of = config.backbone.name
        at.say(f"backbone.{name} changes nothing: {of} has no GMod (backbone.name=cotconet has)")
    stream = training_stream(config, at) if config.backbone.train.data == "stream" else None
    real = real_cells(at, ("val",) if stream else ("train", "val"))
    train = stream or concat(split_of(real, "train"), synthetic_cells(at))
    label_N = train.label_N
    require_two_classes(label_N)
    seed = derive_seed(config.seed, 10)
    job = Job(
        name="backbone",
        build=functools.partial(build_learner, config.backbone, seed, class_weight(label_N)),
        train=_arrays(train, config) if isinstance(train, Cells) else {},
        valid=_arrays(split_of(real, "val"), config),
        config=config.backbone.train,
        seed=seed,
        streamed=0 if stream is None else len(label_N),
    )
    history = fit(job, config.compute, at, stream).history
    best = history[best_epoch(history, config.backbone.train.smooth)]
    counts = {"train_cells": len(label_N), "val_cells": len(job.valid["label"]), "epochs": len(history)}
    files = {"weights": "backbone.safetensors", "history": "backbone.history.json"}
    return StageResult(counts, {k: v for k, v in best.items() if k.startswith("val_")}, files)


def build_learner(cfg: BackboneConfig, seed: int, weight: tuple[float, float]) -> BackboneLearner:
    """The learner; in the worker, so that large weights are read where they are used."""
    return BackboneLearner(cfg, seed, weight, read_pretrained(cfg))


def training_stream(config: Config, at: StageRun) -> Stream:
    """The same cells in pieces: labelled real ones of the training split, and synthetic ones."""
    rows = at.input("segment").read_parquet("manifest.parquet")
    keep = (column(rows, "split") == "train") & (labels(rows) >= 0)
    cells = {part: part_name(part) for part in set(rows["part"].to_pylist())}
    pieces = pieces_of(at.run.stage("segment") / "cells", rows, labels(rows), keep, cells)
    drawn = at.input("synthesize").read_parquet("manifest.parquet")
    pieces += pieces_of(
        at.run.stage("synthesize"), drawn, labels(drawn), np.ones(len(drawn), bool), {0: "cells.parquet"}
    )
    train = config.backbone.train
    return Stream(pieces, derive_seed(config.seed, 11), config.backbone.image_size, train.buffer)


def _arrays(cells: Cells, config: Config) -> Arrays:
    return {"image": resize_square(cells.image_NSS3, config.backbone.image_size), "label": cells.label_N}


def require_two_classes(label_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Raise ClassError where training would see one class only."""
    if len(np.unique(label_N)) < 2:
        raise ClassError(
            "The training split has cells of one class only.",
            cure="Give more images of the other class, or loosen roi settings so that its cells are found.",
        )


STAGE = Stage(
    name="train_backbone",
    summary="train SMod, GMod + SMod or a rival end to end",
    version=2,
    sections=("backbone",),
    needs=("segment", "synthesize"),
    run=run,
    extra=pretrained_mark,
    check=require_backbone,
)
