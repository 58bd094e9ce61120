"""Who evaluates masks: long-lived Ray actors, one Ray task per agent, or this process.

The data lies in Ray's object store once per node and is read there without a copy. Which one evaluates
decides nothing but speed: a mask is worth the same everywhere. P masks, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import ray

from cotray.selection.drive import Evaluate
from cotray.selection.fitness import Fitness
from cotray.selection.search import Values
from cotray.selection.select import MemberJob, here, member
from cotray.selection.transfer import Masks
from cotray.stages.cluster import cpus


@contextmanager
def actors(fitness: Fitness, workers: int | None = None, cpu: float = 1.0) -> Iterator[Evaluate]:
    """Long-lived actors, one per CPU of the cluster; each keeps the distances of masks it has seen.

    An actor whose process or node dies is started again, elsewhere if need be, and what it was asked is
    asked again: scoring has no side effects.
    """
    shared = ray.put(fitness)
    options = {"num_cpus": cpu, "max_restarts": -1, "max_task_retries": -1}
    # Wrapped, because Ray warns of arguments in its store that a restart may miss; this frame holds it.
    scorer = ray.remote(Scorer).options(**options)
    pool = [scorer.remote([shared]) for _ in range(workers or cpus())]

    def evaluate(mask_PD: Masks) -> Values:
        pieces = [piece for piece in np.array_split(mask_PD, min(len(pool), len(mask_PD))) if len(piece)]
        asked = [actor.score.remote(piece) for actor, piece in zip(pool, pieces, strict=False)]
        return np.concatenate(ray.get(asked))

    try:
        yield evaluate
    finally:
        for actor in pool:
            ray.kill(actor)


@contextmanager
def tasks(fitness: Fitness, cpu: float = 1.0) -> Iterator[Evaluate]:
    """One Ray task per agent: the literal form. Workers share the data, but not what they computed."""
    shared = ray.put(fitness)
    score = _score.options(num_cpus=cpu)

    def evaluate(mask_PD: Masks) -> Values:
        return np.concatenate(ray.get([score.remote(shared, mask_D[None]) for mask_D in mask_PD]))

    yield evaluate


EVALUATORS: dict[str, Callable[[Fitness], AbstractContextManager[Evaluate]]] = {
    "ray": actors,
    "tasks": tasks,
    "serial": here,
}
"""`select.evaluator` -> context manager from an engine to whoever evaluates."""


def run_members(jobs: Sequence[MemberJob], cpu: float = 1.0) -> list[Masks]:
    """Searches on halves of the data, each a Ray task that evaluates for itself."""
    shared: dict[int, Any] = {}
    refs = []
    for table, rows, config, seed in jobs:
        held = shared.setdefault(id(table), ray.put(table))
        refs.append(_member.options(num_cpus=cpu).remote(held, rows, config, seed))
    return list(ray.get(refs))


class Scorer:
    """Holds an engine, and with it the distances of masks seen."""

    def __init__(self, shared: list[Any]) -> None:
        self.fitness: Fitness = ray.get(shared[0])

    def score(self, mask_PD: Masks) -> Values:
        """Fitness of masks: (P,)."""
        return np.asarray(self.fitness(mask_PD), np.float64)


@ray.remote(max_retries=-1)  # type: ignore[untyped-decorator]
def _score(fitness: Fitness, mask_PD: Masks) -> Values:
    """One agent; retried for ever when its worker dies."""
    return np.asarray(fitness(mask_PD), np.float64)


@ray.remote(max_retries=-1)  # type: ignore[untyped-decorator]
def _member(table: Any, rows: Any, config: Any, seed: int) -> Masks:
    return member(table, rows, config, seed)
