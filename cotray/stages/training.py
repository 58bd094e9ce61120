"""One training harness for every Learner, on Ray Train: data in, best weights and history out.

Arrays are put into Ray's object store once and read by every worker of a node without a copy; the workers run
:mod:`cotray.stages.train_loop`; what comes of it is kept by :mod:`cotray.stages.weights`.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from cotray.config import ComputeConfig
from cotray.data.decode import encode_png
from cotray.errors import CotrayError, StorageError, TrainingError
from cotray.fitting.job import Job, within_limit
from cotray.fitting.loop import Row
from cotray.learning import Weights
from cotray.stages.base import StageRun
from cotray.stages.board import Board
from cotray.stages.cluster import node_cpus, require_room, use_gpu
from cotray.stages.stream import Stream
from cotray.stages.train_loop import Work, read_state, train_loop
from cotray.stages.weights import Fitted, load_fitted, save_fitted

__all__ = ["Fitted", "fit", "pictures_folder"]


def fit(job: Job, compute: ComputeConfig, at: StageRun, stream: Stream | None = None) -> Fitted:
    """Train ``job``, or take up where a killed run left it. ``stream``: its training split, where that is not
    in the job.

    Raises NonFiniteLossError, MemoryShortageError, TrainingError, StorageError, and InvalidValueError where
    the cluster has not what ``compute`` asks for.
    """
    done = load_fitted(at, job.name)
    if done is not None:
        at.say(f"{job.name}: already trained, using its weights")
        return done
    job = within_limit(job)
    threads = compute.cpus_per_worker or max(1, node_cpus() // compute.train_workers)
    require_room(compute, threads)
    refs = (ray.put(dict(job.train)), ray.put(dict(job.valid)))
    board = Board.options(num_cpus=0).remote()  # type: ignore[attr-defined]  # ray adds .options
    work = Work(_without_arrays(job), refs, board, at.folder / f"train-{job.name}", threads, stream)
    with _relay(board, job, at):
        state = _trained(work, compute, at)
    best: Weights = state["best"]["weights"]
    fitted = Fitted(weights=job.finish(best) if job.finish else best, history=state["history"])
    save_fitted(at, job.name, fitted)
    return fitted


def pictures_folder(name: str) -> str:
    """Where a model's pictures of its epochs are, in the stage's folder and among its artifacts."""
    return f"{name}-epochs"


def _trained(work: Work, compute: ComputeConfig, at: StageRun) -> dict[str, Any]:
    """The state at the end of training. Raises what went wrong."""
    try:
        result = _trainer(work, compute, at).fit()
    except Exception as error:  # Ray wraps whatever happened in its own, long, errors
        raise _training_error(work.job, error) from error
    answer = result.return_value or {}
    if "failure" in answer:
        raise answer["failure"]
    if result.checkpoint is None or answer["kept"] < answer["epochs"]:
        raise StorageError(
            f"{work.job.name} was trained, but its last checkpoint could not be written.",
            where=work.folder.uri,
            cure="Free space there; the same command goes on from the checkpoint before.",
        )
    return read_state(result.checkpoint)


def _trainer(work: Work, compute: ComputeConfig, at: StageRun) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, path = at.folder.arrow()
    gpu = use_gpu(compute)
    return TorchTrainer(
        train_loop,
        train_loop_config={"work": work},
        datasets=work.stream.datasets(work.board) if work.stream else None,
        dataset_config=work.stream.options(compute.train_workers) if work.stream else None,
        scaling_config=ScalingConfig(
            num_workers=compute.train_workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": work.threads} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(
            name=f"train-{work.job.name}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def _without_arrays(job: Job) -> Job:
    return dataclasses.replace(job, train={}, valid={}, finish=None)


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


CLOCKS = ("step", "of", "epoch")
"""What counts, and is no figure."""


def _shown(row: Row) -> str:
    hidden = (*CLOCKS, "seconds", "train_seconds", "lr")
    return "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key not in hidden)


class _relay:
    """While entered, a thread moves posts from the board to the tracker and the voice."""

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
        for kind, post in ray.get(self.board.drain.remote()):
            if kind == "say":
                self.at.say(post)
            elif kind == "step":
                self._log(post, "step", "step_")
                self.at.voice.progress(
                    f"{self.job.name} steps", int(post["step"]), int(post["of"]), _shown(post)
                )
            elif kind == "picture":
                self._keep(*post)
            else:
                self._log(post, "epoch", "")
                self.at.voice.progress(
                    self.job.name, int(post["epoch"]), self.job.config.epochs, _shown(post)
                )

    def _keep(self, epoch: int, picture: NDArray[np.uint8]) -> None:
        name, png = f"{pictures_folder(self.job.name)}/epoch-{epoch:05d}.png", encode_png(picture)
        self.at.folder.write_bytes(name, png)
        self.at.tracker.artifact(name, png)

    def _log(self, row: Row, axis: str, prefix: str) -> None:
        """Figures of a step stand apart from those of an epoch: their axes differ."""
        figures = {f"{self.job.name}_{prefix}{k}": v for k, v in row.items() if k not in CLOCKS}
        self.at.tracker.metrics(figures, step=int(row[axis]))
