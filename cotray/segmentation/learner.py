"""Training LeuSAM: Dice + focal loss on masks; boxes jittered, points drawn, windows turned and re-stained.

Shapes: B windows, S side of a window, C T channels and side of an embedding, M side of the mask logits, K
candidate masks, P points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.learning import Batch, Learner, Scalars, unwrap
from cotray.segmentation.checkpoint import load_sam_checkpoint
from cotray.segmentation.leusam import LeuSam, Points, best, build_leusam, draw_prompts
from cotray.segmentation.lora import add_lora, merge_lora
from cotray.segmentation.losses import dice_loss, focal_loss, mask_iou
from cotray.segmentation.windows import training_windows

__all__ = ["LeuSamLearner", "training_windows"]

FOCAL_WEIGHT = 5.0
"""Focal against Dice loss (SAM's own ratio is 20; its masks are of any size, ours fill a window)."""
QUALITY_WEIGHT = 0.1
"""Weight of the predicted IoU's squared error."""


class LeuSamLearner(Learner):
    """Batches: mask (B, S, S) 0/1, box (B, 4) float32, and image (B, S, S, 3) uint8 or, where the encoder is
    frozen and has seen the windows already, embedding (B, C, T, T) float16.

    Embedded windows are neither turned nor re-stained: the embedding would be another.
    """

    monitor = "val_iou"
    monitor_mode = "max"
    cpu_bf16 = False  # `tiny` gains nothing for certain (docs/benchmarks.md); larger ones are not measured

    def __init__(
        self,
        cfg: SegmentConfig,
        seed: int,
        checkpoint: Mapping[str, Tensor] | None = None,
        build: Callable[[SegmentConfig], LeuSam] = build_leusam,
    ) -> None:
        """``checkpoint``: a SAM's tensors to start from. Raises WeightsError where they do not fit."""
        super().__init__()
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(cfg)
            if checkpoint is not None:
                load_sam_checkpoint(model, checkpoint)
            if cfg.lora_rank:
                add_lora(model.image_encoder, cfg.lora_rank)
        self.nets = {"leusam": model}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW over what is not frozen."""
        trained = [p for p in self.nets["leusam"].parameters() if p.requires_grad]
        train = self.cfg.train
        return {"leusam": torch.optim.AdamW(trained, lr=train.lr, weight_decay=train.weight_decay)}

    def saved(self, name: str) -> set[str]:
        """What was trained; a frozen encoder comes from its checkpoint again."""
        model = unwrap(self.nets[name])
        frozen = isinstance(model, LeuSam) and model.frozen
        return {k for k, p in model.named_parameters() if p.requires_grad} if frozen else super().saved(name)

    def whole(self) -> dict[str, Tensor]:
        """All weights under their plain names, adapters merged. Ends training."""
        model = unwrap(self.nets["leusam"])
        merge_lora(model)
        return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}

    def train_step(self, batch: Batch) -> Scalars:
        """One step; scalars loss, iou."""
        mask, box = batch["mask"].to(self.device), batch["box"].to(self.device)
        image, embedding = None, None
        if "embedding" in batch:
            embedding = batch["embedding"].to(self.device).float()
        else:
            image, mask, box = turn(batch["image"].to(self.device), mask, box)
            image = restain(image)
        side = self.cfg.image_size // 4
        target = F.adaptive_avg_pool2d(mask.float()[:, None], side)[:, 0]
        points = draw_points(target, box, self.cfg.points, self.cfg.image_size)
        box = jitter(box, self.cfg.jitter)
        logits, quality = self.nets["leusam"](image, box, points, embedding)
        loss, iou = mask_losses(logits, quality, target)
        self.minimise("leusam", loss, self.cfg.train.grad_clip)
        return {"loss": loss.detach(), "iou": iou.mean()}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per window: iou at full size, loss."""
        mask, box = batch["mask"].to(self.device), batch["box"].to(self.device)
        image = batch["image"].to(self.device) if "image" in batch else None
        embedding = batch["embedding"].to(self.device).float() if "embedding" in batch else None
        logits, _ = best(*self.nets["leusam"](image, box, None, embedding))
        full = F.interpolate(logits[:, None], mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        target = mask.float()
        loss = dice_loss(full, target) + FOCAL_WEIGHT * focal_loss(full, target)
        return {"iou": mask_iou(full, target).cpu(), "loss": loss.cpu()}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_iou, val_loss."""
        return {"val_iou": float(outputs["iou"].mean()), "val_loss": float(outputs["loss"].mean())}


def mask_losses(logits_BKMM: Tensor, quality_BK: Tensor, target_BMM: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, IoU (B,) of the candidate that would be chosen).

    SAM's rule (Kirillov et al. 2023, section 3): of several candidates only the best one's loss is
    followed, so that they may specialise; the predicted IoU of all of them is corrected.
    """
    count = logits_BKMM.shape[1]
    logits, target = logits_BKMM.flatten(0, 1), target_BMM.repeat_interleave(count, dim=0)
    loss_BK = (dice_loss(logits, target) + FOCAL_WEIGHT * focal_loss(logits, target)).view(-1, count)
    iou_BK = mask_iou(logits.detach(), target).view(-1, count)
    loss = loss_BK.amin(dim=1).mean() + QUALITY_WEIGHT * F.mse_loss(quality_BK, iou_BK)
    return loss, iou_BK.gather(1, quality_BK.argmax(dim=1, keepdim=True))[:, 0]


# ---- augmentation; randomness from torch's global generator, as Learner asks ---------------------------


def turn(image: Tensor, mask: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each window mirrored or not and turned by quarters, its mask and box with it."""
    size = image.shape[1]
    turns, mirrors = torch.randint(4, (len(image),)).tolist(), torch.randint(2, (len(image),)).tolist()
    rows = zip(image, mask, box, turns, mirrors, strict=True)
    items = [_turn_one(i, m, b, quarters, bool(mirror), size) for i, m, b, quarters, mirror in rows]
    images, masks, boxes = zip(*items, strict=True)
    return torch.stack(images), torch.stack(masks), torch.stack(boxes)


def turned_copies(windows: Mapping[str, NDArray[Any]], count: int) -> dict[str, NDArray[Any]]:
    """All windows as they are and ``count`` - 1 times more, turned and mirrored: image, mask and box."""
    out: dict[str, list[NDArray[Any]]] = {key: [windows[key]] for key in ("image", "mask", "box")}
    tensors = [torch.from_numpy(windows[key]) for key in out]
    for copy in range(1, count):
        rows = zip(*tensors, strict=True)
        turned = [_turn_one(i, m, b, copy % 4, copy >= 4, tensors[0].shape[1]) for i, m, b in rows]
        for stack, values in zip(out.values(), zip(*turned, strict=True), strict=True):
            stack.append(torch.stack(values).numpy())
    return {key: np.concatenate(stack) for key, stack in out.items()}


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


def draw_points(target_BMM: Tensor, box_B4: Tensor, share: float, size: int) -> Points | None:
    """In ``share`` of the calls one or two points per window, on the cell (1) or beside it (0), else None.

    Those beside it lie in its box, mostly: there they say something that the box does not.
    ``target_BMM`` is the share of the mask in each low-resolution pixel, ``size`` the window's side.
    """
    if float(torch.rand(())) >= share:
        return None
    side = target_BMM.shape[-1]
    inside = (target_BMM > 0.5).flatten(1)
    in_box = (draw_prompts(box_B4, None, side) > 0).flatten(1)
    label_BP = torch.randint(2, (len(inside), int(torch.randint(1, 3, ()))), device=inside.device)
    some = inside.any(dim=1, keepdim=True)
    label_BP = torch.where(some & ~inside.all(dim=1, keepdim=True), label_BP, some.long())
    beside = ~inside * torch.where(in_box, 1.0, 0.1)
    chance = torch.where(label_BP[..., None] == 1, inside.float()[:, None], beside[:, None])
    place = torch.multinomial(chance.flatten(0, 1), 1).view(label_BP.shape)
    middle = torch.stack([place % side, place // side], dim=-1).float() + 0.5
    return middle * (size / side) - 0.5, label_BP
