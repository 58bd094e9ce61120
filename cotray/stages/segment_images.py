"""`cotray segment` on images: masks, overlays and a table of cells, from the shipped LeuSAM or one's own.

A few images are segmented in this process, which takes less time than starting Ray; more of them by Ray
Data over part files. An image that is done is not done again::

    OUT/masks/NAME.png        16-bit labels: 0 background, k the k-th cell
    OUT/overlays/NAME.png     the image with outlines and numbers
    OUT/cells.parquet, .csv   a row per cell
    OUT/images.parquet, .csv  a row per image
    OUT/summary.json          model, settings, counts
    OUT/parts/...             what a stopped run has done so far
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch

from cotray.data.decode import encode_png
from cotray.errors import ConfigError, DecodeError, RunMismatchError
from cotray.imaging.instances import Labels, draw_instances
from cotray.predictor import decode
from cotray.runs import Run
from cotray.stages.base import StageRun, Voice
from cotray.stages.segment_inputs import Inputs, Item, find_inputs
from cotray.stages.segment_model import Ask, ImageSegmenter, Model, find_model
from cotray.stages.segment_tables import (
    PART,
    counts,
    is_done,
    of_images,
    quarantined_row,
    read_tables,
    segmented_row,
    write_tables,
)
from cotray.storage import Folder, absolute, require_writable

VERSION = 1
"""Raised whenever this code changes what it writes."""
IN_PROCESS = 64
"""Up to so many images, starting Ray would take longer than it saves."""
RESULTS = ("masks", "overlays", "parts", "cells.parquet", "cells.csv", "images.parquet", "images.csv")


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    inputs: Sequence[str]
    """Image files, folders or URIs."""
    out: str
    """Folder or URI of the results."""
    bundle: str | None = None
    """Run, bundle or MLflow model whose LeuSAM is used; None = the shipped one."""
    ask: Ask = field(default_factory=Ask)
    sets: Sequence[str] = ()
    """Settings over those of the model: `roi.max_cells=100`."""
    force: bool = False
    """Segment again what is done, and replace what other settings made."""
    voice: Voice = field(default_factory=Voice)
    verbose: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    out: Folder
    model: str
    """Which LeuSAM it was."""
    images: pa.Table
    """IMAGES rows of the images that were asked for."""
    cells: pa.Table
    """CELLS rows of the same images."""
    skipped: int
    """Of the images, those that had been done before."""


def segment_images(request: Request) -> Outcome:
    """Segment every image that is not done yet; write masks, overlays and tables.

    A file that cannot be read is quarantined. Raises DatasetNotFoundError, EmptyDatasetError, ConfigError,
    WeightsError, BundleError, RunMismatchError (results of other settings are there), RunNotWritableError.
    """
    out = Folder(absolute(request.out))
    former = _results(out)
    inputs = find_inputs(request.inputs, out, former.get("images"))
    _one_image(request.ask, inputs)
    model = find_model(request.bundle, request.sets)
    worker = functools.partial(_Worker, model, request.ask, inputs.root, out)
    gpu = model.config.compute.gpu != "no" and torch.cuda.is_available()
    ready = worker("cuda" if gpu else "cpu")  # what does not fit is refused now, before anything is written
    settings = _settings(inputs, model)
    _prepare(out, settings, former, request.force)
    if out.exists("parts"):
        write_tables(out, *read_tables(out))
    done = is_done(read_tables(out)[0], request.ask)
    todo = [item for item in inputs.items if request.force or not done(item)]
    if len(todo) <= IN_PROCESS:
        _here(todo, ready, out, request.voice)
    else:
        _by_ray(todo, worker, out, request, model)
    images, cells = read_tables(out)
    write_tables(out, images, cells)
    out.write_json("summary.json", settings | {"counts": counts(images)})
    names = [item.path for item in inputs.items]
    mine = of_images(images, names), of_images(cells, names)
    return Outcome(out, model.name, *mine, skipped=len(names) - len(todo))


def _one_image(ask: Ask, inputs: Inputs) -> None:
    if (ask.boxes or ask.points) and len(inputs.items) != 1:
        raise ConfigError(
            f"Boxes and points belong to one image, and {len(inputs.items)} are given.",
            where="--box, --point",
            cure="Name the one image that they belong to.",
        )


def _results(out: Folder) -> dict[str, Any]:
    """What the results that are in a folder were made with; empty where there are none."""
    there = out.exists("summary.json") and (out.exists("images.parquet") or out.exists("parts"))
    return dict(out.read_json("summary.json")) if there else {}


def _settings(inputs: Inputs, model: Model) -> dict[str, Any]:
    """What decides what comes out for every image; results of other settings do not mix with these."""
    tree = model.config.model_dump(mode="json")
    return {
        "version": VERSION,
        "model": model.name,
        "images": inputs.root.uri,
        **{name: tree[name] for name in ("segment", "roi", "enhance", "ingest")},
    }


def _prepare(out: Folder, settings: dict[str, Any], former: dict[str, Any], force: bool) -> None:
    """The folder is writable, and its results, if any, are of these settings."""
    require_writable(out)
    other = sorted(name for name in settings if former and former.get(name) != settings[name])
    if other and not force:
        raise RunMismatchError(
            f"This folder holds results made with other settings: {', '.join(other)}.",
            where=out.uri,
            cure="Name another --out, or replace all of them with --force.",
        )
    for name in RESULTS if other else ("parts",) if force else ():
        out.remove(name)
    out.write_json("summary.json", settings)


def _here(todo: list[Item], worker: _Worker, out: Folder, voice: Voice) -> None:
    """In this process, a part file per image."""
    for number, item in enumerate(todo):
        (out / "parts").write_parquet(f"part-{number:05d}.parquet", worker(number, [item]))
        voice.progress("images", number + 1, len(todo), item.path)


def _by_ray(
    todo: list[Item], worker: Callable[[str], _Worker], out: Folder, request: Request, model: Model
) -> None:
    """By Ray Data; which images a part holds is in the name of its folder."""
    from cotray.stages.cluster import connect, use_gpu
    from cotray.stages.parts import Plan, chunk_size, chunks, run_parts

    connect(request.verbose)
    digest = hashlib.sha256(repr(todo).encode()).hexdigest()[:12]
    parts = chunks(todo, chunk_size(len(todo), model.config.ingest.blocks_per_cpu))
    build = functools.partial(worker, "cuda" if use_gpu(model.config.compute) else "cpu")
    plan = Plan("images", build, parts, out / "parts" / digest, actors=True)
    run_parts(plan, model.config.compute, StageRun("segment", Run(out.uri), digest, voice=request.voice))


class _Worker:
    """Holds LeuSAM, in this process or in a Ray actor; segments the images of one part."""

    def __init__(self, model: Model, ask: Ask, root: Folder, out: Folder, device: str) -> None:
        self.segment, self.ask = ImageSegmenter(model, ask, device), ask
        self.config, self.root, self.out = model.config, root, out

    def __call__(self, part: int, items: Sequence[Item]) -> pa.Table:
        return pa.Table.from_pylist([self._row(item) for item in items], schema=PART)

    def _row(self, item: Item) -> dict[str, Any]:
        begun = time.perf_counter()
        try:
            rgb = decode(self.root.read_bytes(item.path), self.config)
        except DecodeError as error:
            return quarantined_row(item, self.ask, error.what)
        except OSError as error:
            return quarantined_row(item, self.ask, f"cannot be read: {error.strerror or error}")
        found = self.segment(rgb)
        name = picture_name(item.path)
        self.out.write_bytes(f"masks/{name}", encode_labels(found.labels))
        self.out.write_bytes(f"overlays/{name}", encode_png(draw_instances(rgb, found.labels)))
        return segmented_row(item, self.ask, found, time.perf_counter() - begun)


def picture_name(path: str) -> str:
    """Name of an image's mask and overlay: its own, and `.png` after it where it is no PNG.

    The whole name stays, so that `a.bmp` and `a.jpg` have masks of their own.
    """
    return path if path.lower().endswith(".png") else f"{path}.png"


def encode_labels(labels: Labels) -> bytes:
    """A label image as a 16-bit PNG."""
    return bytes(cv2.imencode(".png", labels)[1].tobytes())


def decode_labels(data: bytes) -> Labels:
    """Inverse of :func:`encode_labels`."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.uint16)
