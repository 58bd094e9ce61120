"""Adaptive beta-hill climbing on one mask (paper, Eq. 16-17; Al-Betar et al. 2019). D features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cotray.config import AbhcConfig
from cotray.selection.transfer import Masks, Positions, reflect, repair


def reach(step: int, steps: int, p: float) -> float:
    """N(t) of Eq. 16: 1 - (t / Tmax)^(1/P); how far a coordinate may move."""
    return float(1.0 - (step / steps) ** (1.0 / p))


def beta(step: int, steps: int, low: float, high: float) -> float:
    """beta(t) of Eq. 17: rises linearly from ``low`` to ``high``."""
    return low + step * (high - low) / steps


class HillClimb:
    """Refines a position: a neighbour within N(t), some coordinates drawn by beta(t); keep if not worse.

    A coordinate above 0.5 means that its feature is taken.
    """

    def __init__(self, cfg: AbhcConfig, rng: np.random.Generator) -> None:
        self.cfg, self.rng = cfg, rng
        self.step = cfg.steps
        self.position_D: Positions = np.zeros(0)
        self.fitness = float("inf")
        self.candidate_D: Positions = np.zeros(0)

    @property
    def done(self) -> bool:
        """Whether all steps of this refinement are taken."""
        return self.step >= self.cfg.steps

    @property
    def mask_D(self) -> Masks:
        """Mask of the present position."""
        return np.asarray(self.position_D > 0.5)

    def start(self, position_D: Positions, mask_D: Masks, fitness: float) -> None:
        """Begin a refinement of a scored mask."""
        self.position_D, self.fitness, self.step = reflect(position_D, mask_D), fitness, 0

    def ask(self) -> Masks:
        """The neighbour's mask: (1, D)."""
        t = self.step + 1
        size = len(self.position_D)
        width = reach(t, self.cfg.steps, self.cfg.p)
        self.candidate_D = np.clip(self.position_D + self.rng.uniform(-1, 1, size) * width, 0, 1)
        chosen = self.rng.uniform(0, 1, size) < beta(t, self.cfg.steps, self.cfg.beta_min, self.cfg.beta_max)
        fresh = self.rng.uniform(0, 1, size)
        source = fresh if self.cfg.beta_rule == "redraw" else self.position_D
        self.candidate_D = np.where(chosen, source, self.candidate_D)
        mask_1D = repair((self.candidate_D > 0.5)[None], self.rng)
        self.candidate_D = reflect(self.candidate_D, mask_1D[0])
        return mask_1D

    def tell(self, fitness: float) -> None:
        """Take the neighbour's fitness; move there if it is not worse."""
        if fitness <= self.fitness:
            self.position_D, self.fitness = self.candidate_D, fitness
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random generator, which belongs to the search."""
        return {name: getattr(self, name) for name in ("step", "position_D", "fitness", "candidate_D")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)
