"""Who evaluates masks: long-lived Ray actors, one Ray task per agent, or this process.

The data lies in Ray's object store once per node and is read there without a copy. Who evaluates decides
nothing but speed: a mask is worth the same everywhere. P masks, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cotray.errors import TrainingError
from cotray.selection.drive import Evaluate
from cotray.selection.fitness import Fitness
from cotray.selection.search import Values
from cotray.selection.select import MemberJob, here, member
from cotray.selection.transfer import Masks
from cotray.stages.cluster import connect, cpus

MOST_DEATHS = 20
"""Workers lost in a row, without one answer between, after which the evaluation gives up."""


class ActorPool:
    """Long-lived actors; each holds the engine, and the distances of the masks it has seen.

    An actor whose process or node died is replaced, on another node if need be, and what it was asked is
    asked again: scoring has no side effects.
    """

    def __init__(self, fitness: Fitness, workers: int, cpu: float) -> None:
        self.shared = ray.put(fitness)
        # Ray's own restarts would have to keep the engine's reference; a new actor is simpler.
        options = {"num_cpus": cpu, "num_gpus": gpus(fitness, workers), "scheduling_strategy": placement()}
        self.kind = ray.remote(Scorer).options(**options)
        self.actors = [self.kind.remote(self.shared) for _ in range(workers)]
        self.replaced = 0

    def __call__(self, mask_PD: Masks) -> Values:
        """Fitness of each mask: (P,). The same actor gets the same place in the batch: it knows the agent."""
        pieces = np.array_split(mask_PD, min(len(self.actors), len(mask_PD)))
        asked = {slot: self.actors[slot].score.remote(piece) for slot, piece in enumerate(pieces)}
        answers: dict[int, Values] = {}
        deaths = 0
        while len(answers) < len(pieces):
            for slot in [slot for slot in asked if slot not in answers]:
                try:
                    answers[slot] = ray.get(asked[slot])
                    deaths = 0
                except RayActorError as error:
                    deaths += 1
                    self._replace(slot, deaths, error)
                    asked[slot] = self.actors[slot].score.remote(pieces[slot])
        return np.concatenate([answers[slot] for slot in range(len(pieces))])

    def _replace(self, slot: int, deaths: int, error: RayError) -> None:
        if deaths > MOST_DEATHS:
            raise TrainingError(
                f"{deaths} workers that score masks died one after the other: {str(error).splitlines()[0]}",
                cure="Look at Ray's logs; if memory ran out, lower fitness.cache_mb or fitness.max_cells.",
            ) from error
        self.actors[slot] = self.kind.remote(self.shared)
        self.replaced += 1

    def close(self) -> None:
        """Let the workers go."""
        for actor in self.actors:
            ray.kill(actor)


def gpus(fitness: Fitness, workers: int) -> float:
    """GPUs of a worker: an equal share of all there are, for the engine that uses them; else none."""
    if getattr(fitness, "cfg", None) is None or fitness.cfg.engine != "knn-torch":
        return 0
    share = float(ray.cluster_resources().get("GPU", 0)) / workers
    return min(1.0, math.floor(100 * share) / 100)


def placement() -> Any:
    """All over the cluster; but where this process is part of a placement group (a trial of Ray Tune), in
    what the group reserved: there is where CPUs are kept free for its workers."""
    group = get_current_placement_group()
    return "SPREAD" if group is None else PlacementGroupSchedulingStrategy(group)


@contextmanager
def actors(fitness: Fitness, workers: int | None = None, cpu: float = 1.0) -> Iterator[Evaluate]:
    """Long-lived actors, one per CPU of the cluster by default."""
    pool = ActorPool(fitness, workers or cpus(), cpu)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def tasks(fitness: Fitness, cpu: float = 1.0) -> Iterator[Evaluate]:
    """One Ray task per agent: the literal form. Workers share the data, but not what they computed."""
    shared = ray.put(fitness)
    score = ray.remote(max_retries=-1, num_cpus=cpu)(_score)

    def evaluate(mask_PD: Masks) -> Values:
        return np.concatenate(ray.get([score.remote(shared, mask_D[None]) for mask_D in mask_PD]))

    yield evaluate


@contextmanager
def ray_backend(fitness: Fitness) -> Iterator[Evaluate]:
    """The entry point ``cotray.evaluators: ray``: starts Ray here, or joins the one that is there."""
    connect()
    with actors(fitness) as evaluate:
        yield evaluate


EVALUATORS: dict[str, Callable[[Fitness], AbstractContextManager[Evaluate]]] = {
    "ray": actors,
    "tasks": tasks,
    "serial": here,
}
"""`select.evaluator` -> context manager from an engine to whoever evaluates."""


def run_members(jobs: Sequence[MemberJob], cpu: float = 1.0) -> list[Masks]:
    """Searches on halves of the data, each a Ray task that evaluates for itself."""
    search = ray.remote(max_retries=-1, num_cpus=cpu)(_member)
    held: dict[int, Any] = {}
    refs = []
    for table, rows, config, seed in jobs:
        if id(table) not in held:
            held[id(table)] = ray.put(table)
        refs.append(search.remote(held[id(table)], rows, config, seed))
    return list(ray.get(refs))


class Scorer:
    """Holds an engine in a Ray actor."""

    def __init__(self, fitness: Fitness) -> None:
        self.fitness = fitness

    def score(self, mask_PD: Masks) -> Values:
        """Fitness of masks: (P,)."""
        return np.asarray(self.fitness(mask_PD), np.float64)


def _score(fitness: Fitness, mask_PD: Masks) -> Values:
    """One agent; retried for ever when its worker dies."""
    return np.asarray(fitness(mask_PD), np.float64)


def _member(table: Any, rows: Any, config: Any, seed: int) -> Masks:
    return member(table, rows, config, seed)
