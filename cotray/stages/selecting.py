"""What every door to feature selection shares: evaluators, the log of scores, progress, artifacts, figures.

A killed search is replayed from its seed: masks scored before are answered from the log, so nothing is
evaluated twice and the outcome is that of an unbroken run. N samples, D features, P masks, M members.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.config import Config
from cotray.evaluation.selection_figures import History, convergence_figure, stability_figure
from cotray.runs import StageResult
from cotray.selection.budget import Budget, parse_budget
from cotray.selection.choose import frequency, jaccard, stability
from cotray.selection.drive import Memo
from cotray.selection.judge import Choice, Judgement, compare_asked, judge
from cotray.selection.problem import Table
from cotray.selection.search import Search
from cotray.selection.select import Hooks, MemberJob, Selection, select_features
from cotray.selection.transfer import Masks
from cotray.stages.base import StageRun
from cotray.stages.cluster import cpus
from cotray.stages.evaluators import EVALUATORS, run_members
from cotray.stages.score_log import ScoreLog
from cotray.stages.weights import array_bytes
from cotray.storage import Folder

RunAll = Callable[[Sequence[MemberJob]], list[Masks]]
SECONDS, MEMBERS = "seconds.json", "members.npy"
EVERY_S = 1.0
"""How often the clock is written and iterations are tracked: each time costs milliseconds."""


def select_table(
    inside: Table, outside: Table | None, names: NDArray[np.str_], config: Config, seed: int, at: StageRun
) -> StageResult:
    """Select features of ``inside``, judge them on ``outside`` (or compare them on the samples that are
    asked), write everything into the stage's folder."""
    log, progress = ScoreLog(at.folder), Progress(config, at)
    if len(log):
        timed = "; its budget of seconds begins anew" if progress.budget.seconds is not None else ""
        at.say(f"continuing: {len(log)} masks were scored before{timed}")
    selection = select_features(inside, config, seed, make_hooks(config, log, progress))
    log.flush()
    progress.keep()
    verdict: Judgement | Choice | None = None
    if inside.asked_N is not None:
        verdict = compare_asked(selection.mask_D, selection.score_D, inside, config.fitness, seed)
    elif outside is not None and len(outside.label_N):
        verdict = judge(selection.mask_D, selection.score_D, inside, outside, config.fitness, seed)
    return finish(selection, verdict, names, progress, at)


def make_hooks(config: Config, log: ScoreLog, progress: Progress) -> Hooks:
    """Who evaluates, where scores are kept and who is told."""

    def recall(memo: Memo) -> None:
        log.recall(memo)
        progress.start()

    hooks = Hooks(
        evaluator=EVALUATORS[config.select.evaluator],
        on_iteration=progress.iteration,
        on_scored=log.append,
        recall=recall,
    )
    alone = config.select.evaluator == "serial"
    hooks.run_all = kept_members(hooks.run_all if alone else run_members, 1 if alone else cpus(), progress.at)
    return hooks


def kept_members(run_all: RunAll, at_once: int, at: StageRun) -> RunAll:
    """The same, but masks of members that are done are on disk: a killed selection does the others only."""

    def run(jobs: Sequence[MemberJob]) -> list[Masks]:
        known = at.folder.exists(MEMBERS)
        done = list(np.load(io.BytesIO(at.folder.read_bytes(MEMBERS)))) if known else []
        at.say(f"{len(jobs)} searches on halves of the data")
        while len(done) < len(jobs):
            done += run_all(jobs[len(done) : len(done) + at_once])
            at.folder.write_bytes(MEMBERS, array_bytes(np.stack(done)))
            at.voice.progress("halves", len(done), len(jobs))
        return done

    return run


class Clock:
    """Seconds that a search took until the end of each iteration, in all lives of the process together."""

    def __init__(self, folder: Folder, replayed: bool) -> None:
        known = replayed and folder.exists(SECONDS)
        self.folder = folder
        self.seconds: list[float] = folder.read_json(SECONDS) if known else []
        self.known = len(self.seconds)
        self.begun = time.perf_counter()

    def mark(self, step: int) -> None:
        """The iteration ``step``, counted from 1, is over; one known from an earlier life took no time."""
        if step <= len(self.seconds):
            return
        before = self.seconds[self.known - 1] if self.known else 0.0
        self.seconds.append(before + time.perf_counter() - self.begun)

    def write(self) -> None:
        """Keep what is known."""
        self.folder.write_json(SECONDS, [round(seconds, 4) for seconds in self.seconds])


class Progress:
    """Tells how far a search is, what it found, how fast it goes and how long it will take."""

    def __init__(self, config: Config, at: StageRun) -> None:
        self.at, self.budget = at, parse_budget(config.select.budget)
        self.optimizer = config.select.optimizer
        # With a budget of seconds the time itself steers the search: what comes is no replay.
        self.clock = Clock(at.folder, replayed=self.budget.seconds is None)
        self.begun = self._kept = time.perf_counter()
        self._rows: list[tuple[int, float, dict[str, float]]] = []
        self._told = self.clock.known

    def start(self) -> None:
        """The table is prepared; now the search begins."""
        self.begun = self.clock.begun = time.perf_counter()

    def iteration(self, search: Search, memo: Memo) -> None:
        """One iteration is over."""
        row, seconds, step = search.history[-1], time.perf_counter() - self.begun, len(search.history)
        rate = memo.scored / max(seconds, 1e-9)
        self.clock.mark(step)
        self._tell(step, row, {"select_evaluations_per_second": rate})
        if time.perf_counter() - self._kept > EVERY_S:
            self.keep()
        done, total = share(self.budget, search, seconds)
        shown = (
            f"fitness {row['best_fitness']:.4f}  features {int(row['best_size'])}  {rate:.0f} evaluations/s"
        )
        self.at.voice.progress("select", done, total, shown)

    def _tell(self, step: int, row: Mapping[str, float], more: Mapping[str, float]) -> None:
        if step > self._told:
            told = {f"select_{key}": float(value) for key, value in row.items()}
            self._rows.append((step, time.time(), told | dict(more)))
            self._told = step

    def keep(self) -> None:
        """Track what was not yet, then write the clock: its steps will not be tracked again."""
        self.at.tracker.series(self._rows)
        self.clock.write()
        self._rows, self._kept = [], time.perf_counter()


def share(budget: Budget, search: Search, seconds: float) -> tuple[int, int]:
    """(done, of how many): evaluations, seconds or iterations, whichever ends the search."""
    if budget.evaluations is not None:
        return min(search.evaluations, budget.evaluations), budget.evaluations
    if budget.seconds is not None:
        return min(int(seconds), int(budget.seconds)), max(1, int(budget.seconds))
    return min(len(search.history), search.iterations), search.iterations


def finish(
    selection: Selection,
    verdict: Judgement | Choice | None,
    names: NDArray[np.str_],
    progress: Progress,
    at: StageRun,
) -> StageResult:
    """Write masks, tables and pictures; tell counts, figures and the gap."""
    history = [{k: float(v) for k, v in row.items()} for row in selection.result.history]
    at.folder.write_json("history.json", history)
    at.folder.write_bytes("mask.npy", array_bytes(selection.mask_D))
    at.folder.write_bytes("selected.txt", "".join(f"{name}\n" for name in names[selection.mask_D]).encode())
    at.folder.write_parquet("features.parquet", feature_table(selection, names))
    files = {
        "mask": "mask.npy",
        "selected": "selected.txt",
        "features": "features.parquet",
        "history": "history.json",
    }
    metrics, notes = figures(selection, verdict)
    metrics["search_seconds"] = progress.clock.seconds[-1]
    files |= pictures(selection, names, {progress.optimizer: timed(history, progress.clock.seconds)}, at)
    for path in files.values():
        at.tracker.artifact(path, at.folder.read_bytes(path))
    counts = {
        "features": len(selection.mask_D),
        "candidates": len(selection.pool),
        "selected": int(selection.mask_D.sum()),
        "evaluations": int(history[-1]["evaluations"]),
        "scored": selection.scored,
    }
    return StageResult(counts, metrics, files, notes)


def figures(selection: Selection, verdict: Judgement | Choice | None) -> tuple[dict[str, float], list[str]]:
    """What the selection is worth, as figures and in sentences."""
    metrics, notes = {"fitness": float(selection.fitness)}, []
    if verdict is not None:
        metrics |= {name: float(value) for name, value in asdict(verdict).items()}
        notes.append(say_gap(verdict) if isinstance(verdict, Judgement) else say_choice(verdict))
    if isinstance(verdict, Judgement):
        metrics["gap"] = verdict.gap
    if len(selection.member_MD) > 1:
        metrics |= {"jaccard": jaccard(selection.member_MD), "stability": stability(selection.member_MD)}
        notes.append(
            f"stability over {len(selection.member_MD)} halves of the data: "
            f"Jaccard {metrics['jaccard']:.2f}, Nogueira {metrics['stability']:.2f}"
        )
    return metrics, notes


def pictures(
    selection: Selection, names: NDArray[np.str_], histories: Mapping[str, History], at: StageRun
) -> dict[str, str]:
    """Draw how the search went and how steady it is; returns name -> path."""
    drawn = {"convergence": convergence_figure(histories)}
    if len(selection.member_MD) > 1:
        drawn["stability"] = stability_figure(names, selection.member_MD, selection.mask_D)
    for name, png in drawn.items():
        at.folder.write_bytes(f"{name}.png", png)
    return {name: f"{name}.png" for name in drawn}


def timed(history: History, seconds: Sequence[float]) -> History:
    """History with the time at which each row was reached."""
    return [{**row, "seconds": at} for row, at in zip(history, seconds, strict=True)]


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


def say_choice(verdict: Choice) -> str:
    """Errors on the samples that were asked in one sentence."""
    return (
        f"error {verdict.asked_error:.3f} on the validation samples that chose the mask (too good for that); "
        f"there, all features {verdict.asked_all_error:.3f}, best filter {verdict.asked_filter_error:.3f} "
        f"with {verdict.asked_filter_size}"
    )
