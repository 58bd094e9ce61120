"""What every door to feature selection shares: evaluators, the log of scores, progress, artifacts, figures.

A killed search is replayed from its seed: masks scored before are answered from the log, so nothing is
evaluated twice and the outcome is that of an unbroken run. N samples, D features, P masks.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.config import Config
from cotray.runs import StageResult
from cotray.selection.budget import Budget, parse_budget
from cotray.selection.choose import frequency, jaccard, stability
from cotray.selection.drive import Memo
from cotray.selection.judge import Judgement, judge
from cotray.selection.search import Search
from cotray.selection.select import Hooks, Selection, Table, select_features
from cotray.stages.base import StageRun
from cotray.stages.evaluators import EVALUATORS, run_members
from cotray.stages.score_log import ScoreLog
from cotray.stages.weights import array_bytes


def select_table(
    inside: Table, outside: Table | None, names: NDArray[np.str_], config: Config, seed: int, at: StageRun
) -> StageResult:
    """Select features of ``inside``, judge them on ``outside``, write everything into the stage's folder."""
    log, progress = ScoreLog(at.folder), Progress(config, at)
    if len(log):
        at.say(f"continuing: {len(log)} masks were scored before")
    hooks = Hooks(
        evaluator=EVALUATORS[config.select.evaluator],
        on_iteration=progress.iteration,
        on_scored=log.append,
        recall=log.recall,
    )
    if config.select.evaluator != "serial":
        hooks.run_all = run_members
    selection = select_features(inside, config, seed, hooks)
    log.flush()
    verdict = None
    if outside is not None and len(outside.label_N):
        verdict = judge(selection.mask_D, selection.score_D, inside, outside, config.fitness, seed)
    return finish(selection, verdict, names, at)


class Progress:
    """Tells how far a search is, what it found, how fast it goes and how long it will take."""

    def __init__(self, config: Config, at: StageRun) -> None:
        self.at, self.budget = at, parse_budget(config.select.budget)
        self.begun = time.perf_counter()

    def iteration(self, search: Search, memo: Memo) -> None:
        """One iteration is over."""
        row, seconds = search.history[-1], time.perf_counter() - self.begun
        rate = memo.scored / max(seconds, 1e-9)
        step = len(search.history)
        told = {f"select_{key}": float(value) for key, value in row.items()}
        self.at.tracker.metrics(told | {"select_evaluations_per_second": rate}, step=step)
        done, total = share(self.budget, search, seconds)
        shown = (
            f"fitness {row['best_fitness']:.4f}  features {int(row['best_size'])}  {rate:.0f} evaluations/s"
        )
        self.at.voice.progress("select", done, total, shown)


def share(budget: Budget, search: Search, seconds: float) -> tuple[int, int]:
    """(done, of how many): evaluations, seconds or iterations, whichever ends the search."""
    if budget.evaluations is not None:
        return min(search.evaluations, budget.evaluations), budget.evaluations
    if budget.seconds is not None:
        return min(int(seconds), int(budget.seconds)), max(1, int(budget.seconds))
    return min(len(search.history), search.iterations), search.iterations


def finish(
    selection: Selection, verdict: Judgement | None, names: NDArray[np.str_], at: StageRun
) -> StageResult:
    """Write mask, table of features and history; tell counts, figures and the gap."""
    history = [{k: float(v) for k, v in row.items()} for row in selection.result.history]
    at.folder.write_bytes("mask.npy", array_bytes(selection.mask_D))
    at.folder.write_json("history.json", history)
    at.folder.write_parquet("features.parquet", feature_table(selection, names))
    metrics, notes = {"fitness": float(selection.fitness)}, []
    if verdict is not None:
        metrics |= {name: float(value) for name, value in asdict(verdict).items()} | {"gap": verdict.gap}
        notes.append(say_gap(verdict))
    if len(selection.member_MD) > 1:
        metrics |= {"jaccard": jaccard(selection.member_MD), "stability": stability(selection.member_MD)}
        notes.append(
            f"stability over {len(selection.member_MD)} halves of the data: "
            f"Jaccard {metrics['jaccard']:.2f}, Nogueira {metrics['stability']:.2f}"
        )
    counts = {
        "features": len(selection.mask_D),
        "candidates": len(selection.pool),
        "selected": int(selection.mask_D.sum()),
        "evaluations": int(history[-1]["evaluations"]),
        "scored": selection.scored,
    }
    files = {"mask": "mask.npy", "history": "history.json", "features": "features.parquet"}
    return StageResult(counts, metrics, files, notes)


def feature_table(selection: Selection, names: NDArray[np.str_]) -> pa.Table:
    """One row per feature: name, selected, univariate score, how often members chose it."""
    often = frequency(selection.member_MD) if len(selection.member_MD) else np.full(len(names), np.nan)
    columns = {"feature": names, "selected": selection.mask_D, "score": selection.score_D, "frequency": often}
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def say_gap(verdict: Judgement) -> str:
    """Inner and outer error in one sentence."""
    return (
        f"error {verdict.inner_error:.3f} on the search's own folds, {verdict.outer_error:.3f} on samples it "
        f"never saw (gap {verdict.gap:+.3f}); there, all features {verdict.all_error:.3f}, best filter "
        f"{verdict.filter_error:.3f} with {verdict.filter_size}"
    )
