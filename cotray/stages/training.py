"""One training harness for every Learner, on Ray Train: data in, best weights and history out.

Arrays are put into Ray's object store once and read by every worker of a node without a copy; the workers run
:mod:`cotray.stages.train_loop`; what comes of it is kept by :mod:`cotray.stages.weights`.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any

import ray

from cotray.config import ComputeConfig
from cotray.errors import CotrayError, NonFiniteLossError, TrainingError
from cotray.stages.base import StageRun
from cotray.stages.cluster import node_cpus, use_gpu
from cotray.stages.train_loop import Arrays, Job, length, read_state, train_loop
from cotray.stages.weights import Fitted, Weights, load_fitted, save_fitted

__all__ = ["Arrays", "Fitted", "Job", "fit", "within_limit"]


def fit(job: Job, compute: ComputeConfig, at: StageRun) -> Fitted:
    """Train ``job``, or take up where a killed run left it. Raises NonFiniteLossError, TrainingError."""
    done = load_fitted(at, job.name)
    if done is not None:
        at.say(f"{job.name}: already trained, using its weights")
        return done
    job = within_limit(job)
    refs = (ray.put(dict(job.train)), ray.put(dict(job.valid)))
    board = Board.options(num_cpus=0).remote()  # type: ignore[attr-defined]  # ray adds .options
    with _relay(board, job, at):
        result = _run_trainer(job, refs, board, compute, at)
    state = read_state(result.checkpoint)
    best: Weights = state["best"]["weights"]
    fitted = Fitted(weights=job.finish(best) if job.finish else best, history=state["history"])
    save_fitted(at, job.name, fitted)
    return fitted


def within_limit(job: Job) -> Job:
    """The job with as many epochs as ``max_steps`` leaves, at least one."""
    config = job.config
    if config.max_steps is None:
        return job
    steps = max(1, math.ceil(length(job.train) / (config.batch_size * config.accumulate)))
    epochs = max(1, min(config.epochs, round(config.max_steps / steps)))
    return dataclasses.replace(job, config=config.model_copy(update={"epochs": epochs}))


def _run_trainer(job: Job, refs: tuple[Any, Any], board: Any, compute: ComputeConfig, at: StageRun) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, path = at.folder.arrow()
    threads = compute.cpus_per_worker or max(1, node_cpus() // compute.train_workers)
    spec = {"job": _without_arrays(job), "refs": refs, "board": board, "threads": threads}
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=spec,
        scaling_config=ScalingConfig(
            num_workers=compute.train_workers,
            use_gpu=use_gpu(compute),
            resources_per_worker={"CPU": threads} | ({"GPU": 1} if use_gpu(compute) else {}),
        ),
        run_config=RunConfig(
            name=f"train-{job.name}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps whatever happened in its own, long, errors
        raise _training_error(job, error) from error
    failure = (result.return_value or {}).get("failure")
    if failure:
        raise NonFiniteLossError(failure, where=job.name, cure="Lower its learning rate or raise grad_clip.")
    return result


def _without_arrays(job: Job) -> Job:
    return Job(job.name, job.build, {}, {}, job.config, job.seed)


def _training_error(job: Job, error: BaseException) -> CotrayError:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CotrayError):
            return seen
        seen = seen.__cause__
    reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error))
    return TrainingError(
        f"Training of {job.name} failed: {reason.strip()[:300]}",
        where=job.name,
        cure="The same command continues from the last checkpoint; --verbose shows the workers' logs.",
    )


# ---- progress --------------------------------------------------------------------------------------


@ray.remote
class Board:
    """Where rank 0 posts each epoch's figures for the driver to read."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def push(self, row: dict[str, float]) -> None:
        """Post a row."""
        self.rows.append(row)

    def drain(self) -> list[dict[str, float]]:
        """All rows since the last call."""
        rows, self.rows = self.rows, []
        return rows


class _relay:
    """While entered, a thread moves rows from the board to the tracker and the voice."""

    def __init__(self, board: Any, job: Job, at: StageRun) -> None:
        self.board, self.job, self.at = board, job, at
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self._move()

    def _loop(self) -> None:
        while not self.stop.wait(0.5):
            self._move()

    def _move(self) -> None:
        for row in ray.get(self.board.drain.remote()):
            figures = {f"{self.job.name}_{k}": v for k, v in row.items() if k != "epoch"}
            self.at.tracker.metrics(figures, step=int(row["epoch"]))
            shown = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in ("epoch", "seconds"))
            self.at.voice.progress(self.job.name, int(row["epoch"]), self.job.config.epochs, shown)
