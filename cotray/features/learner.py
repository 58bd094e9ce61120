"""Training the backbone end to end with its linear head. B cells, S side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cotray.config import BackboneConfig
from cotray.features.augment import Augment
from cotray.features.zoo import build_backbone, start_from
from cotray.learning import EVEN, Batch, Learner, Scalars, weighted_bce, weighted_scores


def to_input(image_BSS3: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 in -1..1."""
    return image_BSS3.permute(0, 3, 1, 2).float() / 127.5 - 1


class BackboneLearner(Learner):
    """Batches: image (B, S, S, 3) uint8, label (B,) int64 of 0 (normal) and 1 (malignant)."""

    def __init__(
        self,
        cfg: BackboneConfig,
        seed: int,
        class_weight: tuple[float, float],
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``start``: weights learned elsewhere. Raises UnknownNameError, InvalidValueError, WeightsError."""
        super().__init__()
        self.cfg, self.class_weight = cfg, class_weight
        self.train_weight = class_weight if cfg.train.classes == "weight" else EVEN
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = build_backbone(cfg)
        if start is not None:
            start_from(backbone, start)
        self.nets = {"backbone": backbone}
        self.augment = Augment(cfg.augment)

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW over everything."""
        train = self.cfg.train
        params = self.nets["backbone"].parameters()
        return {"backbone": torch.optim.AdamW(params, lr=train.lr, weight_decay=train.weight_decay)}

    def train_step(self, batch: Batch) -> Scalars:
        """One step; scalars loss, accuracy."""
        image, label = batch["image"].to(self.device), batch["label"].to(self.device)
        x = to_input(image)
        logit = self.nets["backbone"](self.augment(x))
        loss = weighted_bce(logit, label, self.train_weight, self.cfg.label_smoothing).mean()
        self.minimise("backbone", loss, self.cfg.train.grad_clip)
        hit = ((logit.detach() > 0) == (label > 0)).float().mean()
        return {"loss": loss.detach(), "accuracy": hit}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per cell: logit, label."""
        logit = self.nets["backbone"](to_input(batch["image"].to(self.device)))
        return {"logit": logit.float().cpu(), "label": batch["label"]}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_loss (both classes with the same say), val_balanced_accuracy."""
        return weighted_scores(outputs["logit"], outputs["label"], self.class_weight)
