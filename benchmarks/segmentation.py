"""LeuSAM, UNet, UNet++ and a floor that learns nothing, on real masks that nobody has seen.

    python -m benchmarks.segmentation --data FOLDER [--out FILE] [--steps N] [--sides "A;B"] [--jobs 1]

FOLDER holds `jtsc`, `all-idb2` (with `masks-banik` and `masks-putzu`) and `bccd`. Who learns from what and
is asked about what: benchmarks/segmentation_data.py; how: segmentation_sides.py. One run of all sides; prints
the tables of docs/benchmarks.md. A run that was broken off goes on, where FILE is still there. `--quick`
shows that it runs; its figures are worth nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.real_sets import machine
from benchmarks.segmentation_sides import SIDES, Budget, Side, human, play, race
from benchmarks.segmentation_tables import tables
from cotray.config import Config, load_config

STEPS = 300
"""Optimisation steps of every side; the batch is the preset's, 8."""
QUICK = ("segment.image_size=64", "segment.embed_dim=16", "segment.depth=1", "segment.prompt_dim=16")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Run what was asked for, and print."""
    given = parse()
    os.environ |= dict.fromkeys(THREADS, "1")
    config = load_config("tiny", overrides=[*(QUICK if given.quick else ()), *given.set])
    budget = Budget(6, 40, 24) if given.quick else Budget(given.steps)
    plan = {"budget": vars(budget), "config": config.model_dump(mode="json", exclude={"tracking", "compute"})}
    known = earlier(given.out, plan) or {"machine": machine(), "plan": plan, "sides": []}
    done = {side["side"]["title"]: side for side in known["sides"]}
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        people = None if "human" in known else pool.submit(human, given.data, config, budget)
        for side in finished(pool, picked(given.sides), done, given.data, config, budget):
            done[side["side"]["title"]] = side
            known["sides"] = [done[side.title] for side in SIDES if side.title in done]
            keep(given.out, known)
        if people is not None:
            known["human"] = people.result()
        if "speed" not in known:
            known["speed"] = pool.submit(race, given.data, config, budget).result()
        keep(given.out, known)
    print(f"Machine: {known['machine']}; one thread for each side.\n")
    print(tables(known))


def parse() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, required=True, help="folder of jtsc, all-idb2 and bccd")
    parser.add_argument("--out", type=Path, help="file for all raw rows")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sides", default="", help=f"beginnings of {'; '.join(s.title for s in SIDES)}")
    parser.add_argument("--jobs", type=int, default=1, help="sides at once")
    parser.add_argument("--set", action="append", default=[], help="a setting, as for cotray run")
    parser.add_argument("--quick", action="store_true", help="few images, a toy network, six steps")
    return parser.parse_args()


def picked(text: str) -> list[Side]:
    """Sides whose title begins with one of those given; by default all."""
    starts = tuple(text.split(";")) if text else ("",)
    found = [side for side in SIDES if side.title.startswith(starts)]
    if not found:
        raise SystemExit(f"No side begins with {text}.")
    return found


def finished(
    pool: ProcessPoolExecutor,
    sides: list[Side],
    done: Mapping[str, dict[str, Any]],
    data: Path,
    config: Config,
    budget: Budget,
) -> Iterator[dict[str, Any]]:
    """Sides that are not done yet, as they finish; those that may use another's time come last."""
    todo = [side for side in sides if side.title not in done]
    cpu_s = {title: side["facts"].get("cpu_s") for title, side in done.items()}
    for wave in ([s for s in todo if s.seconds_of is None], [s for s in todo if s.seconds_of is not None]):
        ready = [side for side in wave if side.seconds_of is None or side.seconds_of in cpu_s]
        running = [
            pool.submit(play, s, data, config, budget, cpu_s[s.seconds_of] if s.seconds_of else None)
            for s in ready
        ]
        for future in as_completed(running):
            side = future.result()
            cpu_s[side["side"]["title"]] = side["facts"].get("cpu_s")
            print(f"{side['side']['title']}: {json.dumps(side['facts'])}", file=sys.stderr, flush=True)
            yield side


def earlier(out: Path | None, plan: dict[str, Any]) -> dict[str, Any] | None:
    """What a broken-off run with the same settings wrote."""
    if out is None or not out.exists():
        return None
    known: dict[str, Any] = json.loads(out.read_text())
    return known if known["plan"] == json.loads(json.dumps(plan)) else None


def keep(out: Path | None, all_of_it: dict[str, Any]) -> None:
    """Write what is known so far."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(all_of_it, indent=1) + "\n")


if __name__ == "__main__":
    main()
