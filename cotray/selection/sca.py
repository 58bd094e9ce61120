"""Sine-cosine algorithm over feature masks (paper, Eq. 14-15; Mirjalili 2016). P agents, D features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import ScaConfig
from cotray.selection.transfer import TRANSFER, Masks, Positions, repair, sigmoid


def move(
    position_PD: Positions, best_D: Positions, progress: float, a: float, rng: np.random.Generator
) -> Positions:
    """One step of every agent towards (and around) the best position (Eq. 14), clipped to [0, 1].

    ``progress`` is t/T. r1 falls from ``a`` to 0 (Eq. 15); r2 in [0, 2 pi], r3 in [0, 2] and r4 in
    [0, 1] are drawn anew for every coordinate.
    """
    r1 = a - progress * a
    r2 = rng.uniform(0, 2 * np.pi, position_PD.shape)
    r3 = rng.uniform(0, 2, position_PD.shape)
    r4 = rng.uniform(0, 1, position_PD.shape)
    wave = np.where(r4 < 0.5, np.sin(r2), np.cos(r2))
    return np.clip(position_PD + r1 * wave * np.abs(r3 * best_D - position_PD), 0.0, 1.0)


def ranked_positions(score_D: NDArray[np.float64], agents: int, rng: np.random.Generator) -> Positions:
    """Starting positions that favour features of high univariate score: (P, D).

    Agent i aims at a density between 2 % and half of all features; its best-ranked share starts above
    0.5, the rest below, all slightly shaken.
    """
    rank = np.empty(len(score_D))
    rank[np.argsort(score_D, kind="stable")] = (np.arange(len(score_D)) + 0.5) / len(score_D)
    density = np.geomspace(0.02, 0.5, agents)[:, None]
    shaken = rank[None] + rng.normal(0, 0.1, (agents, len(rank))) * np.sqrt(density)
    return np.asarray(np.clip(0.5 + (shaken - (1 - density)) * 2, 0.0, 1.0))


class SineCosine:
    """Ask for masks, tell what they are worth (smaller is better)."""

    def __init__(
        self,
        dim: int,
        cfg: ScaConfig,
        rng: np.random.Generator,
        init_scores: NDArray[np.float64] | None = None,
    ) -> None:
        self.cfg, self.rng = cfg, rng
        ranked = cfg.init == "ranked" and init_scores is not None
        self.position_PD = (
            ranked_positions(np.asarray(init_scores, float), cfg.agents, rng)
            if ranked
            else rng.uniform(0, 1, (cfg.agents, dim))
        )
        self.mask_PD: Masks = self.position_PD > 0.5
        self.best_position_D: Positions = np.full(dim, 0.5)
        self.best_mask_D: Masks = np.zeros(dim, bool)
        self.best_fitness = float("inf")
        self.iteration = 0

    def ask(self) -> Masks:
        """Masks (P, D) to score: the starting ones, then those of moved agents."""
        if self.iteration:
            progress = self.iteration / self.cfg.iterations
            self.position_PD = move(self.position_PD, self.best_position_D, progress, self.cfg.a, self.rng)
        # The V shape flips bits, so the first ones have to come from the positions alone.
        transfer = TRANSFER[self.cfg.transfer] if self.iteration else sigmoid
        draws = self.rng.uniform(0, 1, self.position_PD.shape)
        self.mask_PD = repair(transfer(self.position_PD, self.mask_PD, draws), self.rng)
        return self.mask_PD

    def tell(self, fitness_P: NDArray[np.float64]) -> None:
        """Take the agents' fitness; the best so far becomes the destination."""
        winner = int(np.argmin(fitness_P))
        self.offer(self.position_PD[winner], self.mask_PD[winner], float(fitness_P[winner]))
        self.iteration += 1

    def offer(self, position_D: Positions, mask_D: Masks, fitness: float) -> None:
        """Take a solution as the best so far if it is better."""
        if fitness < self.best_fitness:
            self.best_position_D, self.best_mask_D = position_D.copy(), mask_D.copy()
            self.best_fitness = fitness

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random generator, which belongs to the search."""
        names = ("position_PD", "mask_PD", "best_position_D", "best_mask_D", "best_fitness", "iteration")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)
