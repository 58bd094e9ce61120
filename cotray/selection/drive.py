"""The loop that joins a search to whoever evaluates, and what it remembers. P masks, D features."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from cotray.config import Config
from cotray.selection.budget import Budget, fit_schedule
from cotray.selection.islands import Islands
from cotray.selection.rivals import SEARCHES
from cotray.selection.search import Search, SelectionResult, Values
from cotray.selection.transfer import Masks

Evaluate = Callable[[Masks], Values]


def make_search(dim: int, config: Config, budget: Budget, *, seed: int, init_scores: Values | None) -> Search:
    """The search that the settings ask for: `select.optimizer` on `select.islands` populations."""
    islands = config.select.islands
    sca = fit_schedule(budget, config.sca, config.abhc, config.select.optimizer, islands)
    seeds = [seed] if islands == 1 else np.random.SeedSequence(seed).generate_state(islands)
    searches = [
        SEARCHES[config.select.optimizer](dim, sca, config.abhc, seed=int(s), init_scores=init_scores)
        for s in seeds
    ]
    return searches[0] if islands == 1 else Islands(searches, config.select.migrate)


class Memo:
    """Masks seen and what they are worth: nothing is evaluated twice.

    ``on_scored`` is told of every new batch of masks (P, D) and values (P,), so that it can be kept.
    """

    def __init__(self, evaluate: Evaluate, on_scored: Callable[[Masks, Values], None] | None = None) -> None:
        self.evaluate, self.on_scored = evaluate, on_scored
        self.known: dict[bytes, float] = {}
        self.scored = 0

    def __call__(self, mask_PD: Masks) -> Values:
        """Fitness of each mask: (P,); only masks not seen before are evaluated."""
        keys = _keys(mask_PD)
        fresh = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self.known}
        rows = sorted(fresh.values())
        if rows:
            values = np.asarray(self.evaluate(mask_PD[rows]), float)
            self.scored += len(rows)
            self.learn(mask_PD[rows], values)
            if self.on_scored:
                self.on_scored(mask_PD[rows], values)
        return np.array([self.known[key] for key in keys])

    def learn(self, mask_PD: Masks, value_P: Iterable[float]) -> None:
        """Take masks scored before, such as those of a run that was killed."""
        self.known.update(zip(_keys(mask_PD), map(float, value_P), strict=True))

    def fittest(self, most: int, dim: int) -> tuple[Masks, Values]:
        """The fittest masks known, the best first, and their values; equals by their bits."""
        found = sorted((value, key) for key, value in self.known.items())[:most]
        bits = np.frombuffer(b"".join(key for _, key in found), np.uint8).reshape(len(found), -1)
        return np.unpackbits(bits, axis=1, count=dim).astype(bool), np.array([value for value, _ in found])


def drive(
    search: Search,
    evaluate: Evaluate,
    budget: Budget | None = None,
    on_iteration: Callable[[Search], None] | None = None,
) -> SelectionResult:
    """Ask, evaluate, tell until the search is done or the budget used; never more evaluations than that.

    A batch that would exceed the budget is cut, and its rest is told as infinitely bad. The first batch is
    evaluated however few seconds there are: what is reported was scored.
    """
    budget = budget or Budget()
    begun, seen, asked = time.perf_counter(), len(search.history), search.evaluations > 0
    while not search.done:
        used = budget.used(search.evaluations, time.perf_counter() - begun)
        if used >= 1 and asked:
            break
        asked = True
        if budget.seconds is not None:
            search.pace(used)
        mask_PD = search.ask()
        value_P = np.full(len(mask_PD), np.inf)
        left = len(mask_PD) if budget.evaluations is None else budget.evaluations - search.evaluations
        value_P[:left] = evaluate(mask_PD[:left])
        search.tell(value_P)
        if len(search.history) > seen:
            seen = len(search.history)
            if on_iteration:
                on_iteration(search)
    if not search.history or search.history[-1]["evaluations"] != search.evaluations:
        search.close_iteration()  # the budget ended within an iteration
        if on_iteration:
            on_iteration(search)
    return search.result


def _keys(mask_PD: NDArray[np.bool_]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(mask_PD, axis=1)]
