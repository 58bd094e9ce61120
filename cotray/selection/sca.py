"""Sine-cosine algorithm over feature masks (paper, Eq. 14-15; Mirjalili 2016). P agents, D features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import ScaConfig
from cotray.selection.initial import INITIAL
from cotray.selection.moves import Prior, some
from cotray.selection.transfer import TRANSFER, Masks, Positions, repair


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


class SineCosine:
    """Ask for masks, tell what they are worth (smaller is better)."""

    def __init__(
        self,
        dim: int,
        cfg: ScaConfig,
        rng: np.random.Generator,
        init_scores: NDArray[np.float64] | None = None,
        prior: Prior | None = None,
    ) -> None:
        self.cfg, self.rng = cfg, rng
        self.prior = prior or Prior(init_scores, dim)
        self.position_PD = INITIAL[cfg.init](init_scores, cfg.agents, dim, rng)
        self.mask_PD: Masks = self.position_PD > 0.5
        self.fitness_P = np.full(cfg.agents, np.inf)
        self.asked_position_PD, self.asked_mask_PD = self.position_PD, self.mask_PD
        self.best_position_D: Positions = np.full(dim, 0.5)
        self.best_mask_D: Masks = np.zeros(dim, bool)
        self.best_fitness = float("inf")
        self.iteration = 0
        self.pace: float | None = None

    def ask(self) -> Masks:
        """Masks (P, D) to score: the starting ones, then those of moved agents."""
        if self.iteration == 0:
            self._first()
        elif self.cfg.moves == "all":
            self._move_all()
        else:
            self._move_few()
        return self.asked_mask_PD

    @property
    def progress(self) -> float:
        """t / T of Eq. 15, or the share of another budget that is used."""
        return min(1.0, self.iteration / self.cfg.iterations if self.pace is None else self.pace)

    def _first(self) -> None:
        # The V shape flips bits, so the first ones have to come from the positions alone.
        self.asked_position_PD = self.position_PD
        mask_PD = self.position_PD > 0.5
        if self.cfg.init == "random":
            mask_PD = TRANSFER["sigmoid"](self.position_PD, mask_PD, self.rng.uniform(0, 1, mask_PD.shape))
        self.asked_mask_PD = repair(mask_PD, self.rng)

    def _move_all(self) -> None:
        moved_PD = move(self.position_PD, self.best_position_D, self.progress, self.cfg.a, self.rng)
        draw_PD = self.rng.uniform(0, 1, moved_PD.shape)
        self.asked_position_PD = moved_PD
        self.asked_mask_PD = repair(TRANSFER[self.cfg.transfer](moved_PD, self.mask_PD, draw_PD), self.rng)

    def _move_few(self) -> None:
        """Eq. 14 on a few coordinates of each agent; the others keep position and bit."""
        self.asked_position_PD, self.asked_mask_PD = self.position_PD.copy(), self.mask_PD.copy()
        for position_D, mask_D in zip(self.asked_position_PD, self.asked_mask_PD, strict=True):
            self._move_one(position_D, mask_D)
        repair(self.asked_mask_PD, self.rng)

    def _move_one(self, position_D: Positions, mask_D: Masks) -> None:
        union_D = mask_D | self.best_mask_D
        inside = some(union_D, (self.cfg.few + 1) // 2, self.rng)
        outside = self.prior.draw(max(1, self.cfg.few // 2), union_D, self.rng)
        touched = np.concatenate([inside, outside])
        moved = move(position_D[touched], self.best_position_D[touched], self.progress, self.cfg.a, self.rng)
        draw = self.rng.uniform(0, 1, len(touched))
        mask_D[touched] = TRANSFER[self.cfg.transfer](moved, mask_D[touched], draw)
        position_D[touched] = moved

    def tell(self, fitness_P: NDArray[np.float64]) -> None:
        """Take the agents' fitness; the best so far becomes the destination.

        Agents move on, whatever they found; with ``sca.greedy`` only where that is not worse.
        """
        moves_P = fitness_P <= self.fitness_P if self.cfg.greedy else np.ones(len(fitness_P), bool)
        self.position_PD = np.where(moves_P[:, None], self.asked_position_PD, self.position_PD)
        self.mask_PD = np.where(moves_P[:, None], self.asked_mask_PD, self.mask_PD)
        self.fitness_P = np.where(moves_P, fitness_P, self.fitness_P)
        winner = int(np.argmin(self.fitness_P))
        self.offer(self.position_PD[winner], self.mask_PD[winner], float(self.fitness_P[winner]))
        self.iteration += 1

    def offer(self, position_D: Positions, mask_D: Masks, fitness: float) -> None:
        """Take a solution as the best so far if it is better."""
        if fitness < self.best_fitness:
            self.best_position_D, self.best_mask_D = position_D.copy(), mask_D.copy()
            self.best_fitness = fitness

    def replace(self, position_PD: Positions, mask_PD: Masks, fitness_P: NDArray[np.float64]) -> None:
        """Agents as a refinement of each of them left them."""
        self.position_PD, self.mask_PD, self.fitness_P = position_PD.copy(), mask_PD.copy(), fitness_P.copy()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random generator, which belongs to the search."""
        return {name: _copy(getattr(self, name)) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, _copy(value))


STATE = (
    *("position_PD", "mask_PD", "fitness_P", "asked_position_PD", "asked_mask_PD"),
    *("best_position_D", "best_mask_D", "best_fitness", "iteration"),
)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
