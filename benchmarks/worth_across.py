"""What is left on slides of another laboratory: networks learn one data set and are asked about the other.

A fold's validation groups stay apart for the schedule and the threshold; all other groups are learnt. What
jitter of light and stain costs at home and brings away is the question. N cells, M images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.selection_tables import markdown
from benchmarks.worth_arms import Fold, Prob, cell_forest, head, histograms, image_forest, images
from benchmarks.worth_cells import CellSet, load
from benchmarks.worth_settings import LONG, rows_of
from cotray.config import load_config
from cotray.evaluation.metrics import classification_metrics, steady_threshold

JITTER: dict[str, tuple[str, ...]] = {
    "none": (),
    "0.05": ("backbone.augment.stain=0.05",),
    "0.15": ("backbone.augment.stain=0.15",),
    "0.3, hue 0.05": ("backbone.augment.stain=0.3", "backbone.augment.hue=0.05"),
    "0.3, hue 0.15": ("backbone.augment.stain=0.3", "backbone.augment.hue=0.15"),
}
NETWORKS = {"backbone": "cotconet", "resnet18": "resnet18"}
COLOURS = ("colour alone", "colour of the cells alone")
Row = dict[str, Any]


def across(given: argparse.Namespace) -> None:
    """Run what has no answer yet, several processes at a time."""
    path = given.out / "across.jsonl"
    done = {(row["learnt"], row["arm"], row["jitter"], row["seed"]) for row in rows_of(path)}
    kinds = [*itertools.product(NETWORKS, JITTER), *((arm, "none") for arm in COLOURS)]
    tasks = [
        (home, away, arm, jitter, seed)
        for home, away in itertools.permutations(given.sets, 2)
        for arm, jitter in kinds
        for seed in given.seeds
        if (home.partition("=")[0], arm, jitter, seed) not in done
    ]
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(one, *task, given.out, given.device, given.settings) for task in tasks]
        for number, future in enumerate(as_completed(running), 1):
            row = future.result()
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            told = f"{row['learnt']} -> {row['asked']}, {row['arm']}, jitter {row['jitter']}"
            print(f"{number}/{len(tasks)} {told}, seed {row['seed']}: {row['auroc']:.3f}", flush=True)


def one(
    home: str, away: str, arm: str, jitter: str, seed: int, out: Path, device: str, base: list[str]
) -> Row:
    """Figures at home (validation groups) and away (all of the other set)."""
    torch.set_num_threads(1)
    config = load_config(overrides=[*LONG, *JITTER[jitter], *base])
    mine, theirs = (load(*item.partition("=")[::2], out) for item in (home, away))
    fold = learnt(Fold(mine, config, seed, device=device))
    known_M, asked_M = answers(fold, arm, theirs)
    val = fold.side_M == "val"
    threshold = steady_threshold(mine.label_M[val], known_M[val])
    at_home = classification_metrics(mine.label_M[val], known_M[val], threshold=threshold)
    there = classification_metrics(theirs.label_M, asked_M, threshold=threshold)
    names = {"learnt": home.partition("=")[0], "asked": away.partition("=")[0]}
    figures = {"auroc": there["auroc"], "balanced_accuracy": there["balanced_accuracy"]}
    figures |= {"home_auroc": at_home["auroc"], "home_balanced_accuracy": at_home["balanced_accuracy"]}
    return {**names, "arm": arm, "jitter": jitter, "seed": seed, **figures}


def learnt(fold: Fold) -> Fold:
    """The fold with its test groups learnt too: the other set is the test."""
    fold.side_M = np.where(fold.side_M == "test", "train", fold.side_M)
    fold.side_N = fold.side_M[fold.cells.of_N]
    return fold


def answers(fold: Fold, arm: str, theirs: CellSet) -> tuple[Prob, Prob]:
    """Probabilities of the images of both sets."""
    mine = fold.cells
    if arm == "colour alone":
        trees = image_forest(fold)
        return trees.predict_proba(mine.colour_MH), trees.predict_proba(theirs.colour_MH)
    if arm in COLOURS:
        trees = cell_forest(fold)
        home, away = (trees.predict_proba(histograms(cells)) for cells in (mine, theirs))
    else:
        name = NETWORKS[arm]
        home, away = (head(fold, name, fold.embedder(name)(cells.image_NSS3)) for cells in (mine, theirs))
    return images(fold, home), images(Fold(theirs, fold.config, 0), away)


# ---- what they say -----------------------------------------------------------------------------------------


def shown(out: Path) -> str:
    """Means and deviations over seeds."""
    return markdown(list(lines(rows_of(out / "across.jsonl"))))


def lines(rows: list[Row]) -> Iterator[list[str]]:
    """A line for each set learnt, arm and jitter."""
    metrics = ("home_auroc", "home_balanced_accuracy", "auroc", "balanced_accuracy")
    heads = ("AUROC at home", "balanced accuracy at home", "AUROC away", "balanced accuracy away")
    yield ["learnt", "asked", "arm", "jitter", "seeds", *heads]
    kinds = dict.fromkeys((row["learnt"], row["asked"], row["arm"], row["jitter"]) for row in rows)
    for kind in sorted(kinds, key=lambda kind: (*kind[:3], [*JITTER].index(kind[3]))):
        mine = [r for r in rows if (r["learnt"], r["asked"], r["arm"], r["jitter"]) == kind]
        yield [*kind, str(len(mine)), *(spread([r[metric] for r in mine]) for metric in metrics)]


def spread(values: list[float]) -> str:
    """Mean and deviation."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {deviation:.3f}"
