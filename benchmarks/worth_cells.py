"""Cells of a real data set for benchmarks.worth: read and grouped by `cotray ingest`, cut by the LeuSAM that
comes with cotray (phantoms only: no mask of any image was seen, so that no split can leak through it)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_sets import SETTINGS
from cotray.config import Config, load_config
from cotray.evaluation.floor import colour_histogram
from cotray.predictor import build_segmenter, cut_cells
from cotray.runs import Run
from cotray.segmentation.shipped import load_shipped
from cotray.stages.images import open_images
from cotray.stages.ingest import single_cell

EVERY = {"all-idb2": 1, "taleqani": 3}
"""Of Taleqani's 3,256 fields every third of a group takes part."""
MOST = {"all-idb2": 1, "taleqani": 3}
"""Cells of an image that speak for it: those with the largest nuclei."""


@dataclass(frozen=True)
class CellSet:
    """N cells of M images, S side."""

    image_NSS3: NDArray[np.uint8]
    of_N: NDArray[np.int64]
    """Which image a cell is of."""
    label_M: NDArray[np.int64]
    group_M: NDArray[np.str_]
    colour_MH: NDArray[np.float32]
    """Colour histogram of the whole image: what the floor sees."""


def load(name: str, root: str, folder: Path, most: int | None = None) -> CellSet:
    """The set's cells; kept in ``folder``, which makes them once: at most so many of an image."""
    kept = folder / f"{name}.npz"
    if not kept.exists():
        np.savez(kept, **vars(cut(name, root, folder, most or MOST[name])))
    with np.load(kept) as arrays:
        cells = CellSet(**arrays)
    held = int(np.bincount(cells.of_N).max())
    if most and MOST.get(name, 1) > 1 and held != most:
        raise SystemExit(f"{kept} holds up to {held} cells of an image, not {most}: give another --out")
    return cells


def cut(name: str, root: str, folder: Path, most: int) -> CellSet:
    """Ingest, then cut; images without a cell are left out and counted on the screen."""
    place = folder / f"{name}-ingest"
    command = [sys.executable, "-m", "cotray", "run", *SETTINGS[name], "--root", root, "--run", str(place)]
    subprocess.run([*command, "--until", "ingest", "--set", "tracking.enabled=false"], check=True)
    run = Run(str(place))
    config = with_shipped(load_config(yaml_text=run.folder.read_text("config.yaml")), most)
    segmenter = build_segmenter(config, load_shipped().weights)
    images = open_images(run.stage("ingest"))
    frozen = run.stage("ingest").read_json("split.json")["rows"]  # of images in use: side and group
    cells, of, rows, colour, empty, seen = [], [], [], [], 0, dict[str, int]()
    for part in range(run.need("ingest").result.counts["parts"]):
        for row in images.rows(part):
            if row["status"] != "used":
                continue
            row["group"] = frozen[row["id"]][1]
            seen[row["group"]] = seen.get(row["group"], 0) + 1
            if (seen[row["group"]] - 1) % EVERY[name]:
                continue
            found = cut_cells(rgb := images.rgb(row), segmenter, config, single=single_cell(config))
            empty += not found
            if found:
                cells += [cell.image for cell in found]
                of += [len(rows)] * len(found)
                rows.append(row)
                colour.append(colour_histogram(rgb))
    print(f"{name}: {len(cells)} cells of {len(rows)} images; {empty} images without a cell", flush=True)
    labels = np.array([row["label"] for row in rows], np.int64)
    groups = np.array([row["group"] for row in rows])
    return CellSet(np.stack(cells), np.array(of, np.int64), labels, groups, np.stack(colour))


def with_shipped(config: Config, most: int) -> Config:
    """The run's settings with those of the shipped LeuSAM, and at most so many cells per image."""
    roi = config.roi.model_copy(update={"max_cells": most})
    return config.model_copy(update={"segment": load_shipped().segment, "roi": roi})
