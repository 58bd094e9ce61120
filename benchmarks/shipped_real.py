"""What the LeuSAM that comes with cotray is worth on photographs: as it is, and as a start for training.

    python -m benchmarks.shipped_real --data FOLDER [--weights FILE ...] [--steps 100,300]

FOLDER holds `jtsc`, `all-idb2` and `bccd`; halves as in benchmarks/segmentation_data.py. What is chosen
(which file is shipped, whether training starts from it) is chosen on JTSC, ALL-IDB2's other half and BCCD's
even-numbered images; ALL-IDB2's tested half and BCCD's odd-numbered images only report. With `--steps` the
starts of training are compared, else the files are measured as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_sets import machine
from benchmarks.segmentation_data import SEED, Photo, Sets, automatic_boxes, bccd, load, windows
from benchmarks.segmentation_sides import Arrays, fit, validate
from cotray.config import Config, load_config
from cotray.evaluation.masks import image_fit
from cotray.learning import derive_seed
from cotray.predictor import build_segmenter
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.shipped import load_shipped, shipped_path

Weights = Mapping[str, Tensor]


def main() -> None:
    """Measure what was asked for, and print."""
    given = parse()
    torch.set_num_threads(1)
    print(f"Machine: {machine()}; one thread.\n", flush=True)
    if given.steps:
        starts(given)
        return
    for method in ("none", Config().enhance.method):
        config = load_config("tiny", overrides=[f"enhance.method={method}"])
        sets = load(given.data, config)
        for path in given.weights:
            shipped = load_shipped(path)
            row = {"weights": shipped.digest[:12], "enhance": method}
            print(json.dumps(row | as_it_is(shipped.weights, given.data, sets, config)), flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, required=True, help="folder of jtsc, all-idb2 and bccd")
    parser.add_argument("--weights", type=Path, nargs="+", default=[shipped_path()])
    parser.add_argument("--steps", default="", help="budgets of training, as 100,300")
    parser.add_argument(
        "--seeds", default="0,1,2", help="of the networks, the order of windows and their turns"
    )
    parser.add_argument("--only", choices=("scratch", "shipped"), help="one of the two starts")
    return parser.parse_args()


def as_it_is(weights: Weights, data: Path, sets: Sets, config: Config) -> dict[str, dict[str, float]]:
    """Figures of each set; those that choose come first."""
    learned = [*sets.train, *sets.valid]
    parts = {
        "jtsc": [photo for photo in learned if not photo.name.startswith("Im")],
        "all-idb2, other half": [photo for photo in learned if photo.name.startswith("Im")],
        "bccd, even": bccd(data / "bccd", config, None, odd=False),
        **{f"{name}, tested": photos for name, photos in sets.tests.items()},
    }
    return {name: figures(weights, photos, config) for name, photos in parts.items()}


def figures(weights: Weights, photos: list[Photo], config: Config) -> dict[str, float]:
    """IoU of found cells with the first annotator's: mean, median, lowest tenth; its own opinion of them."""
    segmenter = build_segmenter(config, weights)
    found, opinion = [], []
    for photo in photos:
        boxes = automatic_boxes(photo, config)
        masks, scores = segmenter.segment(photo.rgb, boxes)
        found.append(image_fit(list(masks), photo.cells).mean("iou"))
        opinion += scores.tolist()
    values = {"mean": np.mean(found), "median": np.median(found), "tenth": np.quantile(found, 0.1)}
    return {name: round(float(v), 3) for name, v in (values | {"predicted": np.mean(opinion)}).items()}


def starts(given: argparse.Namespace) -> None:
    """Training from nothing against training from each file, after the same steps."""
    config = load_config("tiny")
    sets = load(given.data, config)
    train, valid = windows(sets.train, config), windows(sets.valid, config)
    files: list[Path | None] = [None] if given.only != "shipped" else []
    files += given.weights if given.only != "scratch" else []
    for path in files:
        start = load_shipped(path) if path else None
        if start:
            learner = learner_from(start.weights, config, 0)
            learner.prepare(torch.device("cpu"), lambda net: net, 1)
            score = validate(learner, valid, config.segment.train.batch_size)
            print(json.dumps({"start": start.digest[:12], "steps": 0, "val_iou": round(score, 4)}))
        for steps in map(int, given.steps.split(",")):
            for seed in map(int, given.seeds.split(",")):
                row = {"start": start.digest[:12] if start else "scratch", "steps": steps, "seed": seed}
                learner = learner_from(start.weights if start else None, config, seed)
                print(json.dumps(row | trained(learner, train, valid, steps, seed, sets, config)), flush=True)


def learner_from(weights: Weights | None, config: Config, seed: int) -> LeuSamLearner:
    """A learner that begins with these weights, or from nothing."""
    learner = LeuSamLearner(config.segment, derive_seed(SEED + seed, 1))
    if weights is not None:
        learner.load_weights({"leusam": dict(weights)})
    return learner


def trained(
    learner: LeuSamLearner,
    train: Arrays,
    valid: Arrays,
    steps: int,
    seed: int,
    sets: Sets,
    config: Config,
) -> dict[str, float]:
    """IoU on the validation windows, which choose, and on the tested sets."""
    begun = time.process_time()
    fitted = fit(learner, train, valid, steps, config.segment.train.batch_size, SEED + seed)
    facts = {"val_iou": round(fitted.facts["val_iou"], 4), "cpu_s": round(time.process_time() - begun)}
    tested = {n: figures(fitted.weights, photos, config)["mean"] for n, photos in sets.tests.items()}
    return facts | tested


if __name__ == "__main__":
    main()
