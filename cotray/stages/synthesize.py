"""Synthesize: LeuGAN learns the smaller class of the training split and draws cells until they balance."""

from __future__ import annotations

import functools
import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config
from cotray.data.decode import encode_png
from cotray.evaluation.figures import grid_figure
from cotray.fitting.job import Job
from cotray.imaging.resize import resize_square
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import Cells, real_cells, split_of
from cotray.stages.training import fit
from cotray.synthesis.learner import LeuGanLearner
from cotray.synthesis.leugan import Generator
from cotray.synthesis.quality import cell_quality
from cotray.synthesis.sample import synthesize

MIN_CELLS = 16
"""A class with fewer training cells than this cannot teach a GAN anything."""
LITTLE_VARIETY = 0.1
"""Recall below which the report warns that the generator draws much the same cell."""


def run(config: Config, at: StageRun) -> StageResult:
    """Train LeuGAN on the minority class' training cells and write synthetic cells (`source=leugan`)."""
    train = split_of(real_cells(at, ("train",)), "train")
    counts = np.bincount(train.label_N, minlength=2)[:2]
    minority = int(counts.argmin())
    wanted = min(int(counts.max() - counts.min()), math.floor(config.gan.max_ratio * counts.min()))
    figures = {"normal_cells": int(counts[0]), "malignant_cells": int(counts[1])}
    if wanted == 0 or counts.min() < MIN_CELLS:
        why = "classes are balanced" if wanted == 0 else f"only {counts.min()} cells to learn from"
        return _write(at, config, manifest.SCHEMA.empty_table(), figures, {}, f"nothing to synthesize: {why}")
    cells = train.take(train.label_N == minority)
    real = resize_square(cells.image_NSS3, config.gan.image_size)
    images = _sample(config, at, real, wanted)
    quality = cell_quality(real, images, seed=derive_seed(config.seed, 5))
    at.folder.write_bytes("samples.png", _preview(real, images))
    if quality.get("precision", 1.0) < config.gan.min_precision:
        why = f"only {quality['precision']:.0%} of LeuGAN's cells look like real ones; none is used"
        return _write(at, config, manifest.SCHEMA.empty_table(), figures, quality, why)
    rows = _rows(resize_square(images, config.segment.cell_size), minority, cells)
    return _write(at, config, rows, figures, quality, _told(wanted, int(counts.min()), quality))


def _told(wanted: int, real: int, quality: dict[str, float]) -> str:
    note = f"{wanted} synthetic cells for the smaller class ({real} real)"
    if quality.get("recall", 1.0) < LITTLE_VARIETY:
        note += f"; WARNING: they are much alike (recall {quality['recall']:.2f})"
    return note


def _sample(config: Config, at: StageRun, real: NDArray[np.uint8], wanted: int) -> NDArray[np.uint8]:
    seed = derive_seed(config.seed, 3)
    held = max(2, len(real) // 8)
    order = np.random.default_rng(seed).permutation(len(real))
    job = Job(
        name="leugan",
        build=functools.partial(LeuGanLearner, config.gan, seed),
        train={"image": real[order[held:]]},
        valid={"image": real[order[:held]]},
        config=config.gan.train,
        seed=seed,
    )
    weights = fit(job, config.compute, at).weights
    generator = Generator(config.gan)
    generator.load_state_dict(weights["ema" if "ema" in weights else "generator"])
    return synthesize(generator.eval(), wanted, derive_seed(config.seed, 4))


def _preview(real: NDArray[np.uint8], synthetic: NDArray[np.uint8]) -> bytes:
    """Two rows of real cells over two of synthetic ones."""
    shown = [*real[:16], *synthetic[:16]]
    return grid_figure(shown, 8, ["real"] * len(real[:16]) + ["synthetic"] * len(synthetic[:16]))


def _rows(images: NDArray[np.uint8], label: int, like: Cells) -> pa.Table:
    name = like.rows["class_name"][0].as_py()
    return manifest.table(
        {
            "id": f"leugan#{number:06d}",
            "image_id": f"leugan#{number:06d}",
            "source": "leugan",
            "label": label,
            "class_name": name,
            "group": "leugan",
            "split": "train",
            "status": "used",
            "width": image.shape[1],
            "height": image.shape[0],
            "part": 0,
            "image": encode_png(image),
        }
        for number, image in enumerate(images)
    )


def _write(
    at: StageRun, config: Config, rows: pa.Table, counts: dict[str, int], metrics: dict[str, float], note: str
) -> StageResult:
    at.folder.write_parquet("cells.parquet", rows)
    at.folder.write_parquet("manifest.parquet", manifest.light(rows))
    files = {"manifest": "manifest.parquet", "cells": "cells.parquet"}
    return StageResult(counts | {"synthetic_cells": len(rows)}, metrics, files, [note])


STAGE = Stage(
    name="synthesize",
    summary="LeuGAN balances the training split",
    version=2,
    sections=("gan",),
    needs=("segment",),
    run=run,
)
