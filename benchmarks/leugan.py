"""What each of LeuGAN's extras brings, and whether its cells help a classifier: on real cells.

    python -m benchmarks.leugan extras --data FOLDER [--out FILE] [--sets all-idb2] [--seeds 0 1 2]
    python -m benchmarks.leugan worth  --data FOLDER [--out FILE] [--sets all-idb2 taleqani]

FOLDER holds `all-idb2` (with `masks-putzu`) and `taleqani`; benchmarks/leugan_data.py cuts the cells.
`extras`: LeuGAN learns one class' cells of the training groups with all extras, with each left out, and in
the paper's form; its cells are held against those it learned from. `worth`: see benchmarks/leugan_worth.py.
Every seed is a split, networks and latents of its own. A run that was broken off goes on, where FILE is still
there. `--quick` shows that it runs; its figures are worth nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.leugan_data import SETS, Cells, halves
from benchmarks.leugan_worth import ARMS, MINOR, Budget, judge, worth_tables
from benchmarks.real_sets import machine
from benchmarks.selection_tables import markdown
from cotray.config import Config, load_config
from cotray.fitting.loop import fit_here
from cotray.synthesis.quality import cell_quality
from cotray.synthesis.sample import synthesize
from cotray.synthesis.training import leugan_job, load_generator

Row = dict[str, Any]
ALL = ("gan.spectral_norm=true", "gan.diffaugment=true", "gan.train.ema=0.99")
NONE = ("gan.spectral_norm=false", "gan.diffaugment=false", "gan.train.ema=0")
FORMS: dict[str, tuple[str, ...]] = {
    "all three": ALL,
    "without spectral norm": (NONE[0], *ALL[1:]),
    "without DiffAugment": (ALL[0], NONE[1], ALL[2]),
    "without EMA": (*ALL[:2], NONE[2]),
    "none (paper's form)": NONE,
}
SHOWN = ("frechet", "kernel", "precision", "recall", "diversity", "variety", "nearest_ratio", "nearer_auroc")
QUICK = ("gan.image_size=32", "gan.channels=16", "gan.train.max_steps=4")


def main() -> None:
    """Run what was asked for, and print."""
    given = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = earlier(given.out)
    done = {tuple(row["key"]) for row in known}
    for row in (extras if given.what == "extras" else worth)(given, done):
        known.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if given.out:
            given.out.write_text("\n".join(json.dumps(row) for row in known) + "\n")
    print(f"Machine: {machine()}; one thread.\n")
    print(extras_table(known) if given.what == "extras" else worth_tables(known))


def parse() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("extras", "worth"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="file for all raw rows")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=["all-idb2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", action="append", default=[], help="a setting, as for cotray run")
    parser.add_argument("--steps", type=int, default=Budget.steps, help="of the classifier")
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=list(FORMS))
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def earlier(out: Path | None) -> list[Row]:
    """Rows of a broken-off run."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []


def settings(given: argparse.Namespace, *sets: str) -> Config:
    """The tiny preset with some settings changed."""
    return load_config("tiny", overrides=[*sets, *given.set, *(QUICK if given.quick else ())])


# ---- what each extra brings ------------------------------------------------------------------------


def extras(given: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[Row]:
    """A row for each data set, seed and form."""
    for name in given.sets:
        cells = SETS[name](given.data)
        for seed in given.seeds:
            train, test = (_of(part, MINOR[name]) for part in halves(cells, seed))
            yield from _reference(name, seed, train, test, done)
            for form in given.forms:
                if (name, seed, form) not in done:
                    yield _form(name, seed, form, train, settings(given, *FORMS[form]))


def _of(cells: Cells, label: int) -> Cells:
    return cells.take(cells.label_N == label)


def _form(name: str, seed: int, form: str, train: Cells, config: Config) -> Row:
    began = time.process_time()
    job = leugan_job(config.gan, train.image_NSS3, seed)
    weights, history = fit_here(job)
    drawn = synthesize(load_generator(config.gan, weights), len(train), seed + 100)
    real = np.concatenate([job.train["image"], job.valid["image"]])
    figures = cell_quality(real, drawn, seed)
    facts = {"cells": len(train), "epochs": len(history), "cpu_s": time.process_time() - began}
    return {"key": [name, seed, form], **facts, **figures}


def _reference(name: str, seed: int, train: Cells, test: Cells, done: set[tuple[Any, ...]]) -> Iterator[Row]:
    """Real cells of other groups, as if they had been drawn: what a perfect generator might reach."""
    form = "real cells of other groups"
    if (name, seed, form) not in done:
        yield {"key": [name, seed, form], **cell_quality(train.image_NSS3, test.image_NSS3, seed)}


def extras_table(rows: list[Row]) -> str:
    """Mean and deviation over seeds for each data set and form."""
    lines = [["data set", "form", "seeds", *(name.replace("_", " ") for name in SHOWN)]]
    for name in dict.fromkeys(row["key"][0] for row in rows):
        for form in dict.fromkeys(row["key"][2] for row in rows if row["key"][0] == name):
            mine = [row for row in rows if row["key"][::2] == [name, form]]
            values = [[row[f"pixels_pca_{figure}"] for row in mine] for figure in SHOWN]
            lines.append([name, form, str(len(mine)), *map(spread, values)])
    return markdown(lines)


def spread(values: list[float]) -> str:
    """``0.91 ± 0.02``: mean and deviation over seeds."""
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


# ---- whether synthetic cells help ------------------------------------------------------------------


def worth(given: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[Row]:
    """A row for each data set, seed and arm."""
    config = settings(given)
    budget = Budget(4 if given.quick else given.steps)
    for name in given.sets:
        cells = SETS[name](given.data)
        for seed in given.seeds:
            todo = [arm for arm in given.arms if (name, seed, arm) not in done]
            yield from judge(name, cells, seed, todo, config, budget)


if __name__ == "__main__":
    main()
