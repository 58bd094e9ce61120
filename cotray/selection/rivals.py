"""Rivals of SCA + AbetaHC behind the same ask/tell: genetic algorithm, binary particle swarm, random search.

They share the population size, the iterations and the initialiser. P agents, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.initial import INITIAL
from cotray.selection.search import Search, SelectionSearch, Values, finite_mean, scored
from cotray.selection.transfer import Masks, repair


class PopulationSearch(Search):
    """A population, its fitness, and the best mask so far."""

    def __init__(
        self, dim: int, sca: ScaConfig, abhc: AbhcConfig, *, seed: int, init_scores: Values | None = None
    ) -> None:
        super().__init__(dim, sca.iterations, sca.patience, seed)
        self.agents = sca.agents
        position_PD = INITIAL[sca.init](init_scores, sca.agents, dim, self.rng)
        self.mask_PD: Masks = repair(position_PD > 0.5, self.rng)
        self.asked_PD = self.mask_PD
        self.fitness_P: Values = np.full(sca.agents, np.inf)
        self.best_mask_D: Masks = self.mask_PD[0].copy()
        self.best_fitness = float("inf")

    def ask(self) -> Masks:
        """The starting population, then whatever the rival makes of it."""
        self.asked_PD = repair(self.propose(), self.rng) if self.history else self.mask_PD
        return self.asked_PD

    @abstractmethod
    def propose(self) -> Masks:
        """The next population: (P, D)."""

    def tell(self, fitness: Values) -> None:
        """Fitness of the masks last asked, in their order."""
        self.evaluations += scored(fitness)
        self.mean_fitness = finite_mean(fitness)
        self.learn(np.asarray(fitness, float))
        winner = int(np.argmin(fitness))
        self._remember(self.asked_PD[winner], float(fitness[winner]))
        self.close_iteration()

    def learn(self, fitness_P: Values) -> None:
        """Take the population asked as the present one."""
        self.mask_PD, self.fitness_P = self.asked_PD.copy(), fitness_P.copy()

    @property
    def best(self) -> tuple[Masks, float]:
        """The best mask so far, and its fitness."""
        return self.best_mask_D, self.best_fitness

    def accept(self, mask_D: Masks, fitness: float) -> None:
        """Take a scored mask from elsewhere as the best, if it is better."""
        self._remember(mask_D, fitness)

    def _remember(self, mask_D: Masks, fitness: float) -> None:
        if fitness < self.best_fitness:
            self.best_mask_D, self.best_fitness = mask_D.copy(), fitness

    names: tuple[str, ...] = ("mask_PD", "asked_PD", "fitness_P", "best_mask_D", "best_fitness")

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return super().state_dict() | {name: _copy(getattr(self, name)) for name in self.names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        for name in self.names:
            setattr(self, name, _copy(state[name]))


class GeneticSearch(PopulationSearch):
    """Binary tournaments, uniform crossover, mutation at 1/D; the better half of old and new survives."""

    def propose(self) -> Masks:
        """Children of tournament winners."""
        mother, father = (self._tournament() for _ in range(2))
        cross_PD = self.rng.uniform(0, 1, self.mask_PD.shape) < 0.5
        child_PD = np.where(cross_PD, self.mask_PD[mother], self.mask_PD[father])
        return np.asarray(child_PD ^ (self.rng.uniform(0, 1, child_PD.shape) < 1.0 / self.dim))

    def _tournament(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        pair_P2 = self.rng.integers(self.agents, size=(self.agents, 2))
        first, second = pair_P2.T
        return np.asarray(np.where(self.fitness_P[first] <= self.fitness_P[second], first, second))

    def learn(self, fitness_P: Values) -> None:
        """Of parents and children the fitter half stays."""
        if not np.isfinite(self.fitness_P).any():  # the first generation has no parents
            super().learn(fitness_P)
            return
        mask_PD, fitness = (
            np.concatenate([self.mask_PD, self.asked_PD]),
            np.concatenate([self.fitness_P, fitness_P]),
        )
        fittest = np.argsort(fitness, kind="stable")[: self.agents]
        self.mask_PD, self.fitness_P = mask_PD[fittest], fitness[fittest]

    def accept(self, mask_D: Masks, fitness: float) -> None:
        """A mask from elsewhere also takes the place of the worst individual: parents are drawn from them."""
        super().accept(mask_D, fitness)
        worst, known_P = int(np.argmax(self.fitness_P)), (self.mask_PD == mask_D).all(axis=1)
        if fitness < self.fitness_P[worst] and not known_P.any():
            self.mask_PD, self.fitness_P = self.mask_PD.copy(), self.fitness_P.copy()
            self.mask_PD[worst], self.fitness_P[worst] = mask_D, fitness


class SwarmSearch(PopulationSearch):
    """Binary particle swarm (Kennedy & Eberhart 1997): velocities through a sigmoid give bits."""

    INERTIA, PULL, LIMIT = 0.9, 2.0, 6.0

    def __init__(self, dim: int, sca: ScaConfig, abhc: AbhcConfig, **known: Any) -> None:
        super().__init__(dim, sca, abhc, **known)
        self.velocity_PD = np.where(self.mask_PD, 2.0, -2.0)
        self.own_PD, self.own_P = self.mask_PD.copy(), np.full(self.agents, np.inf)

    names = (*PopulationSearch.names, "velocity_PD", "own_PD", "own_P")

    def propose(self) -> Masks:
        """Each particle is pulled to its own best and to the swarm's."""
        at_PD = self.mask_PD.astype(float)
        own_PD, all_PD = (self.rng.uniform(0, self.PULL, at_PD.shape) for _ in range(2))
        pull_PD = own_PD * (self.own_PD - at_PD) + all_PD * (self.best_mask_D - at_PD)
        self.velocity_PD = np.clip(self.INERTIA * self.velocity_PD + pull_PD, -self.LIMIT, self.LIMIT)
        return np.asarray(self.rng.uniform(0, 1, at_PD.shape) < 1 / (1 + np.exp(-self.velocity_PD)))

    def learn(self, fitness_P: Values) -> None:
        """Particles move on and remember their best."""
        super().learn(fitness_P)
        better_P = fitness_P < self.own_P
        self.own_PD = np.where(better_P[:, None], self.asked_PD, self.own_PD)
        self.own_P = np.where(better_P, fitness_P, self.own_P)


class RandomSearch(PopulationSearch):
    """Masks of random size and content: the least that a search must beat."""

    def propose(self) -> Masks:
        """Density uniform over masks, features uniform within one."""
        density_P1 = self.rng.uniform(0, 1, (self.agents, 1))
        return np.asarray(self.rng.uniform(0, 1, self.mask_PD.shape) < density_P1)


SEARCHES: dict[str, Callable[..., Search]] = {
    "sca": SelectionSearch,
    "ga": GeneticSearch,
    "pso": SwarmSearch,
    "random": RandomSearch,
}
"""(features, sca settings, abhc settings, seed=, init_scores=) -> search."""


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
