"""What takes part in benchmarks.segmentation: how a side learns, answers and is measured.

Training is a plain loop over the same learners that the pipeline's harness drives: the same batches for all,
the schedule, validation and choice of the best weights as there, on one thread.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.segmentation_data import PROMPTS, SEED, Box, Photo, Sets, consensus, load, phantoms, windows
from cotray.config import Config
from cotray.evaluation.masks import ImageFit, fit_of, image_fit
from cotray.learning import Learner, derive_seed
from cotray.predictor import build_segmenter
from cotray.segmentation.predictor import CellSegmenter
from cotray.segmentation.registry import SEGMENTERS, Segmenter
from cotray.segmentation.rivals import UNetSegmenter
from cotray.segmentation.windows import cut_window, to_window, window_of

Arrays = Mapping[str, NDArray[Any]]
VALIDATIONS = 4
"""How often a training looks at its validation part."""
TIMED, CALLS = 24, 3
"""Images that are timed, and how often each."""


@dataclass(frozen=True)
class Side:
    """One row of the tables."""

    title: str
    model: str
    """Of `segment.model`."""
    learns_from: str
    """`real`, `phantoms`, or `nothing`."""
    seconds_of: str | None = None
    """Train as many steps as fit into the CPU time of the side with this title, instead of the budget's."""


SIDES = (
    Side("Otsu, watershed", "otsu", "nothing"),
    Side("LeuSAM", "leusam", "real"),
    Side("UNet", "unet", "real"),
    Side("UNet++", "unetpp", "real"),
    Side("LeuSAM, phantoms only", "leusam", "phantoms"),
    Side("UNet, phantoms only", "unet", "phantoms"),
    Side("UNet++, phantoms only", "unetpp", "phantoms"),
    Side("UNet, LeuSAM's CPU time", "unet", "real", "LeuSAM"),
    Side("UNet++, LeuSAM's CPU time", "unetpp", "real", "LeuSAM"),
    Side("LeuSAM, UNet++'s CPU time", "leusam", "real", "UNet++"),
)


@dataclass(frozen=True)
class Budget:
    """How much there is."""

    steps: int
    limit: int | None = None
    """Images of each set; None = all."""
    phantoms: int = 400


@dataclass(frozen=True)
class Trained:
    """A side's network and what it cost."""

    weights: dict[str, Tensor]
    facts: dict[str, float]


def play(side: Side, folder: Path, config: Config, budget: Budget, cpu_s: float | None) -> dict[str, Any]:
    """All figures of one side: rows per image, and the training's facts. ``cpu_s``: see Side.seconds_of."""
    torch.set_num_threads(1)
    sets = loaded(folder, config.model_dump_json(), budget.limit)
    config = for_side(config, side)
    trained = learn(side, sets, config, budget, cpu_s)
    segmenter = build_segmenter(config, trained.weights)
    rows = [
        row | {"side": side.title, "set": name, "prompt": prompt}
        for name, photos in sets.tests.items()
        for prompt in PROMPTS
        for photo in photos
        for row in measured(segmenter, photo, prompt, config)
    ]
    return {"side": dataclasses.asdict(side), "facts": trained.facts, "rows": rows}


@lru_cache(maxsize=1)
def loaded(folder: Path, config: str, limit: int | None) -> Sets:
    """The images, read once in a process."""
    return load(folder, Config.model_validate_json(config), limit)


def for_side(config: Config, side: Side) -> Config:
    """The config with the side's model."""
    return config.model_copy(update={"segment": config.segment.model_copy(update={"model": side.model})})


# ---- learning --------------------------------------------------------------------------------------


def learn(side: Side, sets: Sets, config: Config, budget: Budget, cpu_s: float | None) -> Trained:
    """Train from scratch on its windows; nothing where there is nothing to learn."""
    build = SEGMENTERS[side.model].build_learner
    if build is None:
        return Trained({}, {})
    train, valid = sets.train, sets.valid
    if side.learns_from == "phantoms":
        drawn = phantoms(budget.phantoms, config)
        cut = max(1, len(drawn) // 8)
        train, valid = drawn[::2] + drawn[1::2][cut:], drawn[1::2][:cut]
    learner = build(config.segment, derive_seed(SEED, 1))
    arrays, kept = windows(train, config), windows(valid, config)
    facts = {"windows": len(arrays["mask"]), "validation_windows": len(kept["mask"])}
    facts["parameters"] = sum(p.numel() for net in learner.nets.values() for p in net.parameters())
    steps = budget.steps if cpu_s is None else affordable(build(config.segment, 0), arrays, config, cpu_s)
    fitted = fit(learner, arrays, kept, steps, config.segment.train.batch_size)
    return Trained(fitted.weights, facts | fitted.facts)


def affordable(learner: Learner, arrays: Arrays, config: Config, cpu_s: float) -> int:
    """Steps that fit into so many seconds of CPU time, by a few that are timed."""
    learner.prepare(torch.device("cpu"), lambda net: net, 10)
    learner.set_train(True)
    batch = {key: torch.from_numpy(value[: config.segment.train.batch_size]) for key, value in arrays.items()}
    learner.train_step(batch)
    begun = time.process_time()
    for _ in range(4):
        learner.train_step(batch)
    return max(1, int(cpu_s / ((time.process_time() - begun) / 4)))


def fit(
    learner: Learner, train: Arrays, valid: Arrays, steps: int, batch_size: int, seed: int = SEED
) -> Trained:
    """So many steps; the weights that were best on the validation part. ``seed``: of order and turns."""
    learner.prepare(torch.device("cpu"), lambda net: net, steps)
    rng, order = np.random.default_rng(derive_seed(seed, 2)), np.zeros(0, np.int64)
    torch.manual_seed(derive_seed(seed, 3))
    best, weights = -1.0, {}
    every = max(1, steps // VALIDATIONS)
    begun, wall, cpu = time.process_time(), 0.0, 0.0
    for step in range(steps):
        at = time.perf_counter(), time.process_time()
        if len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(train["mask"]))])
        index, order = order[:batch_size], order[batch_size:]
        learner.set_train(True)
        learner.schedule()
        learner.train_step({key: torch.from_numpy(value[index]) for key, value in train.items()})
        wall, cpu = wall + time.perf_counter() - at[0], cpu + time.process_time() - at[1]
        if (step + 1) % every == 0 or step + 1 == steps:
            score = validate(learner, valid, batch_size)
            if score > best:
                best, weights = score, next(iter(learner.weights().values()))
    whole = time.process_time() - begun
    facts = {"steps": steps, "wall_s": wall, "cpu_s": cpu, "with_validation_cpu_s": whole, "val_iou": best}
    return Trained(weights, facts)


def validate(learner: Learner, valid: Arrays, batch_size: int) -> float:
    """IoU on the validation part."""
    learner.set_train(False)
    outputs = []
    for start in range(0, len(valid["mask"]), batch_size):
        part = slice(start, start + batch_size)
        outputs.append(learner.predict_step({k: torch.from_numpy(v[part]) for k, v in valid.items()}))
    return learner.score({key: torch.cat([o[key] for o in outputs]) for key in outputs[0]})["val_iou"]


# ---- measuring -------------------------------------------------------------------------------------


def measured(segmenter: Segmenter, photo: Photo, prompt: str, config: Config) -> list[dict[str, Any]]:
    """Figures of one image, against each annotator."""
    boxes = PROMPTS[prompt](photo, config)
    found = list(segmenter.segment(photo.rgb, boxes)[0]) if boxes else []
    rows = [row_of(photo, "first", image_fit(found, photo.cells))]
    if photo.second is not None:
        both = consensus(photo.cells[0], photo.second)
        rows.append(row_of(photo, "second", image_fit(found, [photo.second])))
        rows.append(row_of(photo, "consensus", image_fit(found, [both])))
    return rows


def row_of(photo: Photo, truth: str, fit: ImageFit) -> dict[str, Any]:
    """As plain values; null where there is no distance."""
    far = fit.mean("hausdorff95")
    return {
        "image": photo.name,
        "group": photo.group,
        "truth": truth,
        "dice": fit.mean("dice"),
        "iou": fit.mean("iou"),
        "hausdorff95": None if np.isnan(far) else far,
        "cells": len(fit.cells),
        "missed": fit.missed,
        "extra": fit.extra,
    }


def human(folder: Path, config: Config, budget: Budget) -> list[dict[str, Any]]:
    """The annotators of the tested half of ALL-IDB2 against each other, and against their consensus."""
    photos = loaded(folder, config.model_dump_json(), budget.limit).tests["all-idb2"]
    rows = []
    for photo in (photo for photo in photos if photo.second is not None):
        first, second = photo.cells[0], photo.second
        assert second is not None
        both = consensus(first, second)
        pairs = (
            ("second annotator", second, "first", first),
            ("first annotator", first, "second", second),
            ("second annotator", second, "consensus", both),
            ("first annotator", first, "consensus", both),
        )
        known = {"set": "all-idb2", "prompt": "by hand"}
        for side, mask, truth, true in pairs:
            fit = ImageFit((fit_of(mask, true),), 0, 0)
            rows.append(row_of(photo, truth, fit) | known | {"side": side})
    return rows


# ---- speed -----------------------------------------------------------------------------------------


def race(folder: Path, config: Config, budget: Budget) -> list[dict[str, Any]]:
    """Every segmenter one after another, with fresh weights: those do not change its time."""
    torch.set_num_threads(1)
    sets, found = loaded(folder, config.model_dump_json(), budget.limit), []
    for model, kind in SEGMENTERS.items():
        own = config.model_copy(update={"segment": config.segment.model_copy(update={"model": model})})
        learner = kind.build_learner(own.segment, 0) if kind.build_learner else None
        segmenter = build_segmenter(own, learner.weights()[model] if learner else {})
        for name, photos in sets.tests.items():
            found.append({"title": kind.title, "set": name} | speed(segmenter, photos, own))
    return found


@torch.no_grad()
def speed(segmenter: Segmenter, photos: Sequence[Photo], config: Config) -> dict[str, float]:
    """Median milliseconds an image: the boxes, `segment`, and the bare forward on the very same windows."""
    chosen = [photos[i] for i in np.linspace(0, len(photos) - 1, min(TIMED, len(photos))).astype(int)]
    found: dict[str, list[float]] = {"boxes_ms": [], "segment_ms": [], "forward_ms": [], "over_forward": []}
    for photo in chosen:
        begun = time.perf_counter()
        boxes = PROMPTS["automatic"](photo, config)
        found["boxes_ms"].append(1000 * (time.perf_counter() - begun))
        if boxes:
            whole = fastest(partial(segmenter.segment, photo.rgb, boxes))
            found["segment_ms"].append(whole)
            bare = bare_forward(segmenter, photo, boxes, config)
            if bare is not None:
                found["forward_ms"].append(fastest(bare))
                found["over_forward"].append(whole / found["forward_ms"][-1])
    return {name: float(np.median(values)) for name, values in found.items() if values}


def fastest(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of some calls: what the machine can do, whatever else it does."""
    taken = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begun))
    return min(taken)


def bare_forward(
    segmenter: Segmenter, photo: Photo, boxes: Sequence[Box], config: Config
) -> Callable[[], object] | None:
    """The network alone on windows that are cut already; None where there is no network."""
    size = config.segment.image_size
    places = [window_of(box, photo.rgb.shape, config.segment) for box in boxes]
    image = torch.from_numpy(np.stack([cut_window(photo.rgb, place, size) for place in places]))
    prompts = [to_window(box, place, size) for box, place in zip(boxes, places, strict=True)]
    box = torch.from_numpy(np.stack(prompts))
    if isinstance(segmenter, CellSegmenter):
        model = segmenter.model
        return lambda: model.decode(model.embed(image), box)
    return partial(segmenter.net, image, box) if isinstance(segmenter, UNetSegmenter) else None
