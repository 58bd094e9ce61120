"""A classifier that tells which device it is on, and may kill its process once. In a module of its own, which
Ray's workers can import."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import numpy as np

from cotray.classification.learner import HdlcLearner
from cotray.config import load_config
from cotray.fitting.job import Job
from cotray.learning import Batch, Scalars

HDLC = load_config("tiny", overrides=["hdlc.filters=8", "hdlc.hidden=[16,8,8,4,4]"]).hdlc


class DyingLearner(HdlcLearner):
    def __init__(self, die_at_step: int, marker: str) -> None:
        super().__init__(HDLC, 20, 3, (1.0, 1.0))
        self.die_at_step, self.marker = die_at_step, Path(marker)

    def train_step(self, batch: Batch) -> Scalars:
        if self.die_at_step and self.step == self.die_at_step and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        on_gpu = float(next(self.nets["hdlc"].parameters()).device.type == "cuda")
        return {**super().train_step(batch), "on_gpu": on_gpu}


def dying_job(step: int, marker: str) -> Job:
    """Four epochs of three steps; the process dies at ``step``, once, if that is not 0."""
    rng = np.random.default_rng(0)
    arrays = {"feature": rng.normal(size=(192, 20)).astype(np.float32), "label": np.arange(192) % 2}
    train = HDLC.train.model_copy(update={"epochs": 4, "precision": "fp32"})
    return Job("dying", functools.partial(DyingLearner, step, marker), arrays, {}, train, 5)
