"""A tiny learner that the harness' tests train: a linear probe on made-up points."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cotray.learning import Batch, Learner


class ToyLearner(Learner):
    """Logistic regression with dropout, so that random state matters; may kill itself once, lose its numbers
    from a step on, or need more memory than there is for more than ``most`` items."""

    def __init__(
        self, seed: int, die_at_step: int = 0, marker: str = "", poison: int = 0, most: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.nets = {"net": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))}
        self.die_at_step, self.marker, self.poison, self.most = die_at_step, marker, poison, most

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self.nets["net"].parameters(), lr=0.05)}

    def _loss(self, batch: Batch) -> Tensor:
        if self.most and len(batch["x"]) > self.most:
            torch.empty(2**62, dtype=torch.uint8)  # more than any machine has: the allocator refuses
        logit = self.nets["net"](batch["x"])[:, 0]
        return nn.functional.binary_cross_entropy_with_logits(logit, batch["y"].float())

    def train_step(self, batch: Batch) -> dict[str, float]:
        if self.die_at_step and self.step == self.die_at_step and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        loss = self._loss(batch)
        self.minimise("adam", loss, 1e9)
        return {"loss": float("nan") if self.poison and self.step >= self.poison else float(loss.detach())}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        return {"logit": self.nets["net"](batch["x"])[:, 0], "y": batch["y"]}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        loss = nn.functional.binary_cross_entropy_with_logits(outputs["logit"], outputs["y"].float())
        return {"val_loss": float(loss)}


class FillingLearner(ToyLearner):
    """Fills a small disk from one step on, but for a page, and frees it at another."""

    def __init__(self, seed: int, disk: str, full: tuple[int, int]) -> None:
        super().__init__(seed)
        self.filler, self.full = Path(disk) / "filler", full

    def train_step(self, batch: Batch) -> dict[str, float]:
        if self.step == self.full[0]:
            room = shutil.disk_usage(self.filler.parent).free
            self.filler.write_bytes(bytes(room - 4096))
        if self.step == self.full[1]:
            self.filler.unlink()
        return super().train_step(batch)


class PlainLearner(ToyLearner):
    """Without dropout, and stepping by the shared ``minimise``; says in which type it computes."""

    def __init__(self, seed: int, **toy: int) -> None:
        super().__init__(seed, **toy)
        torch.manual_seed(seed)
        self.nets = {"net": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))}

    def train_step(self, batch: Batch) -> dict[str, float]:
        half = self.nets["net"](batch["x"]).dtype is torch.bfloat16
        loss = self._loss(batch)
        self.minimise("adam", loss, 1.0)
        return {"loss": float(loss.detach()), "half": float(half), "items": float(len(batch["x"]))}


def toy_arrays(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] + x[:, 1] > 0).astype(np.int64)}
