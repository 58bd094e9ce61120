"""Ask/tell searches over feature masks: what they share, and SCA with AbetaHC.

A search proposes masks; whoever evaluates tells it their fitness. The trajectory depends on the seed and
the fitness values alone: not on who evaluates, in what order or on how many workers; and it goes on
exactly from a saved state. P agents, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.abhc import HillClimb
from cotray.selection.moves import Prior
from cotray.selection.sca import SineCosine
from cotray.selection.transfer import Masks, reflect

Values = NDArray[np.float64]
LATE = 0.9
"""Share of a budget of seconds from which on a refinement at the end begins."""


@dataclass(frozen=True)
class SelectionResult:
    """The best mask found: the very one that was scored."""

    mask: Masks
    """(D,) bool."""
    fitness: float
    history: list[dict[str, float]]
    """One row per iteration: best_fitness, best_size, mean_fitness, evaluations."""


class Search(ABC):
    """``while not search.done: search.tell(evaluate(search.ask()))``."""

    def __init__(self, dim: int, iterations: int, patience: int, seed: int) -> None:
        self.dim, self.iterations, self.patience = dim, iterations, patience
        self.rng = np.random.default_rng(seed)
        self.history: list[dict[str, float]] = []
        self.evaluations = 0
        self.mean_fitness = float("nan")

    @abstractmethod
    def ask(self) -> Masks:
        """Masks to score, (P, D) bool, none empty; the next call must be tell."""

    @abstractmethod
    def tell(self, fitness: Values) -> None:
        """Fitness of the masks last asked, in their order; infinity stands for a mask that was not scored."""

    @property
    @abstractmethod
    def best(self) -> tuple[Masks, float]:
        """The best mask so far, and its fitness; a mask that was scored, once one was."""

    @abstractmethod
    def accept(self, mask_D: Masks, fitness: float) -> None:
        """Take a scored mask from elsewhere (an island, a filter) as the best, if it is better."""

    @property
    def done(self) -> bool:
        """Whether all iterations are done, or none was better for ``patience`` of them."""
        return self.ends([row["best_fitness"] for row in self.history])

    def ends(self, best: list[float]) -> bool:
        """Whether the search ends after iterations with these best values."""
        stalled = 0 < self.patience < len(best) and best[-1] >= best[-1 - self.patience]
        return stalled or len(best) >= self.iterations

    def pace(self, share: float) -> None:
        """Say which share of the budget is used, where the budget is not in iterations (seconds)."""
        return  # only searches with a schedule care

    @property
    def result(self) -> SelectionResult:
        """The best so far."""
        mask, fitness = self.best
        return SelectionResult(mask.copy(), fitness, list(self.history))

    def close_iteration(self) -> None:
        """Write a line of history."""
        mask, fitness = self.best
        self.history.append(
            {
                "best_fitness": fitness,
                "best_size": float(mask.sum()),
                "mean_fitness": self.mean_fitness,
                "evaluations": float(self.evaluations),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly; nested dicts of numbers, text and arrays."""
        return {
            "rng": self.rng.bit_generator.state,
            "history": [dict(row) for row in self.history],
            "evaluations": self.evaluations,
            "mean_fitness": self.mean_fitness,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        self.history = [dict(row) for row in state["history"]]
        self.evaluations, self.mean_fitness = int(state["evaluations"]), float(state["mean_fitness"])


def scored(fitness: Values) -> int:
    """How many of the masks told were scored."""
    return int(np.count_nonzero(np.isfinite(fitness)))


def finite_mean(fitness: Values) -> float:
    """Mean over the masks that were scored; NaN if none was."""
    return float(np.mean(fitness, where=np.isfinite(fitness))) if scored(fitness) else float("nan")


class SelectionSearch(Search):
    """Sine-cosine algorithm, refined by adaptive beta-hill climbing."""

    def __init__(
        self,
        dim: int,
        sca: ScaConfig,
        abhc: AbhcConfig,
        *,
        seed: int,
        init_scores: Values | None = None,
    ) -> None:
        super().__init__(dim, sca.iterations, sca.patience, seed)
        self.abhc_cfg = abhc
        prior = Prior(init_scores, dim)
        self.sca = SineCosine(dim, sca, self.rng, init_scores, prior)
        self.climb = HillClimb(abhc, self.rng, prior)

    @property
    def done(self) -> bool:
        """As every search; a refinement at the end comes before."""
        if self.abhc_cfg.when == "end":
            return self.climb.done and self.climb.begun
        return super().done

    def ask(self) -> Masks:
        """Masks of the agents, or of a refinement's neighbours."""
        return self.climb.ask() if not self.climb.done else self.sca.ask()

    def tell(self, fitness: Values) -> None:
        """Fitness of the masks last asked, in their order."""
        self.evaluations += scored(fitness)
        (self._tell_agents if self.climb.done else self._tell_climb)(fitness)
        if self.climb.done:
            self.close_iteration()

    def _tell_agents(self, fitness: Values) -> None:
        self.sca.tell(fitness)
        self.mean_fitness = finite_mean(fitness)
        if not self._refines():
            return
        if self.abhc_cfg.who == "agents":
            self.climb.start(self.sca.position_PD, self.sca.mask_PD, self.sca.fitness_P)
        else:
            best = self.sca.best_position_D[None], self.sca.best_mask_D[None]
            self.climb.start(*best, np.array([self.sca.best_fitness]))

    def _tell_climb(self, fitness: Values) -> None:
        self.climb.tell(fitness)
        if not self.climb.done:
            return
        if self.abhc_cfg.who == "agents":
            self.sca.replace(self.climb.position_AD, self.climb.mask_AD, self.climb.fitness_A)
        winner = int(np.argmin(self.climb.fitness_A))
        self.sca.offer(
            self.climb.position_AD[winner], self.climb.mask_AD[winner], float(self.climb.fitness_A[winner])
        )

    def _refines(self) -> bool:
        if self.abhc_cfg.when != "end":
            return self.abhc_cfg.when == "iteration"
        late = self.sca.pace is not None and self.sca.pace >= LATE
        return late or self.ends([*(row["best_fitness"] for row in self.history), self.sca.best_fitness])

    @property
    def best(self) -> tuple[Masks, float]:
        """The best mask so far, and its fitness; that of a refinement under way counts too."""
        if not self.climb.done:
            winner = int(np.argmin(self.climb.fitness_A))
            if self.climb.fitness_A[winner] < self.sca.best_fitness:
                return self.climb.mask_AD[winner], float(self.climb.fitness_A[winner])
        return self.sca.best_mask_D, self.sca.best_fitness

    def accept(self, mask_D: Masks, fitness: float) -> None:
        """Make a scored mask the destination, if it is better."""
        self.sca.offer(reflect(self.sca.best_position_D, mask_D), mask_D, fitness)

    def pace(self, share: float) -> None:
        """The share of the budget that is used stands for t / T."""
        self.sca.pace = share

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return super().state_dict() | {"sca": self.sca.state_dict(), "climb": self.climb.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        self.sca.load_state_dict(state["sca"])
        self.climb.load_state_dict(state["climb"])
