"""Makes the LeuSAM that comes with cotray: a `tiny` one, trained on phantoms only.

    python -m benchmarks.shipped_weights [--windows 3000] [--steps 1000] [--seed 0] [--out FILE]
    python -m benchmarks.shipped_weights --check

Trains on windows of drawn cells (benchmarks.shipped_windows); the weights are a moving average over the
last steps. Then measures the file on phantoms that it was not trained on, drawn as they are, prompted by
what the region-of-interest step finds. `--check` measures the file that is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.shipped_windows import Windows, draw_windows
from cotray.config import Config, EnhanceConfig, SegmentConfig, TrainConfig, validate
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.imaging.masks import iou
from cotray.imaging.roi import find_cells
from cotray.predictor import build_segmenter
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.shipped import Shipped, load_shipped, pack, shipped_path
from cotray.stages.segment_model import Ask, ImageSegmenter, Model

BATCH = 8
SETTINGS = SegmentConfig(jitter=0.05, train=TrainConfig(batch_size=BATCH, lr=1e-3, weight_decay=1e-2))
AGAIN = TrainConfig(batch_size=BATCH, lr=4e-4, weight_decay=1e-2)
"""Where training goes on from weights."""
ENHANCE = EnhanceConfig(method="none")
"""What `cotray segment` does before LeuSAM looks: nothing. It has learned from enhanced drawings as well."""
MEMORY = 0.99
"""Of the moving average of the weights."""
TEST_SEED = 2
"""Of the drawings that measure."""


# ---- training --------------------------------------------------------------------------------------


def draw(count: int, seed: int, small: float, keep: Path | None) -> Windows:
    """`count` windows, stacked; read from ``keep`` if that is there, else drawn and kept there."""
    if keep is not None and keep.exists():
        with np.load(keep) as kept:
            return dict(kept)
    items: list[Windows] = []
    for number in itertools.count():
        items += draw_windows(seed, number, SETTINGS, small)
        if len(items) >= count:
            break
    windows = {key: np.stack([item[key] for item in items[:count]]) for key in items[0]}
    if keep is not None:
        np.savez(keep, **windows)
    return windows


def train(windows: Windows, steps: int, seed: int, start: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The average of the weights over the last steps; windows are turned and re-stained at each."""
    settings = SETTINGS if start is None else SETTINGS.model_copy(update={"train": AGAIN})
    learner = LeuSamLearner(settings, seed)
    if start is not None:
        learner.load_weights({"leusam": start})
    learner.prepare(torch.device("cpu"), lambda net: net, steps)
    average = AveragedModel(learner.nets["leusam"], multi_avg_fn=get_ema_multi_avg_fn(MEMORY))
    learner.set_train(True)
    torch.manual_seed(seed)
    begun = time.perf_counter()
    for step, rows in enumerate(batches(len(windows["mask"]), steps, seed), 1):
        learner.schedule()
        figures = learner.train_step({key: torch.from_numpy(value[rows]) for key, value in windows.items()})
        average.update_parameters(learner.nets["leusam"])
        if step % 50 == 0:
            spent = time.perf_counter() - begun
            print(f"{step}/{steps}  {spent:.0f} s  {figures}", flush=True)
    return dict(average.module.state_dict())


def batches(count: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each step's windows: all of them in turn, in another order each time."""
    rng, order = np.random.default_rng(seed), np.zeros(0, np.int64)
    for _ in range(steps):
        if len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(count)])
        yield order[:BATCH]
        order = order[BATCH:]


# ---- measuring -------------------------------------------------------------------------------------


def measure(weights: dict[str, Tensor], cells: int = 150) -> dict[str, float]:
    """IoU on phantoms that were not trained on: cells found in single images and in fields; seconds."""
    model = Model(settings(), weights, "measured")
    figures: dict[str, float] = {}
    for layout, single in (("all-idb2", True), ("fields", False), ("c-nmc", True)):
        specs = phantom_index(layout, cells if single else cells // 3, 1, TEST_SEED)
        segment = ImageSegmenter(model, Ask(single=single))
        found, begun = [], time.perf_counter()
        for spec in specs:
            drawn = draw_phantom(spec)
            masks = segment(drawn.rgb).masks
            for number in range(1, len(drawn.boxes) + 1):
                true = drawn.instances == number
                found.append(max((iou(mask, true) for mask in masks), default=0.0))
        figures[f"iou {layout}"] = round(float(np.mean(found)), 4)
        figures[f"lowest tenth {layout}"] = round(float(np.quantile(found, 0.1)), 4)
        figures[f"seconds per image {layout}"] = round((time.perf_counter() - begun) / len(specs), 4)
    return figures


def settings() -> Config:
    """The whole config tree around the shipped settings."""
    return validate({"segment": SETTINGS.model_dump(), "enhance": ENHANCE.model_dump()})


def agreement(one: dict[str, Tensor], other: dict[str, Tensor], cells: int = 100) -> tuple[float, float]:
    """(mean, least) IoU of two models' masks of the same phantoms, boxes as found."""
    models = [build_segmenter(settings(), weights) for weights in (one, other)]
    values = []
    for spec in phantom_index("all-idb2", cells, 1, TEST_SEED):
        rgb = draw_phantom(spec).rgb
        boxes = [region.box for region in find_cells(rgb, settings().roi, single=True)]
        a, b = (model.segment(rgb, boxes)[0] for model in models)
        values += [iou(x, y) for x, y in zip(a, b, strict=True)]
    return float(np.mean(values)), float(np.min(values))


def command(given: argparse.Namespace, start: Shipped | None) -> str:
    """What makes these weights again, from nothing."""
    options = f"--windows {given.windows} --steps {given.steps} --seed {given.seed}"
    options += f" --small-nuclei {given.small_nuclei}" if given.small_nuclei else ""
    whole = f"python -m benchmarks.shipped_weights {options}"
    return f"{start.made['command']} && {whole} --start FILE" if start else whole


def main() -> None:
    """Train, write, measure, print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--windows", type=int, default=3000)
    parser.add_argument("--keep", type=Path, help="npz file of the windows, to draw them only once")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small-nuclei", type=float, default=0.0, help="share of drawings with small nuclei")
    parser.add_argument("--start", type=Path, help="go on from these weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=shipped_path())
    parser.add_argument("--check", action="store_true", help="measure the file that is there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if not given.check:
        begun = time.process_time()
        start = load_shipped(given.start) if given.start else None
        windows = draw(given.windows, given.seed, given.small_nuclei, given.keep)
        weights = train(windows, given.steps, given.seed, start.weights if start else None)
        made = {
            "command": command(given, start),
            "data": "phantoms drawn by cotray; no photograph",
            "cpu_seconds": round(time.process_time() - begun) + (start.made["cpu_seconds"] if start else 0),
            "torch": torch.__version__,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_bytes(pack(SETTINGS, ENHANCE, weights, made))
        mean, least = agreement(weights, load_shipped(given.out).weights)
        print(f"half against single precision: IoU {mean:.4f}, least {least:.4f}")
    shipped = load_shipped(given.out)
    print(json.dumps(shipped.made, indent=1))
    print(f"{given.out.stat().st_size / 1e6:.2f} MB, sha256 {shipped.digest}")
    print(json.dumps(measure(shipped.weights), indent=1))


if __name__ == "__main__":
    main()
