"""How long a search may go on: evaluations, or seconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cotray.config import AbhcConfig, ScaConfig, SelectConfig
from cotray.errors import InvalidValueError

PATTERN = re.compile(
    r"\s*([0-9.]+)\s*(evaluations?|evals?|e|seconds?|sec|s|minutes?|min|m)\s*", re.IGNORECASE
)


@dataclass(frozen=True)
class Budget:
    """One of the two, or neither: then the search's own iterations are the limit."""

    evaluations: int | None = None
    seconds: float | None = None

    def used(self, evaluations: int, seconds: float) -> float:
        """Share of the budget that is used, 0 to 1 and above."""
        if self.evaluations is not None:
            return evaluations / self.evaluations
        return seconds / self.seconds if self.seconds is not None else 0.0


def parse_budget(text: str | None) -> Budget:
    """``620 evaluations``, ``30 seconds``, ``2 minutes``. Raises InvalidValueError."""
    if text is None:
        return Budget()
    found = PATTERN.fullmatch(text)
    number = float(found[1]) if found and found[1].count(".") < 2 and found[1] != "." else 0.0
    if not found or number <= 0:
        raise InvalidValueError(
            f"A budget cannot be '{text}'.",
            where="select.budget",
            cure="Give a number above 0 and its unit: '620 evaluations' or '30 seconds'.",
        )
    if found[2].lower().startswith("e"):
        return Budget(evaluations=max(1, int(number)))
    return Budget(seconds=number * (60 if found[2].lower().startswith("m") else 1))


def fit_schedule(budget: Budget, sca: ScaConfig, abhc: AbhcConfig, optimizer: str, islands: int) -> ScaConfig:
    """Settings whose iterations just use up a budget of evaluations, so that r1 falls to 0 with it.

    The last iteration may be cut short; but what a refinement at the end needs is left for it. With a
    budget of seconds the share of time passed takes the place of t / T (`Search.pace`).
    """
    if budget.seconds is not None:
        return sca.model_copy(update={"iterations": 10**9})
    if budget.evaluations is None:
        return sca
    each, once = cost(sca, abhc, optimizer)
    whole = (budget.evaluations / islands - once) / each
    iterations = max(1, math.floor(whole) if once else math.ceil(whole))
    return sca.model_copy(update={"iterations": iterations})


def schedule(select: SelectConfig, sca: ScaConfig, abhc: AbhcConfig) -> str:
    """The budget that a search without one uses if nothing ends it early: ``620 evaluations``."""
    each, once = cost(sca, abhc, select.optimizer)
    return f"{(each * sca.iterations + once) * select.islands} evaluations"


def cost(sca: ScaConfig, abhc: AbhcConfig, optimizer: str) -> tuple[int, int]:
    """Evaluations of an iteration, and of a refinement at the end."""
    climb = abhc.steps * abhc.width * (sca.agents if abhc.who == "agents" else 1)
    if optimizer != "sca" or abhc.when == "off":
        climb = 0
    return (sca.agents, climb) if abhc.when == "end" else (sca.agents + climb, 0)
