"""A learner of cells that writes down which ones it sees. B cells, S side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from toy import ToyLearner

from cotray.learning import Batch, Scalars


def numbers(image_BSS3: torch.Tensor) -> list[int]:
    """What `cell_runs.drawn` put into the first pixel."""
    pixel = image_BSS3[:, 0, 0].long()
    return [int(n) for n in pixel[:, 0] * 256 + pixel[:, 1]]


class SeeingLearner(ToyLearner):
    """Colours of a cell in a small network; a line for every step in a file of the process' own."""

    def __init__(self, seed: int, log: str, **toy: Any) -> None:
        super().__init__(seed, **toy)
        self.log = Path(log)

    def _seen(self, batch: Batch) -> Batch:
        mean = batch["image"].float().mean((1, 2)) / 255
        return {"x": torch.cat([mean, torch.ones(len(mean), 1)], 1), "y": batch["label"]}

    def train_step(self, batch: Batch) -> Scalars:
        found = super().train_step(self._seen(batch))  # which may kill the process
        labels = batch["label"].tolist()
        row = {"step": self.step, "numbers": numbers(batch["image"]), "labels": labels}
        with (self.log / str(os.getpid())).open("a") as file:
            file.write(json.dumps(row) + "\n")
        return found

    def predict_step(self, batch: Batch) -> dict[str, torch.Tensor]:
        return super().predict_step(self._seen(batch))
