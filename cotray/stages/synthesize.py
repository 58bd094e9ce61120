"""Synthesize: LeuGAN learns the smaller class of the training split and draws cells until they balance."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config
from cotray.data.decode import encode_png
from cotray.imaging.resize import resize_square
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import Cells, real_cells, split_of
from cotray.stages.synthetic import Judgement, judge_pixels, keep_pictures, samples_picture
from cotray.stages.training import fit, pictures_folder
from cotray.synthesis.quality import PIXELS
from cotray.synthesis.sample import synthesize
from cotray.synthesis.training import leugan_job, load_generator

MIN_CELLS = 16
"""A class with fewer training cells than this cannot teach a GAN anything."""
JUDGED = 200
"""At least so many cells are drawn to be judged (or as many as there are real ones), if fewer are wanted."""


def run(config: Config, at: StageRun) -> StageResult:
    """Train LeuGAN on the minority class' training cells and write synthetic cells (`source=leugan`).

    Raises MissingStageError, TrainingError, NonFiniteLossError, WeightsError.
    """
    train = split_of(real_cells(at, ("train",)), "train")
    counts = np.bincount(train.label_N, minlength=2)[:2]
    minority = int(counts.argmin())
    wanted = min(int(counts.max() - counts.min()), math.floor(config.gan.max_ratio * counts.min()))
    figures = {"normal_cells": int(counts[0]), "malignant_cells": int(counts[1])}
    if why := _nothing(config, wanted, int(counts.min())):
        return _write(
            at, manifest.SCHEMA.empty_table(), figures, Judgement(), f"nothing to synthesize: {why}"
        )
    cells = train.take(train.label_N == minority)
    real = resize_square(cells.image_NSS3, config.gan.image_size)
    drawn = _drawn(config, at, cells.image_NSS3, max(wanted, min(JUDGED, len(real))))
    judged = judge_pixels(real, drawn, seed=derive_seed(config.seed, 5))
    pictures = {"samples": samples_picture(real, drawn)} | judged.pictures
    keep_pictures(at, pictures, pictures_folder("leugan"))
    if why := _refused(config, judged):
        return _write(at, manifest.SCHEMA.empty_table(), figures, judged, f"{why}; none is used")
    rows = _rows(resize_square(drawn[:wanted], config.segment.cell_size), minority, cells)
    told = f"{wanted} synthetic cells for the smaller class ({len(real)} real)"
    return _write(at, rows, figures, judged, told)


def _nothing(config: Config, wanted: int, real: int) -> str:
    """Why LeuGAN has no work."""
    if config.gan.use == "never":
        return "gan.use=never (on real cells LeuGAN's brought nothing; gan.use=auto tries)"
    if wanted == 0:
        return "classes are balanced"
    return f"only {real} cells to learn from" if real < MIN_CELLS else ""


def _refused(config: Config, judged: Judgement) -> str:
    """Why cells that were drawn are not used."""
    if config.gan.use == "always":
        return ""
    precision = judged.metrics.get(f"{PIXELS}_precision", 1.0)
    if precision < config.gan.min_precision:
        return f"only {precision:.0%} of LeuGAN's cells look like real ones"
    return "LeuGAN's cells raise an alarm" if judged.alarms.notes() else ""


def _drawn(config: Config, at: StageRun, image_NSS3: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    job = leugan_job(config.gan, image_NSS3, derive_seed(config.seed, 3))
    generator = load_generator(config.gan, fit(job, config.compute, at).weights)
    return synthesize(generator, count, derive_seed(config.seed, 4))


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


def _write(at: StageRun, rows: pa.Table, counts: dict[str, int], judged: Judgement, note: str) -> StageResult:
    at.folder.write_parquet("cells.parquet", rows)
    at.folder.write_parquet("manifest.parquet", manifest.light(rows))
    files = {"manifest": "manifest.parquet", "cells": "cells.parquet"}
    notes = [note, *judged.alarms.notes()]
    return StageResult(counts | {"synthetic_cells": len(rows)}, judged.metrics, files, notes)


STAGE = Stage(
    name="synthesize",
    summary="LeuGAN balances the training split",
    version=3,
    sections=("gan",),
    needs=("segment",),
    run=run,
)
