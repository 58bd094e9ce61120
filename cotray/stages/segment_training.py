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
from cotray.imaging.masks import mask_box, own_cell
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
from cotray.stages.segment_start import shipped_start
from cotray.stages.training import fit
from cotray.stages.weights import Fitted, save_fitted

MIN_MASKS = 20
"""Fewer training masks than this and LeuSAM learns from phantoms instead."""


def train_segmenter(
    config: Config, at: StageRun, images: pa.Table, source: Images, parts: int
) -> tuple[dict[str, Any], str]:
    """(weights, a sentence on where they come from) of `segment.model`; no weights where nothing is learned.

    Training starts from what `segment.start` says. Where the data set has too few masks, the shipped weights
    are taken as they are: they have learned from more drawings than would be drawn here.
    """
    kind = SEGMENTERS[config.segment.model]
    if kind.build_learner is None:
        return {}, f"{kind.title} trained on no masks"
    items = mask_windows(config, images, source, parts)
    enough, shipped = len(items["train"]) >= MIN_MASKS, shipped_start(config.segment)
    if shipped and not enough:
        at.say(f"{kind.title} as it comes with cotray: there are no masks to learn from")
        save_fitted(at, config.segment.model, Fitted({config.segment.model: shipped.weights}))
        return shipped.weights, f"{kind.title} as it comes with cotray, untrained here: too few masks"
    train, valid = (_stack(items["train"]), _stack(items["val"])) if enough else phantom_windows(config)
    origin = "real" if enough and config.dataset.name != "phantom" else "phantom"
    start = ", from the weights that come with cotray" if shipped else ""
    at.say(f"{kind.title} learns from {len(train['mask'])} {origin} masks{start}")
    fitted = fit(segmenter_job(config, train, valid, at), config.compute, at)
    return fitted.weights[config.segment.model], f"{kind.title} trained on {origin} masks{start}"


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
    learner = build(segment, seed)
    if shipped := shipped_start(segment):
        learner.load_weights({segment.model: shipped.weights})
    return learner


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


Items = list[dict[str, NDArray[Any]]]


def mask_windows(config: Config, images: pa.Table, source: Images, parts: int) -> dict[str, Items]:
    """Windows of cells that the data set has masks of, for `train` and `val`; other images are not read."""
    items: dict[str, Items] = {"train": [], "val": []}
    single = single_cell(config)
    split = dict(zip(images["id"].to_pylist(), images["split"].to_pylist(), strict=True))
    for part in range(parts):
        for row in source.rows(part):
            side = split.get(row["id"])
            if side in items and (mask := source.mask(row)) is not None:
                mask = own_cell(mask) if single else mask
                items[side] += _windows(source.rgb(row), mask, config, single)
    return items


def phantom_windows(config: Config) -> tuple[Arrays, Arrays]:
    """(train, valid) windows of drawn cells."""
    drawn = _phantom_windows(config)
    cut = max(1, len(drawn) // 8)
    return _stack(drawn[cut:]), _stack(drawn[:cut])


def _windows(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], config: Config, single: bool) -> Items:
    """One training item for a mask, prompted by the box that the ROI step would give."""
    true = mask_box(mask)
    if true is None:
        return []
    boxes = [region.box for region in find_cells(rgb, config.roi, single=single)]
    box = prompt_box(boxes, true)
    return [training_windows(rgb, mask, box, config.segment)]


def _phantom_windows(config: Config) -> Items:
    """Cells of phantom smears, single ones and fields, enhanced like the real images."""
    wanted = config.segment.phantom_cells
    items: Items = []
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


def _stack(items: Items) -> Arrays:
    return {key: np.stack([item[key] for item in items]) for key in items[0]} if items else {}
