"""Training one learner epoch by epoch: the same code under Ray Train, in a test and in a notebook.

    fit = Fit(job, CachedFeed(job, job.train, job.valid))
    while not fit.finished:
        print(fit.epoch())

What an epoch gives are its figures; ``fit.best`` holds the best epoch's weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cotray.errors import MemoryShortageError, NonFiniteLossError, TrainingError
from cotray.fitting.average import WeightAverage
from cotray.fitting.best import best_epoch
from cotray.fitting.job import CachedFeed, Feed, Job, Pieces, within_limit
from cotray.fitting.memory import cut, out_of_memory, size
from cotray.learning import Batch, Scalar, Scalars, Weights, Wrap, derive_seed, mixed_precision, on_cpu

Row = dict[str, float]
READ_EVERY = 16
"""Steps whose figures are read together on a GPU: each reading waits for it, and it stands idle after."""


def _silent(row: Row) -> None:
    """Nobody listens to steps."""


def _plain(net: nn.Module) -> nn.Module:
    return net


def _random_states(device: torch.device) -> list[Tensor]:
    """Of the generators that a step draws from: the CPU's and the GPU's, if it is on one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _draw_again(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


@dataclass(frozen=True)
class Place:
    """Where one rank trains."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrap: Wrap = _plain
    """Makes DDP of a network."""
    rank: int = 0
    world: int = 1
    agree: Callable[[Row], Row] = dict
    """Rank 0's figures for every rank: best epoch and early stop must be the same everywhere."""
    tell: Callable[[Row], None] = _silent
    """Hears of every step: step (and of how many), loss, lr and whatever the learner tells."""
    cuts: int = 1
    """Into how many parts memory made an earlier attempt cut each piece of a batch."""


class _Watch:
    """Figures of an epoch's steps: those still on the device, and the sums of those read."""

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0
        self.waiting: list[tuple[int, float, Scalars]] = []
        self.sums: Row = {}

    def read(self) -> Iterator[tuple[int, float, Row]]:
        """(step, rate, figures) of each step that waits."""
        waiting, self.waiting = self.waiting, []
        for step, rate, scalars in waiting:
            row = {key: float(value) for key, value in scalars.items()}
            self.steps += 1
            for key, value in row.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
            yield step, rate, row


class Fit:
    """One rank's training; ``state_dict`` after an epoch is enough to go on exactly."""

    def __init__(self, job: Job, feed: Feed, place: Place | None = None) -> None:
        self.job, self.feed, self.place = job, feed, place or Place()
        self.learner = job.build()
        self.learner.prepare(self.place.device, self.place.wrap, job.config.epochs * feed.steps, job.config)
        ema = job.config.ema
        self.average = WeightAverage(self.learner, ema) if ema else None
        self.history: list[Row] = []
        self.best: dict[str, Any] | None = None
        self.stale = 0
        self.cuts = self.place.cuts
        self.picture: NDArray[np.uint8] | None = None
        """Of the epoch just over, where one was due."""

    @property
    def finished(self) -> bool:
        """All epochs done, or no better one for `train.patience` of them."""
        config = self.job.config
        return bool(config.patience and self.stale >= config.patience) or len(self.history) >= config.epochs

    def epoch(self) -> Row:
        """One pass over the training split, and validation; figures of it.

        Raises NonFiniteLossError, MemoryShortageError.
        """
        started = time.perf_counter()
        number = len(self.history)
        torch.manual_seed(derive_seed(self.job.seed, number, self.place.rank))
        self.learner.set_train(True)
        row = self._steps(number)
        trained = time.perf_counter() - started
        with self.average.applied() if self.average else contextlib.nullcontext():
            row |= self._validate()
            clock = {"epoch": number + 1, "step": self.learner.step, "seconds": time.perf_counter() - started}
            row |= {key: float(value) for key, value in clock.items()}
            row = self.place.agree(row | {"train_seconds": trained})
            self._require_finite(row["loss"], number, "")
            self._keep_best(row)
            self.picture = self.learner.preview() if self._shows() else None
        return row

    def _shows(self) -> bool:
        """Whether the epoch just over is one to be pictured; rank 0 does it for all."""
        every, done = self.job.preview_every, len(self.history)
        due = done == 1 or self.finished or (every and done % every == 0)
        return bool(every and due and self.place.rank == 0)

    def _steps(self, number: int) -> Row:
        watch = _Watch(1 if self.place.device.type == "cpu" else READ_EVERY)
        for pieces in self.feed.train(number):
            self.learner.schedule(self.job.config.warmup)
            scalars = self._step([self._there(piece) for piece in pieces])
            if self.average:
                self.average.update(self.learner.step)
            watch.waiting.append((self.learner.step, self.learner.rate, scalars))
            if len(watch.waiting) >= watch.every:
                self._read(watch, number)
        self._read(watch, number)
        return {key: value / watch.steps for key, value in watch.sums.items()}

    def _there(self, piece: Batch) -> Batch:
        """The piece on the device. A GPU copies from pinned memory while it computes the step before."""
        device = self.place.device
        if device.type != "cuda":
            return piece
        return {key: value.pin_memory().to(device, non_blocking=True) for key, value in piece.items()}

    def _read(self, watch: _Watch, number: int) -> None:
        """Look at the figures of the steps since the last time: waits until they are computed."""
        for step, rate, row in watch.read():
            if self.place.world == 1:  # with more workers the others still wait for this one's gradients
                self._require_finite(row["loss"], number, f", step {watch.steps} of {self.feed.steps}")
            clock = {"step": float(step), "of": float(self.learner.total_steps)}
            self.place.tell({**clock, **row, "lr": rate})

    def _require_finite(self, loss: float, epoch: int, step: str) -> None:
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss of {self.job.name} became {loss} in epoch {epoch + 1}{step}.",
                where=self.job.name,
                cure="Lower its learning rate (`train.lr`), or lengthen `train.warmup`.",
            )

    # ---- a step, in as many pieces as memory asks for --------------------------------------------------

    def _step(self, pieces: Pieces) -> Scalars:
        """One optimizer step over a batch; the mean of its scalars over all items."""
        while True:
            parts = cut(pieces, self.cuts)
            random = _random_states(self.place.device)
            try:
                return self._over(parts)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise self._explained(error) from error
                self._halve(parts, str(error))
            _draw_again(random, self.place.device)
            self.learner.forget_pieces()

    def _explained(self, error: BaseException) -> BaseException:
        """The error itself; or, where torch.compile is at fault, what to do without it."""
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return error
        told = " ".join(str(error).split())[:300]
        return TrainingError(
            f"torch.compile cannot compile {self.job.name}: {told}",
            where=self.job.name,
            cure="Set its train.compile=false. Or install a C++ compiler; on a GPU, try another torch.",
        )

    def _over(self, parts: list[Batch]) -> Scalars:
        mixed = mixed_precision(self.job.config.precision, self.place.device, self.learner.cpu_bf16)
        whole = sum(map(size, parts))
        row: dict[str, Scalar] = {}
        for number, part in enumerate(parts):
            share = size(part) / whole
            self.learner.begin_piece(share, last=number == len(parts) - 1)
            with torch.autocast(self.place.device.type, torch.bfloat16, enabled=mixed):
                scalars = self.learner.train_step(part)
            for key, value in scalars.items():
                row[key] = row.get(key, 0.0) + share * value
        return row

    def _halve(self, parts: list[Batch], reason: str) -> None:
        """Twice as many parts from now on. Raises MemoryShortageError where that cannot be, or not here:
        ranks must exchange gradients equally often, so with several all of them begin again with ``cuts``."""
        largest = max(map(size, parts))
        if largest < 4 or self.place.world > 1:
            raise MemoryShortageError(
                f"Memory ran out in training {self.job.name} on {largest} items at once: {reason[:200]}",
                where=self.job.name,
                cure="Lower its batch_size, image_size or width, or give it a larger machine.",
            )
        self.cuts *= 2
        if self.place.device.type == "cuda":
            torch.cuda.empty_cache()

    # ---- validation and what is kept -------------------------------------------------------------------

    def _validate(self) -> Row:
        """Every rank validates the whole split; rank 0's figures count (batch-norm statistics differ)."""
        self.learner.set_train(False)
        outputs: list[Mapping[str, Tensor]] = [
            self.learner.predict_step(batch) for batch in self.feed.valid()
        ]
        if not outputs:
            return {}
        return self.learner.score({key: torch.cat([o[key] for o in outputs]) for key in outputs[0]})

    def _keep_best(self, row: Row) -> None:
        """Append to the history; keep the weights of the best epoch by the learner's monitor."""
        self.history.append(row)
        smooth, learner = self.job.config.smooth, self.learner
        best = best_epoch(self.history, smooth, learner.monitor, learner.monitor_mode)
        self.stale = len(self.history) - 1 - best
        if not self.stale:
            self.best = {"epoch": best + 1, "weights": learner.snapshot()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on: the newest weights and the best ones, optimizers, history."""
        average = self.average.state_dict() if self.average else None
        best = self.best and {**self.best, "weights": on_cpu(self.best["weights"])}
        kept = {"history": self.history, "best": best, "stale": self.stale, "cuts": self.cuts}
        return kept | {"learner": self.learner.state_dict(), "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`. Raises WeightsError where it is another architecture's."""
        self.learner.load_state_dict(state["learner"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.history, self.best, self.stale = state["history"], state["best"], state["stale"]
        self.cuts = max(self.cuts, int(state["cuts"]))


def fit_here(
    job: Job, tell: Callable[[Row], None] = _silent, device: str = "cpu"
) -> tuple[Weights, list[Row]]:
    """(best weights on the CPU, history) of a job trained in this process."""
    job = within_limit(job)
    fit = Fit(job, CachedFeed(job, job.train, job.valid), Place(device=torch.device(device)))
    while not fit.finished:
        tell(fit.epoch())
    assert fit.best is not None  # at least one epoch
    best = on_cpu(fit.best["weights"])
    return (job.finish(best) if job.finish else best), fit.history
