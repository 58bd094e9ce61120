"""Training LeuSAM: Dice + focal loss on masks, box prompts jittered, windows turned and re-stained.

Shapes: B windows, S side of a window, M side of the mask logits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.learning import Batch, Learner
from cotray.segmentation.leusam import build_leusam
from cotray.segmentation.losses import dice_loss, focal_loss, mask_iou
from cotray.segmentation.windows import training_windows

__all__ = ["LeuSamLearner", "training_windows"]

FOCAL_WEIGHT = 5.0
"""Focal against Dice loss (SAM's own ratio is 20; its masks are of any size, ours fill a window)."""
QUALITY_WEIGHT = 0.1
"""Weight of the predicted IoU's squared error."""


class LeuSamLearner(Learner):
    """Batches: image (B, S, S, 3) uint8, mask (B, S, S) 0/1, box (B, 4) float32."""

    monitor = "val_iou"
    monitor_mode = "max"

    def __init__(self, cfg: SegmentConfig, seed: int) -> None:
        super().__init__()
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = {"leusam": build_leusam(cfg)}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW over what is not frozen."""
        trained = [p for p in self.nets["leusam"].parameters() if p.requires_grad]
        train = self.cfg.train
        return {"leusam": torch.optim.AdamW(trained, lr=train.lr, weight_decay=train.weight_decay)}

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step; scalars loss, iou."""
        image, mask, box = (batch[key].to(self.device) for key in ("image", "mask", "box"))
        image, mask, box = turn(image, mask, box)
        image, box = restain(image), jitter(box, self.cfg.jitter)
        logits_BMM, quality_B = self.nets["leusam"](image, box)
        target = F.adaptive_avg_pool2d(mask.float()[:, None], logits_BMM.shape[-2:])[:, 0]
        iou = mask_iou(logits_BMM.detach(), target)
        loss = (dice_loss(logits_BMM, target) + FOCAL_WEIGHT * focal_loss(logits_BMM, target)).mean()
        loss = loss + QUALITY_WEIGHT * F.mse_loss(quality_B, iou)
        self.minimise("leusam", loss, self.cfg.train.grad_clip)
        return {"loss": float(loss.detach()), "iou": float(iou.mean())}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per window: iou at full size, loss."""
        image, mask, box = (batch[key].to(self.device) for key in ("image", "mask", "box"))
        logits, _ = self.nets["leusam"](image, box)
        full = F.interpolate(logits[:, None], mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        target = mask.float()
        loss = dice_loss(full, target) + FOCAL_WEIGHT * focal_loss(full, target)
        return {"iou": mask_iou(full, target).cpu(), "loss": loss.cpu()}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_iou, val_loss."""
        return {"val_iou": float(outputs["iou"].mean()), "val_loss": float(outputs["loss"].mean())}


# ---- augmentation; randomness from torch's global generator, as Learner asks ---------------------------


def turn(image: Tensor, mask: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each window mirrored or not and turned by quarters, its mask and box with it."""
    size = image.shape[1]
    turns, mirrors = torch.randint(4, (len(image),)).tolist(), torch.randint(2, (len(image),)).tolist()
    rows = zip(image, mask, box, turns, mirrors, strict=True)
    items = [_turn_one(i, m, b, quarters, bool(mirror), size) for i, m, b, quarters, mirror in rows]
    images, masks, boxes = zip(*items, strict=True)
    return torch.stack(images), torch.stack(masks), torch.stack(boxes)


def _turn_one(
    image: Tensor, mask: Tensor, box: Tensor, quarters: int, mirror: bool, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    for _ in range(quarters):  # counter-clockwise: (x, y) -> (y, size - x)
        x0, y0, x1, y1 = box.unbind()
        box = torch.stack([y0, size - x1, y1, size - x0])
    image, mask = torch.rot90(image, quarters), torch.rot90(mask, quarters)
    if mirror:
        x0, y0, x1, y1 = box.unbind()
        box = torch.stack([size - x1, y0, size - x0, y1])
        image, mask = image.flip(1), mask.flip(1)
    return image, mask, box


def jitter(box_B4: Tensor, amount: float) -> Tensor:
    """Each side moved by up to ``amount`` of the box's width or height."""
    size = (box_B4[:, 2:] - box_B4[:, :2]).repeat(1, 2)
    return box_B4 + (torch.rand(box_B4.shape, device=box_B4.device) * 2 - 1) * amount * size


def restain(image_BSS3: Tensor, amount: float = 0.2) -> Tensor:
    """Gain per channel and offset per window, up to ``amount``: another stain, another lamp. Float out."""
    shape = (len(image_BSS3), 1, 1, 3)
    gain = 1 + (torch.rand(shape, device=image_BSS3.device) * 2 - 1) * amount
    offset = (torch.rand((shape[0], 1, 1, 1), device=image_BSS3.device) * 2 - 1) * amount * 128
    return (image_BSS3.float() * gain + offset).clamp(0, 255)
