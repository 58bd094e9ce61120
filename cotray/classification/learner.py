"""Training HDLC on selected features, the backbone frozen. B cells, S selected features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cotray.classification.hdlc import HDLC
from cotray.config import HdlcConfig
from cotray.learning import EVEN, Batch, Learner, Scalars, weighted_bce, weighted_scores


class HdlcLearner(Learner):
    """Batches: feature (B, S) float32, label (B,) int64 of 0 (normal) and 1 (malignant)."""

    def __init__(
        self, cfg: HdlcConfig, in_features: int, seed: int, class_weight: tuple[float, float]
    ) -> None:
        super().__init__()
        self.cfg, self.class_weight = cfg, class_weight
        self.train_weight = class_weight if cfg.train.classes == "weight" else EVEN
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = {"hdlc": HDLC(cfg, in_features)}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW over everything."""
        train = self.cfg.train
        return {
            "hdlc": torch.optim.AdamW(
                self.nets["hdlc"].parameters(), lr=train.lr, weight_decay=train.weight_decay
            )
        }

    def train_step(self, batch: Batch) -> Scalars:
        """One step; scalars loss, accuracy."""
        feature, label = batch["feature"].to(self.device), batch["label"].to(self.device)
        logit = self.nets["hdlc"](feature)
        loss = weighted_bce(logit, label, self.train_weight).mean()
        self.minimise("hdlc", loss, self.cfg.train.grad_clip)
        hit = ((logit.detach() > 0) == (label > 0)).float().mean()
        return {"loss": loss.detach(), "accuracy": hit}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per cell: logit, label."""
        logit = self.nets["hdlc"](batch["feature"].to(self.device))
        return {"logit": logit.float().cpu(), "label": batch["label"]}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_loss, val_balanced_accuracy."""
        return weighted_scores(outputs["logit"], outputs["label"], self.class_weight)
