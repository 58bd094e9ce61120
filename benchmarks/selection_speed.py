"""How long one evaluation takes, and what workers add to it and take from it.

`--primitives`: one evaluation by scikit-learn, by our engine from nothing, and by our engine from a mask
known to it. `--scaling`: evaluations per second of every evaluator, and Ray's cost per agent on a cluster of
four nodes simulated on this machine. All figures are medians. N samples, D features, P masks.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.selection_sets import NEIGHBOURS, SETS, Data, Mask, knn_error, split
from benchmarks.selection_sides import COMMON, HOLDOUT, engine
from benchmarks.selection_tables import markdown

WIDE = ("2000x512", "2000x4096")
SEED, CHOSEN = 10, 20
"""The split measured on, and features of the masks: as many as a search ends with."""
FLIPS = (1, 2, 4, 16)
POPULATIONS = (20, 80)
NODES, NODE_CPUS, AGENTS = 4, 2, (20, 80, 320)


# -- one evaluation ---------------------------------------------------------------------------------------


def primitives(repeats: int = 30, names: tuple[str, ...] = WIDE) -> str:
    """Milliseconds of one evaluation, and how many times faster than scikit-learn."""
    head = ["set", "judged by", "features", "scikit-learn ms", "from nothing ms"]
    lines = [[*head, *(f"{count} flips ms" for count in FLIPS), "times faster"]]
    for name in names:
        data = split(*SETS[name](SEED), SEED)
        for scheme in ("holdout", "leave_out"):
            for size in (CHOSEN, data.feat_ND.shape[1] // 2):
                lines.append([name, scheme, str(size), *_timed(data, scheme, size, repeats)])
    told = "*times faster*: scikit-learn's time by each of the others, in their order. One core."
    return f"{markdown(lines)}\n\n{told}\n\nCompiling the engine, once per machine: {compiling():.0f} s.\n"


def _timed(data: Data, scheme: str, size: int, repeats: int) -> list[str]:
    rng = np.random.default_rng(0)
    ours = _engine(data, scheme)
    base_D = _random(data.feat_ND.shape[1], size, rng)
    masks = [_random(len(base_D), size, rng) for _ in range(repeats)]
    theirs = _seconds(lambda mask_D: _sklearn(data, scheme, mask_D), masks[: max(3, repeats // 3)])
    fresh = [copy.copy(ours) for _ in masks]  # a copy knows no mask
    spent = [
        _seconds(lambda mask_D, one=one: one(mask_D[None]), [m]) for one, m in zip(fresh, masks, strict=True)
    ]
    columns = [median(spent)]
    for count in FLIPS:
        one = copy.copy(ours)
        one(base_D[None])
        near = [_flipped(base_D, count, rng) for _ in range(repeats)]
        columns.append(_seconds(lambda mask_D, one=one: one(mask_D[None]), near))
    faster = ", ".join(f"{theirs / column:.1f}" for column in columns)
    return [*(f"{1000 * value:.2f}" for value in (theirs, *columns)), faster]


def _engine(data: Data, scheme: str) -> Any:
    from cotray.config import load_config
    from cotray.selection.engines import make_fitness
    from cotray.selection.problem import make_problem

    extra = HOLDOUT if scheme == "holdout" else ("fitness.soft=0",)
    cfg = load_config(overrides=[*COMMON, *extra]).fitness
    problem = make_problem(data.feat_ND, data.label_N, np.arange(len(data.label_N)), cfg, SEED)
    return engine(data, exact=True)(problem, cfg) if scheme == "holdout" else make_fitness(problem, cfg)


def _sklearn(data: Data, scheme: str, mask_D: Mask) -> float:
    if scheme == "holdout":
        return knn_error(mask_D, data.learn, data.validate)
    from sklearn.neighbors import KNeighborsClassifier

    knn = KNeighborsClassifier(NEIGHBOURS).fit(data.feat_ND[:, mask_D], data.label_N)
    return float(1.0 - knn.score(None, data.label_N))  # nobody is their own neighbour


def _seconds(evaluate: Callable[[Mask], Any], masks: list[Mask]) -> float:
    spent = []
    for mask_D in masks:
        begun = time.perf_counter()
        evaluate(mask_D)
        spent.append(time.perf_counter() - begun)
    return median(spent)


def _random(dim: int, size: int, rng: np.random.Generator) -> Mask:
    mask_D = np.zeros(dim, bool)
    mask_D[rng.choice(dim, size, replace=False)] = True
    return mask_D


def _flipped(mask_D: Mask, count: int, rng: np.random.Generator) -> Mask:
    """Half of the flips (or a bit fewer) among the features taken, as a search makes them."""
    out = rng.choice(np.flatnonzero(mask_D), count // 2, replace=False)
    into = rng.choice(np.flatnonzero(~mask_D), count - count // 2, replace=False)
    flipped_D = mask_D.copy()
    flipped_D[np.r_[out, into].astype(int)] ^= True
    return flipped_D


def compiling() -> float:
    """Seconds of a first evaluation where no compiled code is kept, less those of one where it is."""
    code = "from benchmarks.selection_sides import warm; from pathlib import Path; import sys; "
    code += "print(warm('7 + soft error (default)', Path(sys.argv[1])))"
    with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(Path(place) / "numba")}
        command = [sys.executable, "-c", code, place]
        cold, cached = (
            float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
            for _ in range(2)
        )
    return cold - cached


# -- workers ----------------------------------------------------------------------------------------------


class Cheap:
    """An engine that takes no time: what is left is the cost of asking."""

    def __call__(self, mask_PD: Any) -> Any:
        """Size of each mask: (P,)."""
        return mask_PD.sum(axis=1).astype(float)


def scaling(repeats: int = 7, names: tuple[str, ...] = WIDE) -> str:
    """Evaluations per second by evaluator, and the cost per agent on a simulated cluster."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _ray(nodes=1):
        speed = throughput(repeats, names)
    with _ray(nodes=NODES):
        cost = overhead(repeats)
    return f"{speed}\n\n{cost}\n"


@contextmanager
def _ray(nodes: int) -> Iterator[None]:
    """This machine as one node of two CPUs, or as many of them."""
    import logging

    import ray
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": NODE_CPUS, "include_dashboard": False}
    )
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=NODE_CPUS)
    ray.init(address=cluster.address, **options)
    try:
        cluster.wait_for_nodes()
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def throughput(repeats: int, names: tuple[str, ...]) -> str:
    """Evaluations per second: a population a few flips from a mask that was scored before, or all new."""
    from cotray.selection.select import here
    from cotray.stages.evaluators import actors, tasks

    evaluators: dict[str, Callable[[Any], Any]] = {
        "serial": here,
        "tasks, 1 worker": lambda fitness: tasks(fitness, cpu=2.0),
        "tasks, 2 workers": lambda fitness: tasks(fitness, cpu=1.0),
        "actors, 1 worker": lambda fitness: actors(fitness, workers=1),
        "actors, 2 workers": lambda fitness: actors(fitness, workers=2),
    }
    lines = [["set", "agents", "their masks", *evaluators]]
    for name in names:
        ours = _engine(split(*SETS[name](SEED), SEED), "leave_out")
        for agents in POPULATIONS:
            for few in (True, False):
                rates = [_rate(make, ours, agents, few, repeats) for make in evaluators.values()]
                what = "4 flips away" if few else f"new, {CHOSEN} features"
                lines.append([name, str(agents), what, *(f"{rate:.0f}" for rate in rates)])
    note = (
        f"Evaluations/s, median of {repeats} batches; leave-one-out on 1600 samples; {os.cpu_count()} cores."
    )
    return f"{markdown(lines)}\n\n{note}"


def _rate(make: Callable[[Any], Any], ours: Any, agents: int, few: bool, repeats: int) -> float:
    rng = np.random.default_rng(0)
    base_D = _random(ours.width, CHOSEN, rng)
    with make(copy.copy(ours)) as evaluate:
        spent = []
        for turn in range(repeats + 1):
            near = [_flipped(base_D, 4, rng) for _ in range(agents)]
            new = [_random(len(base_D), CHOSEN, rng) for _ in range(agents)]
            batch_PD = np.stack(near if few else new)
            if not turn:  # workers start, and all get to know the mask that the others are near to
                evaluate(np.tile(base_D, (agents, 1)))
            begun = time.perf_counter()
            evaluate(batch_PD)
            spent.append(time.perf_counter() - begun)
    return agents / median(spent[1:])


def overhead(repeats: int) -> str:
    """Milliseconds per agent that asking takes where evaluating takes none."""
    from cotray.selection.drive import Evaluate
    from cotray.stages.evaluators import actors, tasks

    def cost(evaluate: Evaluate, agents: int) -> float:
        batch_PD = np.random.default_rng(0).uniform(size=(agents, 4096)) < 0.5
        alone = _seconds(Cheap(), [batch_PD] * repeats)
        evaluate(batch_PD)
        return (_seconds(evaluate, [batch_PD] * repeats) - alone) / agents

    lines = [["evaluator", *(f"{agents} agents" for agents in AGENTS)]]
    workers = NODES * NODE_CPUS
    for what, make in (("tasks", tasks), (f"actors, {workers} workers", actors)):
        with make(Cheap()) as evaluate:
            lines.append([what, *(f"{1000 * cost(evaluate, agents):.2f}" for agents in AGENTS)])
    note = f"Milliseconds per agent, median of {repeats} batches, masks of 4096 features; {NODES} nodes of "
    note += f"{NODE_CPUS} CPUs simulated on {os.cpu_count()} cores, which they share."
    return f"{markdown(lines)}\n\n{note}"
