"""Populations that search side by side and pass on their best masks. I islands, D features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cotray.selection.search import Search, Values, finite_mean, scored
from cotray.selection.transfer import Masks


class Islands(Search):
    """A ring of searches as one: asked together, so that many workers have something to do.

    Every ``migrate`` iterations each island offers its best mask to the next one. Which masks are asked
    depends on the seeds alone.
    """

    def __init__(self, islands: Sequence[Search], migrate: int) -> None:
        first = islands[0]
        super().__init__(first.dim, first.iterations, first.patience, seed=0)
        self.islands, self.migrate = list(islands), migrate
        self._asked: list[int] = []

    @property
    def done(self) -> bool:
        """Whether every island is."""
        return all(island.done for island in self.islands)

    def ask(self) -> Masks:
        """The masks of all islands that go on, one island after the other."""
        masks = [
            island.ask() if not island.done else np.zeros((0, self.dim), bool) for island in self.islands
        ]
        self._asked = [len(mask) for mask in masks]
        return np.concatenate(masks)

    def tell(self, fitness: Values) -> None:
        """Fitness of the masks last asked, in their order."""
        self.evaluations += scored(fitness)
        pieces = np.split(np.asarray(fitness), np.cumsum(self._asked)[:-1])
        told = [(island, piece) for island, piece in zip(self.islands, pieces, strict=True) if len(piece)]
        for island, piece in told:
            island.tell(piece)
        self.mean_fitness = finite_mean(np.array([island.mean_fitness for island, _ in told]))
        # Islands may end at different times (patience); those that go on are all in the same iteration.
        rounds = max(len(island.history) for island in self.islands)
        if rounds > len(self.history):
            if rounds % self.migrate == 0:
                self._pass_on()
            self.close_iteration()

    def _pass_on(self) -> None:
        best = [island.best for island in self.islands]
        for island, (mask_D, fitness) in zip(self.islands, [best[-1], *best[:-1]], strict=True):
            island.accept(mask_D, fitness)

    @property
    def best(self) -> tuple[Masks, float]:
        """The best mask of all islands; of equals that of the first."""
        return min((island.best for island in self.islands), key=lambda found: found[1])

    def accept(self, mask_D: Masks, fitness: float) -> None:
        """Offer a scored mask to the first island; migration spreads it."""
        self.islands[0].accept(mask_D, fitness)

    def pace(self, share: float) -> None:
        """Say which share of the budget is used."""
        for island in self.islands:
            island.pace(share)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        islands = {str(i): island.state_dict() for i, island in enumerate(self.islands)}
        return super().state_dict() | {"islands": islands, "asked": list(self._asked)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        self._asked = [int(n) for n in state["asked"]]
        for i, island in enumerate(self.islands):
            island.load_state_dict(state["islands"][str(i)])
