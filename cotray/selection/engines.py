"""Fitness engines by name."""

from __future__ import annotations

from collections.abc import Callable

from cotray.config import FitnessConfig
from cotray.selection.fitness import Fitness
from cotray.selection.knn import KnnFitness
from cotray.selection.problem import Problem

ENGINES: dict[str, Callable[[Problem, FitnessConfig], Fitness]] = {"knn": KnnFitness}
"""(problem, settings) -> callable from masks (P, D) to values (P,)."""


def make_fitness(problem: Problem, cfg: FitnessConfig) -> Fitness:
    """The engine that `fitness.engine` names."""
    return ENGINES[cfg.engine](problem, cfg)
