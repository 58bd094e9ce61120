"""Losses and agreement of mask logits. B masks, H W pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """1 - soft Dice, per mask: (B,). Smoothed by one pixel, so that an empty mask is defined."""
    prob = logits_BHW.sigmoid()
    both = (prob * target_BHW).sum(dim=(1, 2))
    return 1 - (2 * both + 1) / (prob.sum(dim=(1, 2)) + target_BHW.sum(dim=(1, 2)) + 1)


def focal_loss(logits_BHW: Tensor, target_BHW: Tensor, gamma: float = 2.0) -> Tensor:
    """Binary focal loss (Lin et al. 2017), mean over pixels: (B,). gamma 0 is cross-entropy."""
    entropy = F.binary_cross_entropy_with_logits(logits_BHW, target_BHW, reduction="none")
    prob = logits_BHW.sigmoid()
    miss = prob * (1 - target_BHW) + (1 - prob) * target_BHW
    return (entropy * miss**gamma).mean(dim=(1, 2))


def mask_iou(logits_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """IoU of thresholded logits with binary masks: (B,); two empty masks agree wholly."""
    found, true = logits_BHW > 0, target_BHW > 0.5
    both = (found & true).sum(dim=(1, 2)).float()
    either = (found | true).sum(dim=(1, 2)).float()
    return (both + (either == 0)) / either.clamp(min=1)
