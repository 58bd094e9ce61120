"""Does stain normalisation help? Colour alone, and the shipped LeuSAM's masks, with and without it.

    python -m benchmarks.stain --data FOLDER [--seeds 5]

FOLDER holds `all-idb2`. For each value of `enhance.stain`: what colour still gives away of the class (a
random forest on colour histograms, over group-disjoint splits), and IoU of the masks of the LeuSAM that comes
with cotray, which is not trained here.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from benchmarks.real_sets import machine
from benchmarks.segmentation_data import Photo, automatic_boxes, idb2
from cotray.config import Config, SplitConfig, load_config
from cotray.data.splits import make_split
from cotray.evaluation.floor import ColourFloor, colour_histogram
from cotray.evaluation.masks import image_fit
from cotray.predictor import build_segmenter
from cotray.preparation import prepare_noted
from cotray.segmentation.shipped import load_shipped

STAINS = ("none", "macenko", "reinhard")
METHODS = ("none", "clahe_sharpen")
"""What is done after it: nothing, or what runs do by default."""
HEAD = ("stain", "enhance", "left", "floor: balanced accuracy", "floor: AUROC", "LeuSAM IoU", "lowest tenth")


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, required=True, help="folder of all-idb2")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Machine: {machine()}; one thread.\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    photos = idb2(given.data / "all-idb2", config_of("none", "none"))
    for method, stain in product(METHODS, STAINS):
        config = config_of(stain, method)
        prepared = [prepare_noted(photo.rgb, config) for photo in photos]
        left = sum(item.stain_left is not None for item in prepared)
        seen = [dataclasses.replace(p, rgb=item.rgb) for p, item in zip(photos, prepared, strict=True)]
        accuracy, auroc = zip(*floors(seen, given.seeds), strict=True)
        found = masks(seen, config)
        cells = [spread(accuracy), spread(auroc), f"{np.mean(found):.3f}", f"{np.quantile(found, 0.1):.3f}"]
        print(f"| {' | '.join([stain, method, str(left), *cells])} |", flush=True)


def config_of(stain: str, method: str) -> Config:
    """`tiny` with this preparation."""
    return load_config("tiny", overrides=[f"enhance.stain={stain}", f"enhance.method={method}"])


def floors(photos: list[Photo], seeds: int) -> Iterator[tuple[float, float]]:
    """(balanced accuracy, AUROC) of colour alone on the held-out groups of each seed's split."""
    label = np.array([int(photo.name[-1]) for photo in photos])
    hist = np.stack([colour_histogram(photo.rgb) for photo in photos])
    groups = [photo.group for photo in photos]
    for seed in range(seeds):
        test = np.array(make_split(groups, label.tolist(), SplitConfig(), seed)) == "test"
        forest = ColourFloor(300, seed).fit(hist[~test], label[~test])
        prob = forest.predict_proba(hist[test])
        yield balanced_accuracy_score(label[test], prob > 0.5), roc_auc_score(label[test], prob)


def masks(photos: list[Photo], config: Config) -> list[float]:
    """IoU of each image's cell, boxes as found."""
    segmenter = build_segmenter(config, load_shipped().weights)
    return [
        image_fit(list(segmenter.segment(p.rgb, automatic_boxes(p, config))[0]), p.cells).mean("iou")
        for p in photos
    ]


def spread(values: tuple[float, ...]) -> str:
    """``0.950 (0.912 to 0.981)``: mean and range."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
