"""Adaptive beta-hill climbing on masks (paper, Eq. 16-17; Al-Betar et al. 2019).

D features, A climbers (the best agent, or all of them), W neighbours tried by each at a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import AbhcConfig
from cotray.selection.moves import Prior, some, step
from cotray.selection.transfer import Masks, Positions, reflect, repair


def reach(step: int, steps: int, p: float) -> float:
    """N(t) of Eq. 16: 1 - (t / Tmax)^(1/P); how far a coordinate may move."""
    return float(1.0 - (step / steps) ** (1.0 / p))


def beta(step: int, steps: int, low: float, high: float) -> float:
    """beta(t) of Eq. 17: rises linearly from ``low`` to ``high``."""
    return low + step * (high - low) / steps


class HillClimb:
    """Refines positions: neighbours within N(t), some coordinates drawn by beta(t); keep if not worse.

    A coordinate above 0.5 means that its feature is taken. ``abhc.moves`` = ``all``: every coordinate
    moves by +-U(0,1) N(t), as the paper prints it; ``one``: a single coordinate, as in the original;
    ``few``: one or two bits flip (two with probability N(t)), and beta acts on taken features only.
    """

    def __init__(self, cfg: AbhcConfig, rng: np.random.Generator, prior: Prior | None = None) -> None:
        self.cfg, self.rng, self.prior = cfg, rng, prior
        self.step = cfg.steps
        self.position_AD: Positions = np.zeros((0, 0))
        self.fitness_A: NDArray[np.float64] = np.zeros(0)
        self.candidate_PD: Positions = np.zeros((0, 0))

    @property
    def begun(self) -> bool:
        """Whether a refinement was ever started."""
        return self.position_AD.size > 0

    @property
    def done(self) -> bool:
        """Whether all steps of this refinement are taken."""
        return self.step >= self.cfg.steps

    @property
    def mask_AD(self) -> Masks:
        """Masks of the present positions."""
        return np.asarray(self.position_AD > 0.5)

    def start(self, position_AD: Positions, mask_AD: Masks, fitness_A: NDArray[np.float64]) -> None:
        """Begin a refinement of scored masks."""
        self.position_AD, self.fitness_A = reflect(position_AD, mask_AD), fitness_A.copy()
        self.step = 0

    def ask(self) -> Masks:
        """The neighbours' masks: (A * W, D), those of one climber side by side."""
        t = self.step + 1
        width = reach(t, self.cfg.steps, self.cfg.p)
        chance = beta(t, self.cfg.steps, self.cfg.beta_min, self.cfg.beta_max)
        parent_PD = np.repeat(self.position_AD, self.cfg.width, axis=0)
        if self.cfg.moves == "few":
            self.candidate_PD = np.stack([self._few(parent_D, width, chance) for parent_D in parent_PD])
        else:
            self.candidate_PD = self._resample(parent_PD, self._moved(parent_PD, width), chance)
        mask_PD = repair(self.candidate_PD > 0.5, self.rng)
        self.candidate_PD = reflect(self.candidate_PD, mask_PD)
        return mask_PD

    def _moved(self, parent_PD: Positions, width: float) -> Positions:
        """Eq. 16, on all coordinates or on one."""
        away_PD = self.rng.uniform(-1, 1, parent_PD.shape) * width
        if self.cfg.moves == "one":
            chosen_P = self.rng.integers(parent_PD.shape[1], size=len(parent_PD))
            away_PD = np.where(np.arange(parent_PD.shape[1]) == chosen_P[:, None], away_PD, 0.0)
        return np.clip(parent_PD + away_PD, 0, 1)

    def _resample(self, parent_PD: Positions, moved_PD: Positions, chance: float) -> Positions:
        """Eq. 17: coordinates are drawn anew (or go back to the parent's) with probability beta."""
        chosen_PD = self.rng.uniform(0, 1, parent_PD.shape) < chance
        fresh_PD = self.rng.uniform(0, 1, parent_PD.shape)
        source_PD = fresh_PD if self.cfg.beta_rule == "redraw" else parent_PD
        return np.where(chosen_PD, source_PD, moved_PD)

    def _few(self, parent_D: Positions, width: float, chance: float) -> Positions:
        mask_D = parent_D > 0.5
        prior = self.prior or Prior(None, len(parent_D))
        flipped = step(mask_D, 2 if self.rng.uniform() < width else 1, prior, self.rng)
        moved_D = parent_D.copy()
        moved_D[flipped] = self.rng.uniform(0, 0.5, len(flipped)) + np.where(mask_D[flipped], 0.0, 0.5)
        drawn = some(mask_D, self.rng.binomial(int(mask_D.sum()), chance), self.rng)
        fresh = self.rng.uniform(0, 1, len(drawn))
        moved_D[drawn] = fresh if self.cfg.beta_rule == "redraw" else parent_D[drawn]
        return moved_D

    def tell(self, fitness_P: NDArray[np.float64]) -> None:
        """Take the neighbours' fitness; each climber moves to its best one if that is not worse."""
        fitness_AW = np.asarray(fitness_P).reshape(-1, self.cfg.width)
        winner_A = fitness_AW.argmin(axis=1)
        for climber, winner in enumerate(winner_A):
            if fitness_AW[climber, winner] <= self.fitness_A[climber]:
                self.position_AD[climber] = self.candidate_PD[climber * self.cfg.width + winner]
                self.fitness_A[climber] = fitness_AW[climber, winner]
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random generator, which belongs to the search."""
        names = ("step", "position_AD", "fitness_A", "candidate_PD")
        return {name: _copy(getattr(self, name)) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, _copy(value))


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
