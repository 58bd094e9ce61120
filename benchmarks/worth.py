"""What each part of the method is worth on real cells, against resnet18 and against colour alone.

    python -m benchmarks.worth run all-idb2=/data/ALL_IDB2 [taleqani=/data/taleqani/Original]
    python -m benchmarks.worth settings all-idb2=/data/ALL_IDB2 taleqani=/data/taleqani/Original [--jobs 2]
    python -m benchmarks.worth chosen [--out DIR]
    python -m benchmarks.worth across all-idb2=/data/ALL_IDB2 taleqani=/data/taleqani/Original [--jobs 2]
    python -m benchmarks.worth table [--out DIR]

`run`: five folds over groups, a network seed for each; every group is tested once in each of `--seeds`.
Each answer goes to a file at once, and a repeated command does what is missing (`--preset`, `--set KEY=VALUE`
with a `--tag` of its own); `--arms` runs arms by name, or other backbones alone, and
`--set backbone.name=cotconet` (or `resnet18` ...) all arms with that backbone in SMod's place.
`settings`: many settings on the same folds, of which only validation figures are shown. `chosen`: what the
other data set's validation parts would choose, tested. `across`: one set is learnt, the other asked, with
more or less jitter of light and stain. `table`: mean and deviation over the folds, the interval by resampling
groups of all folds together, and differences to the method, fold by fold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real_sets import machine
from benchmarks.worth_across import across, shown
from benchmarks.worth_arms import CELL_ARMS, FLOOR, FOLDS, Fold, scores
from benchmarks.worth_cells import CellSet, load
from benchmarks.worth_settings import METHOD, ranked, search
from cotray.config import load_config
from cotray.evaluation.intervals import bootstrap_intervals
from cotray.evaluation.metrics import classification_metrics

METRICS = ("balanced_accuracy", "auroc")


def main() -> None:
    """Run, or print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("run", "settings", "chosen", "across", "table"))
    parser.add_argument("sets", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/worth"))
    parser.add_argument("--tag", default="tiny", help="names what --set says, in the file of answers")
    parser.add_argument("--arms", nargs="*", help="only these; or other backbones by name, alone")
    parser.add_argument("--tried", nargs="*", help="only these settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="splits into folds")
    parser.add_argument("--preset", default="tiny", help="run: whose settings --set changes")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; run: one a fold")
    parser.add_argument("--cells", type=int, help="run: most cells of an image, where --out is new")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, default=FOLDS, help="run, table: only the first so many")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    for item in given.sets:
        name, _, root = item.partition("=")
        cells = load(name, root, given.out, given.cells)
        if given.what == "run":
            run(name, cells, given)
    if given.what == "settings":
        search(given)
    if given.what in ("settings", "chosen"):
        print(ranked(given.out, test=given.what == "chosen"))
    if given.what == "across":
        across(given)
        print(shown(given.out))
    if given.what == "table":
        print(f"Machine: {machine()}.\n")
        for path in sorted(given.out.glob("*.answers.jsonl")):
            print(table(path, given.out, given.folds))


def run(name: str, cells: CellSet, given: argparse.Namespace) -> None:
    """Every arm of every fold that has no answer yet; folds in processes of their own where `--jobs` says."""
    folds = list(itertools.product(given.seeds, range(given.folds)))
    if given.jobs == 1:
        for of in folds:
            run_fold(name, cells, given, of)
        return
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run_fold, name, cells, given, of) for of in folds]
    for future in running:
        future.result()


def run_fold(name: str, cells: CellSet, given: argparse.Namespace, of: tuple[int, int]) -> None:
    """The arms of one fold that have no answer yet."""
    torch.set_num_threads(given.threads)
    path = given.out / f"{name}.{given.tag}.answers.jsonl"
    done = {row["arm"] for row in answers(path) if place(row) == of}
    fold = Fold(cells, load_config(given.preset, overrides=given.settings), of[1], of[0], given.device)
    for arm in given.arms or (FLOOR, *CELL_ARMS):
        if arm in done:
            continue
        row = scores(fold, arm) | {"settings": given.settings, "seed": of[0]}
        with path.open("ab", buffering=0) as file:  # whole lines, whoever else writes
            file.write((json.dumps(row) + "\n").encode())
        known = classification_metrics(
            cells.label_M[row["image"]], np.array(row["prob"]), threshold=row["threshold"]
        )
        shown = (f"{known[m]:.3f}" for m in METRICS)
        print(name, *of, arm, *shown, f"{row['cpu']:.0f} s", flush=True)


def answers(path: Path) -> list[dict[str, Any]]:
    """All rows of a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path, out: Path, most: int = FOLDS) -> str:
    """One data set's figures as Markdown."""
    name, tag = path.name.split(".")[:2]
    with np.load(out / f"{name}.npz") as arrays:
        label_M, group_M = arrays["label_M"], arrays["group_M"]
    rows = [row for row in answers(path) if row["fold"] < most]
    arms = dict.fromkeys([FLOOR, *CELL_ARMS, *(row["arm"] for row in rows)])
    folds = {arm: {place(row): row for row in rows if row["arm"] == arm} for arm in arms}
    head = f"**{name}, {tag}** ({len(label_M)} images, {len(set(group_M))} groups, {FOLDS} folds a split)\n\n"
    columns = ("balanced accuracy", "interval over groups", "AUROC", "interval over groups")
    head += f"| | folds | {' | '.join(columns)} | the method less this | CPU s a fold |\n"
    head += "|---" + "|---:" * (len(columns) + 3) + "|\n"
    return head + "\n".join(line(arm, folds, label_M, group_M) for arm in folds if folds[arm]) + "\n"


def place(row: dict[str, Any]) -> tuple[int, int]:
    """(split, fold) of an answer."""
    return row.get("seed", 0), row["fold"]


def line(arm: str, folds: dict[str, dict[tuple[int, int], Any]], label_M: Any, group_M: Any) -> str:
    """Mean and deviation over folds, pooled interval, difference fold by fold with its standard error."""
    by_fold = {number: figures(row, label_M) for number, row in folds[arm].items()}
    cells = []
    for metric in METRICS:
        values = np.array([known[metric] for known in by_fold.values()])
        low, high = interval(folds[arm], label_M, group_M, metric)
        deviation = values.std(ddof=1) if len(values) > 1 else float("nan")
        cells += [f"{values.mean():.3f} ± {deviation:.3f}", f"{low:.3f} to {high:.3f}"]
    method = {number: figures(row, label_M) for number, row in folds[METHOD].items()}
    both = sorted(set(method) & set(by_fold))
    gaps = [method[n]["balanced_accuracy"] - by_fold[n]["balanced_accuracy"] for n in both]
    error = np.std(gaps, ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else float("nan")
    gap = "" if arm == METHOD or not both else f"{np.mean(gaps):+.3f} ± {error:.3f}"
    seconds = np.median([row["cpu"] for row in folds[arm].values()])
    return f"| {arm} | {len(by_fold)} | {' | '.join(cells)} | {gap} | {seconds:.0f} |"


def figures(row: dict[str, Any], label_M: Any) -> dict[str, float]:
    """Of a fold's test images, at the threshold that its validation images gave."""
    return classification_metrics(label_M[row["image"]], np.array(row["prob"]), threshold=row["threshold"])


def interval(
    rows: dict[tuple[int, int], Any], label_M: Any, group_M: Any, metric: str
) -> tuple[float, float]:
    """All folds' images together, each fold's threshold moved to one half."""
    image = np.concatenate([row["image"] for row in rows.values()]).astype(int)
    moved = [shifted(np.array(row["prob"]), row["threshold"]) for row in rows.values()]
    known = bootstrap_intervals(label_M[image], np.concatenate(moved), group_M[image], threshold=0.5)
    return known[metric]


def shifted(prob_M: np.ndarray, threshold: float) -> np.ndarray:
    """A monotone map of 0..1 that takes the threshold to one half."""
    low = prob_M / max(threshold, 1e-9) / 2
    high = 1 - (1 - prob_M) / max(1 - threshold, 1e-9) / 2
    return np.clip(np.where(prob_M < threshold, np.minimum(low, 0.5 - 1e-9), high), 0, 1)


if __name__ == "__main__":
    main()
