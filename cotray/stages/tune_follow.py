"""The driver's ear: what trials report goes onto disk, to MLflow and to people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback

from cotray.stages.base import Voice
from cotray.stages.tune_records import FIGURES, Records, TrialRecord
from cotray.tracking import Tracker


class Follow(Callback):  # type: ignore[misc]
    """Keeps records, a nested MLflow run for each trial, and a line of progress."""

    def __init__(self, records: Records, tracker: Tracker, voice: Voice, trials: int) -> None:
        self.records, self.tracker, self.voice, self.total = records, tracker, voice, trials
        self.running: dict[str, tuple[TrialRecord, Tracker, float]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or begins again after its worker died."""
        if trial.trial_id in self.running:
            return
        record = self.records.begin(trial.config)
        child = self.tracker.child(f"trial {record.number}", record.mlflow_run_id)
        child.params(record.params)
        record.mlflow_run_id = child.run_id
        self.records.keep(record)
        self.running[trial.trial_id] = record, child, time.perf_counter()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """A row of a trial: objective and figures of its masks so far."""
        record, child, _ = self.running[trial.trial_id]
        record.take(result)
        child.metrics({name: float(result[name]) for name in FIGURES}, step=int(result["iteration"]))
        self.tell()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is over: run to its end, stopped because it fell behind, or its settings cannot be run."""
        last = trial.last_result or {}
        message = str(last.get("failed", ""))
        state = "failed" if message or not last else "complete" if last.get("final") else "stopped"
        self._end(trial.trial_id, state, message)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's worker died too often, or met an error that is none of the settings."""
        lines = str(trial.get_error() or "its worker died").strip().splitlines()
        self._end(trial.trial_id, "failed", lines[-1])

    def _end(self, trial_id: str, state: Any, message: str) -> None:
        if trial_id not in self.running:
            return
        record, child, begun = self.running.pop(trial_id)
        record.state, record.message, record.seconds = state, message, time.perf_counter() - begun
        self.records.keep(record)
        child.tags({"state": state} | ({"failed": message} if message else {}))
        child.finish("FAILED" if state == "failed" else "FINISHED")
        if message:
            self.voice.say(f"trial {record.number} failed: {message}")
        self.tell()

    def tell(self) -> None:
        """The line of progress."""
        done, best = len(self.records.finished), self.records.complete[:1]
        found = f"best {best[0].objective:.4f} (trial {best[0].number})" if best else "none complete yet"
        now = ", ".join(f"{r.number}: {r.objective:.4f}" for r, _, _ in self.running.values() if r.curve)
        self.voice.progress("tune", done, self.total, found + (f"  now {now}" if now else ""))

    def let_go(self) -> None:
        """What was under way when the time was over is done anew by the next call."""
        for _, child, _ in self.running.values():
            child.finish("KILLED")
        self.running.clear()
