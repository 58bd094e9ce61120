"""Settings of the backbone and of what follows it, on the folds of benchmarks.worth.

Each setting is run on every fold; answers on validation and test images go to ``NAME.settings.jsonl``. What
is chosen for one data set is chosen by the validation images of the other, so that no group that is tested
had a say in it. M images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.selection_tables import markdown
from benchmarks.worth_arms import FOLDS, Fold, scores
from benchmarks.worth_cells import load
from cotray.config import load_config
from cotray.evaluation.metrics import classification_metrics

METHOD, OWN, RIVAL = "+ both (the method)", "backbone", "resnet18"
FAIR = ("backbone.augment", "backbone.train", "backbone.image_size", "backbone.label_smoothing")
"""What a rival backbone has too."""
SHORT = (
    "backbone.name=cotconet",
    "backbone.augment.stain=0",
    "backbone.train.epochs=25",
    "backbone.train.max_steps=350",
)
"""What every setting starts from."""
LONG = ("backbone.train.epochs=75", "backbone.train.max_steps=1050")
LONGER = ("backbone.train.epochs=225", "backbone.train.max_steps=3150")
TURNED = ("backbone.augment.rotate=180", "backbone.augment.zoom=0.15")
JITTER, SOME_JITTER = ("backbone.augment.stain=0.15",), ("backbone.augment.stain=0.05",)
TRIED: dict[str, tuple[str, ...]] = {
    "short": (),
    "short, some jitter": SOME_JITTER,
    "short, jitter": JITTER,
    "short, more jitter, hue": ("backbone.augment.stain=0.3", "backbone.augment.hue=0.03"),
    "long": LONG,
    "longer": LONGER,
    "long, jitter": (*LONG, *JITTER),
    "long, turned, zoomed, averaged": (*LONG, *TURNED, "backbone.train.ema=0.99"),
    "turned and zoomed": TURNED,
    "moving average": ("backbone.train.ema=0.98",),
    "64 px": ("backbone.image_size=64",),
    "128 px": ("backbone.image_size=128",),
    "160 px": ("backbone.image_size=160",),
    "rate / 3": ("backbone.train.lr=3e-4",),
    "rate x 2": ("backbone.train.lr=2e-3",),
    "batches of 16": ("backbone.train.batch_size=16",),
    "no smoothing of labels": ("backbone.label_smoothing=0",),
    "more decay": ("backbone.train.weight_decay=0.1",),
    "four layers": ("backbone.layers=4",),
    "one layer": ("backbone.layers=1",),
    "patches of 16": ("backbone.patch=16",),
    "dropout 0.1": ("backbone.smod.dropout=0.1",),
    "half the filters": ("backbone.smod.filters=[16, 32, 64, 128, 128]",),
    "SMod alone": ("backbone.name=smod",),
    "pool first": ("backbone.smod.order=alg1",),
    "GMod's map as loud as the image": ("backbone.gmod_scale=1",),
    "GMod's map alone": ("backbone.skip=false",),
    "3 neighbours": ("grafr.k=3",),
    "30 neighbours": ("grafr.k=30",),
    "reconstruction alone": ("grafr.mode=replace",),
    "HDLC: dropout 0.5": ("hdlc.dropout=0.5",),
    "HDLC: more decay": ("hdlc.train.weight_decay=0.1",),
    "HDLC: rate / 3": ("hdlc.train.lr=3e-4",),
}
Row = dict[str, Any]


def search(given: argparse.Namespace) -> None:
    """Run what has no answer yet, several processes at a time."""
    tasks = [
        (item, title, seed)
        for item in given.sets
        for title in given.tried or TRIED
        for seed in given.seeds
        if (title, seed) not in finished(path_of(given.out, item.partition("=")[0]))
    ]
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(one, *task, given.out, given.device, given.settings): task for task in tasks}
        for number, future in enumerate(as_completed(running), 1):
            item, title, seed = running[future]
            if error := future.exception():
                print(f"{item} {title}: {error!r}", flush=True)
                continue
            with path_of(given.out, item.partition("=")[0]).open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in future.result())
            print(f"{number}/{len(tasks)} {item.partition('=')[0]}, {title}, split {seed}", flush=True)


def one(item: str, title: str, seed: int, out: Path, device: str, base: list[str]) -> list[Row]:
    """All folds of one split with one setting."""
    torch.set_num_threads(1)
    name, _, root = item.partition("=")
    cells, config = load(name, root, out), load_config(overrides=[*SHORT, *TRIED[title], *base])
    fair = all(setting.startswith(FAIR) for setting in TRIED[title])
    rows = []
    for number in range(FOLDS):
        fold = Fold(cells, config, number, seed, device)
        for arm in (METHOD, OWN, *((RIVAL,) if fair else ())):
            rows.append(scores(fold, arm) | {"title": title, "seed": seed})
    return rows


def path_of(out: Path, name: str) -> Path:
    return out / f"{name}.settings.jsonl"


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(path: Path) -> set[tuple[str, int]]:
    """Settings and splits that have answers."""
    return {(row["title"], row["seed"]) for row in rows_of(path)}


# ---- what they say -----------------------------------------------------------------------------------------


def ranked(out: Path, test: bool) -> str:
    """Validation figures of all settings; or test figures of those that the other sets chose."""
    files = sorted(out.glob("*.settings.jsonl"))
    sets = {path.name.split(".")[0]: path for path in files}
    labels = {name: np.load(out / f"{name}.npz")["label_M"] for name in sets}
    rows = {name: grouped(rows_of(path)) for name, path in sets.items()}
    lines = chosen(rows, labels) if test else validated(rows, labels)
    return markdown(list(lines))


def grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """By arm and setting."""
    found = defaultdict(list)
    for row in rows:
        found[row["arm"], row["title"]].append(row)
    return dict(found)


def validated(rows: dict[str, Any], labels: dict[str, Any]) -> Iterator[list[str]]:
    """A line for each setting: Brier score with classes of the same say, and AUROC, of validation images."""
    arms = (METHOD, OWN, RIVAL)
    yield ["set", "setting", *(f"{arm}: {what}" for arm in arms for what in ("Brier", "AUROC"))]
    for name, known in rows.items():
        titles = {title for _, title in known}
        for title in sorted(titles, key=lambda title: brier(known[METHOD, title], labels[name])):
            cells = []
            for arm in arms:
                got = known.get((arm, title))
                cells += [f"{figure(got, labels[name]):.4f}" if got else "" for figure in (brier, area)]
            yield [name, title, *cells]


def chosen(rows: dict[str, Any], labels: dict[str, Any]) -> Iterator[list[str]]:
    """A line for each set and arm: what the other sets chose, and how it did on this one's test images."""
    yield ["tested on", "arm", "chosen by the others", "balanced accuracy", "AUROC"]
    for name, known in rows.items():
        others = [other for other in rows if other != name]
        for arm in (METHOD, OWN, RIVAL):
            titles = [t for kind, t in known if kind == arm and all((arm, t) in rows[o] for o in others)]
            best = min(titles, key=lambda t: sum(brier(rows[o][arm, t], labels[o]) for o in others))
            yield [name, arm, best, *tested(known[arm, best], labels[name])]


def brier(rows: list[Row], label_M: NDArray[np.int64]) -> float:
    """Mean over folds, validation images, both classes with the same say."""
    found = []
    for row in rows:
        label, prob = label_M[row["val_image"]], np.array(row["val_prob"])
        found.append(np.mean([np.mean((prob[label == c] - c) ** 2) for c in set(label.tolist())]))
    return float(np.mean(found))


def area(rows: list[Row], label_M: NDArray[np.int64]) -> float:
    """Mean AUROC over folds of validation images."""
    known = [
        classification_metrics(label_M[row["val_image"]], np.array(row["val_prob"]), threshold=0.5)["auroc"]
        for row in rows
    ]
    return float(np.mean(known))


def tested(rows: list[Row], label_M: NDArray[np.int64]) -> list[str]:
    """Mean and deviation over folds (and splits)."""
    known = [
        classification_metrics(label_M[row["image"]], np.array(row["prob"]), threshold=row["threshold"])
        for row in rows
    ]
    found = {m: np.array([one[m] for one in known]) for m in ("balanced_accuracy", "auroc")}
    return [f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" for values in found.values()]
