"""SCA with AbetaHC as one ask/tell search: it proposes masks, whoever evaluates tells it their fitness.

The trajectory depends on the seed and the fitness values alone: not on who evaluates, in what order or
on how many workers; and it goes on exactly from a saved state. P agents, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import AbhcConfig, ScaConfig
from cotray.selection.abhc import HillClimb
from cotray.selection.sca import SineCosine
from cotray.selection.transfer import Masks


@dataclass(frozen=True)
class SelectionResult:
    """The best mask found."""

    mask: Masks
    """(D,) bool."""
    fitness: float
    history: list[dict[str, float]]
    """One row per iteration: best_fitness, best_size, mean_fitness, evaluations."""


class SelectionSearch:
    """``while not search.done: search.tell(evaluate(search.ask()))``."""

    def __init__(
        self,
        dim: int,
        sca: ScaConfig,
        abhc: AbhcConfig,
        *,
        seed: int,
        init_scores: NDArray[np.float64] | None = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.sca_cfg, self.abhc_cfg = sca, abhc
        self.sca = SineCosine(dim, sca, self.rng, init_scores)
        self.climb = HillClimb(abhc, self.rng)
        self.history: list[dict[str, float]] = []
        self.evaluations = 0
        self.mean_fitness = float("nan")

    @property
    def done(self) -> bool:
        """Whether all iterations are done, or none was better for ``sca.patience`` of them.

        A refinement at the end comes before either.
        """
        if self.abhc_cfg.when == "end":
            return self.climb.done and self.climb.position_D.size > 0
        return self._ends([row["best_fitness"] for row in self.history])

    def ask(self) -> Masks:
        """Masks to score, (P, D) for agents or (1, D) for a refinement; the next call must be tell."""
        return self.climb.ask() if not self.climb.done else self.sca.ask()

    def tell(self, fitness: NDArray[np.float64]) -> None:
        """Fitness of the masks last asked, in their order."""
        self.evaluations += len(fitness)
        (self._tell_agents if self.climb.done else self._tell_climb)(fitness)
        self._close_iteration()

    def _tell_agents(self, fitness: NDArray[np.float64]) -> None:
        self.sca.tell(fitness)
        self.mean_fitness = float(np.mean(fitness))
        if self._refines():
            self.climb.start(self.sca.best_position_D, self.sca.best_mask_D, self.sca.best_fitness)

    def _tell_climb(self, fitness: NDArray[np.float64]) -> None:
        self.climb.tell(float(fitness[0]))
        if self.climb.done:
            self.sca.offer(self.climb.position_D, self.climb.mask_D, self.climb.fitness)

    def _close_iteration(self) -> None:
        if self.climb.done:
            self.history.append(self._row())

    @property
    def result(self) -> SelectionResult:
        """The best so far."""
        return SelectionResult(self.sca.best_mask_D.copy(), self.sca.best_fitness, list(self.history))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly; nested dicts of numbers, text and arrays."""
        return {
            "sca": self.sca.state_dict(),
            "climb": self.climb.state_dict(),
            "rng": self.rng.bit_generator.state,
            "history": [dict(row) for row in self.history],
            "evaluations": self.evaluations,
            "mean_fitness": self.mean_fitness,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.sca.load_state_dict(state["sca"])
        self.climb.load_state_dict(state["climb"])
        self.rng.bit_generator.state = state["rng"]
        self.history = [dict(row) for row in state["history"]]
        self.evaluations, self.mean_fitness = int(state["evaluations"]), float(state["mean_fitness"])

    def _refines(self) -> bool:
        if self.abhc_cfg.when != "end":
            return self.abhc_cfg.when == "iteration"
        return self._ends([*(row["best_fitness"] for row in self.history), self.sca.best_fitness])

    def _ends(self, best: list[float]) -> bool:
        """Whether the search ends after iterations with these best values."""
        wait = self.sca_cfg.patience
        stalled = 0 < wait < len(best) and best[-1] >= best[-1 - wait]
        return stalled or len(best) >= self.sca_cfg.iterations

    def _row(self) -> dict[str, float]:
        return {
            "best_fitness": self.sca.best_fitness,
            "best_size": float(self.sca.best_mask_D.sum()),
            "mean_fitness": self.mean_fitness,
            "evaluations": float(self.evaluations),
        }
