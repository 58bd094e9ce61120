"""What each Ray Train worker runs: epochs over batches, validation, checkpoints, exact resume.

Order of items, dropout and augmentation depend on (seed, epoch, rank) alone, so a continued run repeats what
an unbroken one would have done.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cotray.config import TrainConfig
from cotray.learning import Learner, derive_seed, mixed_precision
from cotray.stages.weights import Weights

Arrays = Mapping[str, Any]
"""Arrays of items by name; or what gives some of an array's rows when it is asked (StoredRows)."""
Pieces = Sequence[NDArray[np.int64]]
"""Indices of a batch's items, as many pieces as `train.accumulate` makes of it."""
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
    finish: Callable[[Weights], Weights] | None = None
    """Makes what is kept of the best weights, where the learner trains only a part of its networks."""


def train_loop(spec: dict[str, Any]) -> dict[str, Any]:
    """Train to the end, or from the newest checkpoint on; ``failure`` in the answer says that it met NaN."""
    import ray.train
    import ray.train.torch

    torch.set_num_threads(spec["threads"])
    job: Job = spec["job"]
    train, valid = ray.get(list(spec["refs"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    learner = job.build()
    total = job.config.epochs * len(list(_batches(length(train), job, 0, 0, world)))
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
    state = read_state(checkpoint)
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
    for pieces in _batches(length(train), job, epoch, rank, world):
        learner.schedule()
        for key, value in _step(learner, job, train, pieces).items():
            sums[key] = sums.get(key, 0.0) + value
        steps += 1
        if world == 1 and not math.isfinite(sums["loss"]):
            break  # with more workers the others still wait for this one's gradients
    row = {key: value / steps for key, value in sums.items()}
    row |= _validate(learner, valid, job.config.batch_size)
    return row | {"epoch": float(epoch + 1), "seconds": time.perf_counter() - started}


def _step(learner: Learner, job: Job, train: Arrays, pieces: Pieces) -> dict[str, float]:
    """One optimizer step over a batch in pieces; the mean of its scalars over all items."""
    mixed = mixed_precision(job.config.precision, learner.device)
    row: dict[str, float] = {}
    for number, piece in enumerate(pieces):
        share = len(piece) / sum(map(len, pieces))
        learner.begin_piece(share, last=number == len(pieces) - 1)
        with torch.autocast(learner.device.type, torch.bfloat16, enabled=mixed):
            scalars = learner.train_step(_batch(train, piece))
        for key, value in scalars.items():
            row[key] = row.get(key, 0.0) + share * value
    return row


def _agree(row: dict[str, float], world: int) -> dict[str, float]:
    """Rank 0's figures on every rank: best epoch and early stop must be the same everywhere."""
    if world == 1:
        return row
    from ray.train.collective import broadcast_from_rank_zero

    agreed: dict[str, float] = broadcast_from_rank_zero(row)
    return agreed


def _validate(learner: Learner, valid: Arrays, batch_size: int) -> dict[str, float]:
    """Every rank validates the whole split; rank 0's figures count (batch-norm statistics differ by rank)."""
    if not length(valid):
        return {}
    learner.set_train(False)
    outputs: list[Mapping[str, Tensor]] = []
    for start in range(0, length(valid), batch_size):
        outputs.append(
            learner.predict_step(_batch(valid, np.arange(start, min(start + batch_size, length(valid)))))
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


def _batches(n: int, job: Job, epoch: int, rank: int, world: int) -> Iterator[Pieces]:
    """This rank's share of each global batch; a last batch too small to norm is left out.

    A batch comes in at most ``accumulate`` pieces of ``batch_size`` items over all ranks, as many for every
    rank: each ends with an exchange of gradients.
    """
    order = np.random.default_rng(derive_seed(job.seed, epoch, 7)).permutation(n)
    batch, most = job.config.batch_size, job.config.accumulate
    size = max(batch * most, 2 * world)
    for start in range(0, n, size):
        whole = order[start : start + size]
        if start and len(whole) < 2 * world:
            return
        count = max(1, min(most, math.ceil(len(whole) / batch), len(whole) // (2 * world)))
        yield [piece[rank::world] for piece in np.array_split(whole, count)]


def _batch(arrays: Arrays, index: NDArray[np.int64]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(values[index]) for key, values in arrays.items()}


def length(arrays: Arrays) -> int:
    """Items in a split; 0 where there is none."""
    return len(next(iter(arrays.values()))) if arrays else 0


def read_state(checkpoint: Any) -> dict[str, Any]:
    """What :func:`train_loop` saved; tensors and plain values, nothing else is unpickled."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    return state
