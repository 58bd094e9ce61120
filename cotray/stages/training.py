"""One training harness for every Learner, on Ray Train: data, DDP, checkpoints, exact resume, progress.

Arrays are put into Ray's object store once and read by every worker of a node without a copy. Order of
items, dropout and augmentation depend on (seed, epoch, rank) alone, so a continued run repeats what an
unbroken one would have done.
"""

from __future__ import annotations

import dataclasses
import io
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from cotray.config import ComputeConfig, TrainConfig
from cotray.errors import CotrayError, NonFiniteLossError, TrainingError, WeightsError
from cotray.learning import Learner, derive_seed
from cotray.stages.base import StageRun
from cotray.stages.cluster import node_cpus, use_gpu

Arrays = Mapping[str, NDArray[Any]]
Weights = dict[str, dict[str, Tensor]]
STATE = "state.pt"


@dataclass(frozen=True)
class Job:
    """A model to train: how to build its learner, on what, and how long."""

    name: str
    build: Callable[[], Learner]
    """Picklable and deterministic: every worker and every resumed run calls it."""
    train: Arrays
    """Arrays of equal first length; a batch is the same slice of each."""
    valid: Arrays
    """Likewise; may be empty (length 0): then the training loss decides which epoch is best."""
    config: TrainConfig
    seed: int


@dataclass(frozen=True)
class Fitted:
    """A trained model."""

    weights: Weights
    """Best epoch's weights by network."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One dict per epoch."""


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
    state = _read_state(result.checkpoint)
    fitted = Fitted(weights=state["best"]["weights"], history=state["history"])
    save_fitted(at, job.name, fitted)
    return fitted


def within_limit(job: Job) -> Job:
    """The job with as many epochs as ``max_steps`` leaves, at least one."""
    config = job.config
    if config.max_steps is None:
        return job
    steps = max(1, math.ceil(_length(job.train) / config.batch_size))
    epochs = max(1, min(config.epochs, round(config.max_steps / steps)))
    return dataclasses.replace(job, config=config.model_copy(update={"epochs": epochs}))


def _run_trainer(job: Job, refs: tuple[Any, Any], board: Any, compute: ComputeConfig, at: StageRun) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, path = at.folder.arrow()
    threads = compute.cpus_per_worker or max(1, node_cpus() // compute.train_workers)
    spec = {"job": _without_arrays(job), "refs": refs, "board": board, "threads": threads}
    trainer = TorchTrainer(
        _train_loop,
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


# ---- in the worker ---------------------------------------------------------------------------------


def _train_loop(spec: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    torch.set_num_threads(spec["threads"])
    job: Job = spec["job"]
    train, valid = ray.get(list(spec["refs"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    learner = job.build()
    total = job.config.epochs * len(list(_batches(_length(train), job, 0, 0, world)))
    learner.prepare(ray.train.torch.get_device(), _wrap, total)
    state = _restore(learner)
    while not _finished(state, job.config):
        epoch = len(state["history"])
        row = _agree(_epoch(learner, job, train, valid, epoch, rank, world), world)
        if not math.isfinite(row["loss"]):
            return {"failure": f"The loss of {job.name} became {row['loss']} in epoch {epoch + 1}."}
        _keep_best(state, learner, row)
        if rank == 0:
            spec["board"].push.remote(row)
        if _finished(state, job.config) or (epoch + 1) % job.config.checkpoint_every == 0:
            _checkpoint(state, learner, row, rank)
    return {"epochs": len(state["history"])}


def _wrap(net: nn.Module) -> nn.Module:
    import ray.train.torch

    trainable = any(p.requires_grad for p in net.parameters())
    return ray.train.torch.prepare_model(net) if trainable else net


def _restore(learner: Learner) -> dict[str, Any]:
    """The newest checkpoint's state, loaded into the learner; or a fresh state."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return {"history": [], "best": None, "stale": 0}
    state = _read_state(checkpoint)
    learner.load_state_dict(state.pop("learner"))
    return state


def _finished(state: Mapping[str, Any], config: TrainConfig) -> bool:
    stalled = config.patience and state["stale"] >= config.patience
    return bool(stalled) or len(state["history"]) >= config.epochs


def _epoch(
    learner: Learner, job: Job, train: Arrays, valid: Arrays, epoch: int, rank: int, world: int
) -> dict[str, float]:
    started = time.perf_counter()
    torch.manual_seed(derive_seed(job.seed, epoch, rank))
    learner.set_train(True)
    sums: dict[str, float] = {}
    steps = 0
    for index in _batches(_length(train), job, epoch, rank, world):
        learner.schedule()
        for key, value in learner.train_step(_batch(train, index)).items():
            sums[key] = sums.get(key, 0.0) + value
        steps += 1
        if world == 1 and not math.isfinite(sums["loss"]):
            break  # with more workers the others still wait for this one's gradients
    row = {key: value / steps for key, value in sums.items()}
    row |= _validate(learner, valid, job.config.batch_size)
    return row | {"epoch": float(epoch + 1), "seconds": time.perf_counter() - started}


def _agree(row: dict[str, float], world: int) -> dict[str, float]:
    """Rank 0's figures on every rank: best epoch and early stop must be the same everywhere."""
    if world == 1:
        return row
    from ray.train.collective import broadcast_from_rank_zero

    agreed: dict[str, float] = broadcast_from_rank_zero(row)
    return agreed


def _validate(learner: Learner, valid: Arrays, batch_size: int) -> dict[str, float]:
    """Every rank validates the whole split; rank 0's figures count (batch-norm statistics differ by rank)."""
    if not _length(valid):
        return {}
    learner.set_train(False)
    outputs: list[Mapping[str, Tensor]] = []
    for start in range(0, _length(valid), batch_size):
        outputs.append(
            learner.predict_step(_batch(valid, np.arange(start, min(start + batch_size, _length(valid)))))
        )
    return learner.score({key: torch.cat([o[key] for o in outputs]) for key in outputs[0]})


def _keep_best(state: dict[str, Any], learner: Learner, row: dict[str, float]) -> None:
    """Append to the history; keep the weights of the best epoch by the learner's monitor."""
    state["history"].append(row)
    score = row.get(learner.monitor, row["loss"])
    if learner.monitor in row and learner.monitor_mode == "max":
        score = -score
    best = state["best"]
    if best is None or score < best["score"]:
        state["best"] = {"score": score, "weights": learner.weights()}
        state["stale"] = 0
    else:
        state["stale"] += 1


def _checkpoint(state: dict[str, Any], learner: Learner, row: dict[str, float], rank: int) -> None:
    import ray.train

    if rank != 0:
        ray.train.report(row)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state | {"learner": learner.state_dict()}, Path(folder) / STATE)
        ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _batches(n: int, job: Job, epoch: int, rank: int, world: int) -> Iterator[NDArray[np.int64]]:
    """Index arrays of this rank's share of each global batch; a last batch too small to norm is left out."""
    order = np.random.default_rng(derive_seed(job.seed, epoch, 7)).permutation(n)
    size = max(job.config.batch_size, 2 * world)
    for start in range(0, n, size):
        whole = order[start : start + size]
        if start and len(whole) < 2 * world:
            return
        yield whole[rank::world]


def _batch(arrays: Arrays, index: NDArray[np.int64]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(values[index]) for key, values in arrays.items()}


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values()))) if arrays else 0


def _read_state(checkpoint: Any) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    return state


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


# ---- weights on disk -------------------------------------------------------------------------------


def save_fitted(at: StageRun, name: str, fitted: Fitted) -> None:
    """``NAME.history.json`` and, last, ``NAME.safetensors``."""
    at.folder.write_json(f"{name}.history.json", fitted.history)
    flat = {f"{net}/{key}": t.contiguous() for net, ws in fitted.weights.items() for key, t in ws.items()}
    at.folder.write_bytes(f"{name}.safetensors", save_safetensors(flat))


def load_fitted(at: StageRun, name: str) -> Fitted | None:
    """What :func:`save_fitted` wrote, or None."""
    if not at.folder.exists(f"{name}.safetensors"):
        return None
    weights = parse_weights(
        at.folder.read_bytes(f"{name}.safetensors"), f"{at.folder.uri}/{name}.safetensors"
    )
    return Fitted(weights, at.folder.read_json(f"{name}.history.json"))


def parse_weights(data: bytes, where: str) -> Weights:
    """Networks' state dicts from safetensors bytes. Raises WeightsError where damaged."""
    try:
        flat = load_safetensors(data)
    except Exception as error:  # safetensors raises its own, untyped here
        raise WeightsError(f"Cannot read these weights: {error}", where=where) from error
    weights: Weights = {}
    for name, tensor in flat.items():
        net, _, key = name.partition("/")
        weights.setdefault(net, {})[key] = tensor
    return weights


def array_bytes(array: NDArray[Any]) -> bytes:
    """An array as .npy bytes (no pickle)."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def read_array(data: bytes) -> NDArray[Any]:
    """Inverse of :func:`array_bytes`."""
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def split_sizes(names: Sequence[str]) -> dict[str, int]:
    """How many of each name."""
    return {name: list(names).count(name) for name in dict.fromkeys(names)}
