"""Fitness engines by name. Each is imported when it is asked for: nobody waits for what another needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from cotray.config import FitnessConfig
from cotray.errors import UnknownNameError, nearest
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Problem

Engine = Callable[[Problem, FitnessConfig], Fitness]


def _from(module: str, name: str) -> Engine:
    def engine(problem: Problem, cfg: FitnessConfig) -> Fitness:
        made: Fitness = getattr(import_module(f"cotray.selection.{module}"), name)(problem, cfg)
        return made

    return engine


ENGINES: dict[str, Engine] = {
    "knn": _from("knn", "KnnFitness"),
    "knn-torch": _from("knn_torch", "TorchKnnFitness"),
    "ridge": _from("ridge", "RidgeFitness"),
    "logistic": _from("logistic", "LogisticFitness"),
    "sklearn": _from("universal", "EstimatorFitness"),
}
"""(problem, settings) -> callable from masks (P, D) to values (P,)."""


def make_fitness(problem: Problem, cfg: FitnessConfig) -> Fitness:
    """The engine that `fitness.engine` names. Raises UnknownNameError."""
    if cfg.engine not in ENGINES:
        raise UnknownNameError(
            f"There is no fitness engine '{cfg.engine}'.",
            where="fitness.engine",
            cure=nearest(cfg.engine, ENGINES),
        )
    return ENGINES[cfg.engine](problem, cfg)
