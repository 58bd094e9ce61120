"""All sides of the selection benchmark, and one run of one side: timed, and judged by the common score.

A side runs in a process forked from one that has imported its library, compiled what it compiles and loaded
no data. Ours goes from the algorithm as published to the defaults and beyond, one idea after the other.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.selection_rivals import SEARCHES, SELECTORS
from benchmarks.selection_sets import (
    Data,
    Mask,
    Objective,
    OutOfTime,
    knn_error,
    load,
    prepare,
    weigh,
)

COMMON = ("fitness.metric=plain", "select.evaluator=serial")
PRINTED = ("sca.init=random", "sca.moves=all", "sca.greedy=false", "abhc.moves=all", "select.scores=anova")
"""The algorithm as published; the univariate scores are not used by it, so they may be the cheap ones."""
HOLDOUT = ("fitness.scheme=holdout", "fitness.soft=0", "fitness.max_cells=null")
RANKED = PRINTED[1:-1]
FEW = ("sca.greedy=false",)
OURS: dict[str, tuple[str, ...]] = {
    "1 published (sklearn k-NN)": (*HOLDOUT, *PRINTED),
    "2 + exact k-NN": (*HOLDOUT, *PRINTED),
    "3 + ranked start": (*HOLDOUT, *RANKED),
    "4 + few-bit moves": (*HOLDOUT, *FEW),
    "5 + greedy agents": HOLDOUT,
    "6 + leave-one-out": ("fitness.soft=0",),
    "7 + soft error (default)": (),
    "7b default, rule one_se": ("select.rule=one_se",),
    "8 + consensus of 8": ("select.rule=consensus", "select.members=8"),
    "7 as GA": ("select.optimizer=ga",),
    "7 as PSO": ("select.optimizer=pso",),
}
"""Name -> settings beside the common ones. The first five are judged by the benchmark's own hold-out."""
SKLEARN = "1 published (sklearn k-NN)"
SLOW = (*SEARCHES, *list(OURS)[:3])
"""Sides that take a second or more for each evaluation where samples and features are many."""
TOO_SLOW = ("SelectKBest MI", "RFE logistic", "L1 logistic")
"""Selectors that take many minutes there."""


@dataclass
class Found:
    """What a side says."""

    mask_D: Mask
    told: float
    """Fitness by its own account: of the best mask that it scored."""
    evaluations: int
    cut: bool = False
    """Whether its time was up before its budget; then the best mask so far counts."""


Side = Callable[[Data, int, int, float], Found]


def theirs(search: Callable[[Objective, int, int], Mask]) -> Side:
    """A side that minimises the objective."""

    def run(data: Data, budget: int, seed: int, limit: float) -> Found:
        objective, cut = Objective(data, limit), False
        try:
            mask_D = search(objective, budget, seed)
        except OutOfTime:
            mask_D, cut = objective.best_mask_D, True
        return Found(np.asarray(mask_D, bool), objective.best, objective.calls, cut)

    return run


def ours(name: str) -> Side:
    """A side of ours, by its settings."""

    def run(data: Data, budget: int, seed: int, limit: float) -> Found:
        from cotray.config import load_config
        from cotray.selection.problem import Table
        from cotray.selection.select import Hooks, select_features

        settings = [*COMMON, *OURS[name], f"select.budget={budget} evaluations"]
        config = load_config(overrides=settings)
        table = Table(data.feat_ND, data.label_N, np.arange(len(data.label_N)))
        counted = [0]
        hooks = Hooks(on_scored=lambda mask_PD, _: counted.__setitem__(0, counted[0] + len(mask_PD)))
        hooks.run_all = lambda jobs: [_member(*job, counted) for job in jobs]
        if config.fitness.scheme == "holdout":
            hooks.engine = engine(data, exact=name != SKLEARN)
        found = select_features(table, config, seed, hooks)
        return Found(found.mask_D, found.fitness, counted[0])

    return run


def _member(table: Any, rows: Any, config: Any, seed: int, counted: list[int]) -> Mask:
    from cotray.selection.select import select_features

    found = select_features(table.rows(rows), config, seed)
    counted[0] += found.scored
    return found.mask_D


def engine(data: Data, exact: bool) -> Any:
    """Whatever folds a problem has: an engine on the benchmark's hold-out, ours or scikit-learn's."""
    from cotray.selection.fitness import Fitness
    from cotray.selection.knn import KnnFitness
    from cotray.selection.problem import TRAIN

    class Sklearn(Fitness):
        def errors(self, mask_PD: Any) -> Any:
            learn, validate = data.learn, data.validate
            return np.array([[knn_error(mask_D, learn, validate)] for mask_D in mask_PD])

    fold_1N = np.where(data.validates_N, 0, TRAIN).astype(np.int32)[None]

    def make(problem: Any, cfg: Any) -> Fitness:
        problem = replace(problem, fold_RN=fold_1N)
        return KnnFitness(problem, cfg) if exact else Sklearn(problem, cfg)

    return make


SIDES: dict[str, Side] = {
    **{name: theirs(search) for name, search in {**SEARCHES, **SELECTORS}.items()},
    **{name: ours(name) for name in OURS},
}
"""Name -> (data, budget, seed, limit in seconds) -> what it found."""


def judge(data: Data, found: Found) -> dict[str, float]:
    """Figures of the reported mask, by scikit-learn, whatever the side says."""
    inner = knn_error(found.mask_D, data.learn, data.validate)
    outer = knn_error(found.mask_D, (data.feat_ND, data.label_N), (data.test_ND, data.test_label_N))
    return {
        "fitness": weigh(inner, found.mask_D),
        "inner_error": inner,
        "outer_error": outer,
        "gap": outer - inner,
        "features": float(found.mask_D.sum()),
    }


def measure(side: str, data: Data, budget: int, seed: int, limit: float) -> dict[str, Any]:
    """One run: figures, seconds, evaluations and memory.

    ``peak_mib`` is ru_maxrss, of a process with the libraries of its side and the data; ``search_mib`` is by
    how much that is above what was resident before.
    """
    resident = Path("/proc/self/statm").read_text().split()[1]
    before = int(resident) * os.sysconf("SC_PAGE_SIZE") / 2**20
    wall, cpu = time.perf_counter(), time.process_time()
    found = SIDES[side](data, budget, seed, limit)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return judge(data, found) | {
        "mask": np.packbits(found.mask_D).tobytes().hex(),
        "told": found.told,
        "evaluations": found.evaluations,
        "cut": found.cut,
        "cpu_s": cpu,
        "wall_s": wall,
        "per_second": found.evaluations / max(wall, 1e-9),
        "peak_mib": peak,
        "search_mib": max(0.0, peak - before),
    }


def warm(side: str, folder: Path) -> float:
    """Import and compile what a side needs, by a toy run; seconds."""
    begun = time.perf_counter()
    prepare(folder, "toy", 0)
    SIDES[side](load(folder, "toy", 0), 40, 0, float("inf"))
    return time.perf_counter() - begun


def forked(side: str, folder: Path, name: str, budget: int, seed: int, limit: float) -> dict[str, Any]:
    """:func:`measure` in a process of its own, so that no run sees another's memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            row = measure(side, load(folder, name, seed), budget, seed, limit)
        except BaseException as error:
            traceback.print_exc()
            row = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(row).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    row = json.loads(answer) if answer else {"error": "the process was killed"}
    return {"side": side, "set": name, "seed": seed, "budget": budget} | row


def main() -> None:
    """Run the jobs (JSON on standard input) of one side; a line for each, after one for the warming up."""
    side, folder, jobs = sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)
    os.environ["TQDM_DISABLE"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        print(json.dumps({"side": side, "warm_s": warm(side, folder)}), file=answers, flush=True)
        for job in jobs:
            print(json.dumps(forked(side, folder, **job)), file=answers, flush=True)
    except Exception as error:  # such as a library that cannot be imported
        traceback.print_exc()
        print(json.dumps({"side": side, "error": f"{type(error).__name__}: {error}"}), file=answers)


if __name__ == "__main__":
    main()
