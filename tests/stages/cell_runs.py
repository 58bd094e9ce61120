"""A run whose cells are drawn here: segment and synthesize as those stages leave them, at toy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cotray import manifest
from cotray.config import Config, load_config
from cotray.data.decode import encode_png
from cotray.runs import Run, StageRecord, StageResult
from cotray.stages.base import StageRun, Voice
from cotray.stages.parts import part_name

SIDE = 32


def drawn(label: int, number: int) -> bytes:
    """A disc, bright or dark, whose first pixel is its number: a streamed cell can be told from another."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = (rows**2 + columns**2 < rng.uniform(7, 13) ** 2)[..., None]
    image = np.where(disc, rng.normal(190 if label else 90, 25, (SIDE, SIDE, 3)), 0)
    image = image.clip(0, 255).astype(np.uint8)
    image[0, 0] = number // 256, number % 256, 0
    return encode_png(image)


def cell_rows(count: int, part: int, first: int, rare: int, source: str = "real") -> list[dict[str, object]]:
    """Rows with pixels: one of ``rare`` is normal, one of five is held out, one of eleven has no label."""
    rows: list[dict[str, object]] = []
    for number in range(first, first + count):
        label = int(number % rare != 0)
        known = source == "leugan" or number % 11 != 5
        held = source == "real" and number % 5 == 4
        rows.append(
            {
                "id": f"{source}/{number}#0",
                "image_id": f"{source}/{number}",
                "source": source,
                "label": label if known else None,
                "class_name": "malignant" if label else "normal",
                "group": f"g{number // 3}",
                "split": "val" if held else "train",
                "status": "used",
                "part": part,
                "image": drawn(label, number),
            }
        )
    return rows


def cell_run(home: Path, parts: tuple[int, ...] = (90, 7, 60, 40), synthetic: int = 70, rare: int = 2) -> Run:
    """The run; ``parts``: cells of each part file."""
    run = Run(str(home))
    firsts = np.cumsum([0, *parts])
    tables = [manifest.table(cell_rows(n, part, int(firsts[part]), rare)) for part, n in enumerate(parts)]
    for part, table in enumerate(tables):
        (run.stage("segment") / "cells").write_parquet(part_name(part), table)
    rows = [row for table in tables for row in table.to_pylist()]
    _complete(run, "segment", rows)
    made = cell_rows(synthetic, 0, int(firsts[-1]), 2, "leugan")
    run.stage("synthesize").write_parquet("cells.parquet", manifest.table(made))
    _complete(run, "synthesize", made)
    return run


def _complete(run: Run, stage: str, rows: list[dict[str, object]]) -> None:
    run.stage(stage).write_parquet("manifest.parquet", manifest.light(manifest.table(rows)))
    run.complete(StageRecord(stage, "print", 0.0, "now", StageResult()))


def backbone_stage(run: Run, voice: Voice | None = None) -> StageRun:
    """train_backbone's view of the run."""
    return StageRun("train_backbone", run, "print", voice=voice or Voice())


def small(*more: str) -> Config:
    """A backbone of few weights, without augmentation."""
    sets = ["name=smod", "image_size=32", "skip=true", "smod.filters=[8,8,8,8,8]", "train.epochs=4"]
    sets += ["train.batch_size=16", "train.lr=0.003", "augment.flips=false", "augment.stain=0"]
    named = [f"backbone.{setting}" for setting in sets]
    return load_config("tiny", overrides=[*named, "compute.cpus_per_worker=1", *more])
