"""What each Ray Train worker runs: a Fit, its checkpoints, and figures for the driver's board.

A checkpoint holds the newest weights and the best ones. A continued run repeats what an unbroken one would
have done: order of items, dropout and augmentation depend on (seed, epoch, rank) alone.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cotray.errors import CotrayError, MemoryShortageError, WeightsError
from cotray.fitting.job import CachedFeed, Feed, Job
from cotray.fitting.loop import Fit, Place, Row
from cotray.stages.stream import Stream, StreamFeed
from cotray.storage import Folder

STATE = "state.pt"
STEP_SECONDS = 1.0
"""Steps are told to the driver at most this often."""


@dataclass(frozen=True)
class Work:
    """What the driver gives every worker."""

    job: Job
    """Without its arrays."""
    refs: tuple[Any, Any]
    """Those, in Ray's object store: training and validation."""
    board: Any
    """The actor that rank 0 posts to."""
    folder: Folder
    """Of Ray Train's run: checkpoints go there."""
    threads: int
    stream: Stream | None = None
    """Where the training split is streamed."""


def train_loop(config: dict[str, Work]) -> dict[str, Any]:
    """Train to the end, or from the newest checkpoint on.

    ``failure`` in the answer is an error that another attempt would only meet again.
    """
    import ray.train
    import ray.train.torch

    work = config["work"]
    torch.set_num_threads(work.threads)
    train, valid = ray.get(list(work.refs))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    teller = _Teller(work.board if rank == 0 else None)
    place = Place(
        device=ray.train.torch.get_device(),
        wrap=_wrap,
        rank=rank,
        world=world,
        agree=_agree if world > 1 else dict,
        tell=teller.step,
        cuts=ray.get(work.board.cuts.remote()),
    )
    feed: Feed = CachedFeed(work.job, train, valid, rank, world)
    if work.stream is not None:
        feed = StreamFeed(work.job, work.stream, valid, work.board, rank, world)
    fit = Fit(work.job, feed, place)
    try:
        return _epochs(fit, work, teller)
    except MemoryShortageError as error:
        if world == 1:
            return {"failure": error}
        ray.get(work.board.cut.remote(2 * fit.cuts))  # the next attempt begins with smaller pieces
        raise
    except CotrayError as error:
        return {"failure": error}


def _epochs(fit: Fit, work: Work, teller: _Teller) -> dict[str, Any]:
    kept = _restore(fit)
    while not fit.finished:
        row = fit.epoch()
        teller.epoch(row)
        teller.picture(row, fit.picture)
        if fit.finished or len(fit.history) % work.job.config.checkpoint_every == 0:
            kept = _checkpoint(fit, row, work, teller) or kept
    return {"epochs": len(fit.history), "kept": kept}


def _wrap(net: nn.Module) -> nn.Module:
    import ray.train.torch

    trainable = any(p.requires_grad for p in net.parameters())
    return ray.train.torch.prepare_model(net) if trainable else net


def _agree(row: Row) -> Row:
    from ray.train.collective import broadcast_from_rank_zero

    agreed: Row = broadcast_from_rank_zero(row)
    return agreed


class _Teller:
    """Rank 0 posts to the board; the others have none."""

    def __init__(self, board: Any) -> None:
        self.board, self.next = board, 0.0

    def step(self, row: Row) -> None:
        """Now and then: waiting for nothing, so that a slow driver stops no step."""
        if self.board is not None and time.monotonic() >= self.next:
            self.next = time.monotonic() + STEP_SECONDS
            self.board.push.remote("step", row)

    def epoch(self, row: Row) -> None:
        """Every epoch."""
        if self.board is not None:
            self.board.push.remote("epoch", row)

    def picture(self, row: Row, picture: NDArray[np.uint8] | None) -> None:
        """What the learner shows after the epoch of ``row``."""
        if self.board is not None and picture is not None:
            self.board.push.remote("picture", (int(row["epoch"]), picture))

    def say(self, text: str) -> None:
        """Something people should know."""
        if self.board is not None:
            self.board.push.remote("say", text)


# ---- checkpoints -------------------------------------------------------------------------------------


def _restore(fit: Fit) -> int:
    """Go on from the newest checkpoint, if there is one; its number of epochs."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        fit.load_state_dict(read_state(checkpoint))
    return len(fit.history)


def _checkpoint(fit: Fit, row: Row, work: Work, teller: _Teller) -> int | None:
    """The number of epochs kept; None where the disk took none: the checkpoint before stays the newest.

    We write, and Ray is told of what lies there: an upload of Ray's that fails would fail the worker.
    """
    import ray.train

    checkpoint, number = None, len(fit.history)
    if fit.place.rank == 0:
        folder = work.folder / f"checkpoint_{number:06d}"
        try:
            sink = io.BytesIO()
            torch.save(fit.state_dict(), sink)
            folder.write_bytes(STATE, sink.getvalue())
            filesystem, path = folder.arrow()
            checkpoint = ray.train.Checkpoint(path, filesystem)
        except (OSError, CotrayError) as error:
            teller.say(f"WARNING: {work.job.name}: no checkpoint of epoch {number} ({error}); goes on")
    mode = ray.train.CheckpointUploadMode.NO_UPLOAD
    ray.train.report(row, checkpoint=checkpoint, checkpoint_upload_mode=mode)
    return number if checkpoint is not None else None


def read_state(checkpoint: Any) -> dict[str, Any]:
    """What :meth:`Fit.state_dict` gave; tensors and plain values, nothing else is unpickled.

    Raises WeightsError where the file is damaged.
    """
    path = f"{checkpoint.path}/{STATE}"
    try:
        with checkpoint.filesystem.open_input_file(path) as file:
            data = file.read()
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the unpickler met
        raise WeightsError(
            f"This checkpoint cannot be read: {str(error).splitlines()[0][:200]}",
            where=path,
            cure="Remove its folder; the same command trains again from the start of this model.",
        ) from error
    return state
