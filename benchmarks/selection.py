"""The selection engine against other libraries' searches, scikit-learn's selectors, and itself as published.

    python -m benchmarks.selection [--sets A,B] [--sides A,B] [--seeds 10,11] [--budget N] [--full]
        [--jobs 1] [--out FILE]
    python -m benchmarks.selection --scaling | --primitives

Needs the other libraries: pip install -e ".[bench]". One run of all sides, each on one core: a Markdown table
for every set, and all raw rows as JSON. What is measured on what: benchmarks/selection_sets.py; who takes
part: selection_rivals.py and selection_sides.py; the rest: selection_speed.py.
Seeds 0 to 4 were used to choose our defaults and are not for figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.real_sets import machine
from benchmarks.selection_sets import SETS, prepare
from benchmarks.selection_sides import SIDES, SLOW, TOO_SLOW
from benchmarks.selection_tables import tables

SEEDS = (10, 11, 12, 13, 14)
DEFAULT_SETS = tuple(name for name in SETS if name not in ("toy", "parity-3-of-500"))
LARGE = "20000x2000"
BUDGET, LIMIT = 620, 180.0
"""Evaluations; and seconds of CPU time after which a search is cut off (where it lets itself be)."""
ROUNDS = {"breast_cancer": 5, "parity-2-of-500": 1, "2000x4096": 1, LARGE: 1}
"""How many of the seeds a set is measured with, 2 if not named; the same for all sides, so that they can be
compared, and few where it is wide, so that all is over in less than half an hour. `--full` takes all seeds,
but on the large set."""
LARGE_BUDGET = 10
"""Evaluations of slow sides on the large set; what the whole budget would take is extrapolated."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> None:
    """Run what was asked for, and print."""
    given = parse()
    os.environ |= dict.fromkeys(THREADS, "1")
    if given.scaling or given.primitives:
        from benchmarks.selection_speed import primitives, scaling

        print(f"Machine: {machine()}.\n")
        print(scaling() if given.scaling else primitives())
        return
    begun, rows = time.perf_counter(), []
    known: dict[str, Any] = {"machine": machine(), "versions": versions()}
    sides, sets = picked(given.sides, SIDES), picked(given.sets, SETS, DEFAULT_SETS)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    most = {LARGE: 1} if given.full else ROUNDS
    rounds = {name: seeds[: most.get(name, len(seeds) if given.full else 2)] for name in sets}
    with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
        folder = Path(place)
        for name in sets:
            for seed in rounds[name]:
                prepare(folder, name, seed)
        with ThreadPoolExecutor(given.jobs) as pool:
            todo = ((side, folder, plan(side, rounds, given.budget)) for side in sides)
            for found in pool.map(lambda job: run(*job), todo):
                rows += found
                known["seconds"] = time.perf_counter() - begun
                keep(given.out, known | {"rows": rows})
    print(f"Machine: {known['machine']}; one core for each side. {known['versions']}.\n")
    print(tables(rows))
    print(f"All took {known['seconds']:.0f} s.")


def parse() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--sets", default="", help=f"of {', '.join(SETS)}")
    parser.add_argument("--sides", default="", help=f"beginnings of {', '.join(SIDES)}")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--out", type=Path, help="file for all raw rows")
    parser.add_argument(
        "--full", action="store_true", help="all seeds on (nearly) all sets: more than an hour"
    )
    parser.add_argument("--jobs", type=int, default=1, help="sides at once; times are then worth nothing")
    parser.add_argument("--scaling", action="store_true", help="workers instead: serial, tasks, actors")
    parser.add_argument("--primitives", action="store_true", help="single evaluations instead")
    return parser.parse_args()


def picked(text: str, known: Iterable[str], default: Iterable[str] | None = None) -> list[str]:
    """Names that begin with one of those given; by default all."""
    if not text:
        return list(default or known)
    starts = tuple(text.split(","))
    found = [name for name in known if name.startswith(starts)]
    if not found:
        raise SystemExit(f"None of {', '.join(known)} begins with {text}.")
    return found


def plan(side: str, rounds: dict[str, list[int]], budget: int) -> list[dict[str, Any]]:
    """What a side has to do: set, seed, budget, limit."""
    jobs = []
    for name, seeds in rounds.items():
        if name == LARGE and side in TOO_SLOW:
            continue
        allowed = min(budget, LARGE_BUDGET) if name == LARGE and side in SLOW else budget
        jobs += [{"name": name, "seed": seed, "budget": allowed, "limit": LIMIT} for seed in seeds]
    return jobs


def keep(out: Path | None, all_of_it: dict[str, Any]) -> None:
    """Write what is known so far: a long run may be broken off."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(all_of_it, indent=1) + "\n")


def run(side: str, folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All jobs of a side, in an interpreter of its own."""
    command = [sys.executable, "-m", "benchmarks.selection_sides", side, str(folder)]
    begun = time.perf_counter()
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [row["error"] for row in rows if "error" in row] or ([] if rows else [done.stderr[-500:]])
    told = f"{side}: {time.perf_counter() - begun:.0f} s" + "".join(f"; {error}" for error in failed)
    print(told, file=sys.stderr, flush=True)
    return rows


def versions() -> str:
    """Of who takes part."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("numpy", "numba", "scikit-learn", "mealpy", "mafese", "zoofs", "pymoo", "niapy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


if __name__ == "__main__":
    main()
