"""Training a segmenter on the masks of the training split, else on phantoms."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import Config, SegmentConfig
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.fitting.job import Arrays, Job
from cotray.imaging.masks import mask_box
from cotray.imaging.roi import find_cells
from cotray.learning import Learner, Weights, derive_seed
from cotray.predictor import prepare
from cotray.segmentation.learner import LeuSamLearner, turned_copies
from cotray.segmentation.registry import SEGMENTERS
from cotray.segmentation.windows import prompt_box, training_windows
from cotray.stages.base import StageRun
from cotray.stages.embeddings import embed_windows
from cotray.stages.images import Images
from cotray.stages.ingest import single_cell
from cotray.stages.sam_checkpoint import fine_tunes, read_checkpoint
from cotray.stages.training import fit

MIN_MASKS = 20
"""Fewer training masks than this and LeuSAM learns from phantoms instead."""


def train_segmenter(
    config: Config, at: StageRun, images: pa.Table, source: Images, parts: int
) -> tuple[dict[str, Any], str]:
    """(weights, which masks it learned from) of `segment.model`; no weights where nothing is learned."""
    kind = SEGMENTERS[config.segment.model]
    if kind.build_learner is None:
        return {}, "no"
    train, valid, origin = training_data(config, images, source, parts)
    at.say(f"{kind.title} learns from {len(train['mask'])} {origin} masks")
    fitted = fit(segmenter_job(config, train, valid, at), config.compute, at)
    return fitted.weights[config.segment.model], origin


def segmenter_job(config: Config, train: Arrays, valid: Arrays, at: StageRun) -> Job:
    """The segmenter as a training job; LeuSAM's `vit_*` from the SAM checkpoint and embeddings made here."""
    segment, seed = config.segment, derive_seed(config.seed, 1)
    build = functools.partial(build_learner, segment, seed)
    if not fine_tunes(segment):
        return Job(segment.model, build, train, valid, segment.train, seed)
    leusam = functools.partial(build_leusam_learner, segment, seed)
    if segment.cache and not segment.lora_rank:
        train = embedded(leusam, turned_copies(train, segment.turned_copies), config, at)
        valid = embedded(leusam, valid, config, at)
    finish = functools.partial(whole_weights, leusam)
    return Job(segment.model, build, train, valid, segment.train, seed, finish)


def embedded(build: Any, windows: Arrays, config: Config, at: StageRun) -> Arrays:
    """Windows with their embeddings in place of their pixels; none stay none."""
    if not windows:
        return windows
    rest = {key: value for key, value in windows.items() if key != "image"}
    return rest | {"embedding": embed_windows(build, windows["image"], config.compute, at)}


def build_learner(segment: SegmentConfig, seed: int) -> Learner:
    """The segmenter's learner; in the worker, so that a large checkpoint is read where it is used."""
    if fine_tunes(segment):
        return build_leusam_learner(segment, seed)
    build = SEGMENTERS[segment.model].build_learner
    assert build is not None  # what learns nothing has no job
    return build(segment, seed)


def build_leusam_learner(segment: SegmentConfig, seed: int) -> LeuSamLearner:
    """A LeuSAM that starts from the SAM checkpoint, if one is given."""
    return LeuSamLearner(segment, seed, read_checkpoint(segment))


def whole_weights(build: Any, trained: Weights) -> Weights:
    """What was trained and what was frozen, under the names that :func:`build_leusam` gives them."""
    learner: LeuSamLearner = build()
    learner.load_weights(trained)
    whole: dict[str, Tensor] = learner.whole()
    return {"leusam": whole}


# ---- training data ---------------------------------------------------------------------------------


def training_data(config: Config, images: pa.Table, source: Images, parts: int) -> tuple[Arrays, Arrays, str]:
    """(train, valid, origin) windows with masks; only images of those splits are looked at."""
    items: dict[str, list[dict[str, NDArray[Any]]]] = {"train": [], "val": []}
    split = dict(zip(images["id"].to_pylist(), images["split"].to_pylist(), strict=True))
    for part in range(parts):
        for row in source.rows(part):
            side = split.get(row["id"])
            if side in items and (mask := source.mask(row)) is not None:
                items[side] += _windows(source.rgb(row), mask, config, single_cell(config))
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
    box = prompt_box(boxes, true)
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


def _stack(items: list[dict[str, NDArray[Any]]]) -> Arrays:
    return {key: np.stack([item[key] for item in items]) for key in items[0]} if items else {}
