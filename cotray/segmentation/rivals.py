"""LeuSAM's rivals of the ablation: UNet and UNet++, MONAI's.

They answer the same question as LeuSAM, from the same windows: which pixels are the cell in this box? They
see the box as a fourth channel, learn with the same augmentation and losses, and are asked through the same
`segment(rgb, boxes)`.

Shapes: B windows, S side of a window, M = S / unet_stride side of mask logits, H W pixels, N boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cotray.config import SegmentConfig
from cotray.imaging.masks import clean_mask
from cotray.learning import Batch, Learner, Scalars
from cotray.segmentation.learner import FOCAL_WEIGHT, jitter, restain, turn
from cotray.segmentation.leusam import PIXEL_MEAN, PIXEL_STD
from cotray.segmentation.losses import dice_loss, focal_loss, mask_iou
from cotray.segmentation.windows import Window, cut_window, paste_mask, to_window, window_of

Rgb = NDArray[np.uint8]
Found = tuple[NDArray[np.bool_], NDArray[np.float32]]
WIDTHS = (1, 1, 2, 4, 8, 1)
"""MONAI's own proportions of its six feature widths (32, 32, 64, 128, 256, 32)."""
NORM = ("group", {"num_groups": 4})
"""Knows nothing of other windows, and takes half the time of MONAI's own (instance) on a CPU."""


# ---- networks --------------------------------------------------------------------------------------


class BoxUNet(nn.Module):
    """A convolutional network over a window and its box, at 1 / ``stride`` of the window's resolution."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, net: nn.Module, stride: int) -> None:
        super().__init__()
        self.net, self.stride = net, stride
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, image_BSS3: Tensor, box_B4: Tensor) -> Tensor:
        """Windows (B, S, S, 3) in 0..255, boxes in window pixels -> mask logits (B, M, M)."""
        x_B3SS = (image_BSS3.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        x_B3MM = F.avg_pool2d(x_B3SS, self.stride)
        x_B4MM = torch.cat([x_B3MM, box_plane(box_B4 / self.stride, x_B3MM.shape[-1])], dim=1)
        out = self.net(x_B4MM)
        logits_B1MM: Tensor = out[-1] if isinstance(out, list) else out  # UNet++ answers with a list
        return logits_B1MM[:, 0]


def box_plane(box_B4: Tensor, side: int) -> Tensor:
    """(B, 1, side, side): 1 where a pixel's middle is in the box, -1 elsewhere."""
    middle = torch.arange(side, device=box_B4.device) + 0.5
    x0, y0, x1, y1 = (box_B4[:, i, None] for i in range(4))
    wide, high = (middle > x0) & (middle < x1), (middle > y0) & (middle < y1)
    return (high[:, None, :, None] & wide[:, None, None, :]).float() * 2 - 1


def build_unet(cfg: SegmentConfig) -> BoxUNet:
    """MONAI's BasicUNet (Ronneberger et al. 2015) with fresh weights."""
    from monai.networks.nets.basic_unet import BasicUNet  # heavy to import, and only the rivals need it

    widths = [cfg.unet_width * times for times in WIDTHS]
    return BoxUNet(BasicUNet(2, 4, 1, widths, norm=NORM), cfg.unet_stride)


def build_unetpp(cfg: SegmentConfig) -> BoxUNet:
    """MONAI's BasicUNetPlusPlus (Zhou et al. 2018) with fresh weights."""
    from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

    widths = [cfg.unet_width * times for times in WIDTHS]
    net = BasicUNetPlusPlus(2, 4, 1, widths, norm=NORM)
    for head in (net.final_conv_0_1, net.final_conv_0_2, net.final_conv_0_3):
        head.requires_grad_(False)  # of deep supervision, not used: DDP would wait for their gradients
    return BoxUNet(net, cfg.unet_stride)


BUILD = {"unet": build_unet, "unetpp": build_unetpp}


# ---- training --------------------------------------------------------------------------------------


class RivalLearner(Learner):
    """Batches as LeuSAM's: image (B, S, S, 3) uint8, mask (B, S, S) 0/1, box (B, 4) float32."""

    monitor = "val_iou"
    monitor_mode = "max"

    def __init__(self, cfg: SegmentConfig, seed: int) -> None:
        super().__init__()
        self.cfg, self.name = cfg, cfg.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = {self.name: BUILD[cfg.model](cfg)}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW, as for LeuSAM."""
        train = self.cfg.train
        parameters = [p for p in self.nets[self.name].parameters() if p.requires_grad]
        return {self.name: torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)}

    def train_step(self, batch: Batch) -> Scalars:
        """One step; scalars loss, iou."""
        image, mask, box = (batch[key].to(self.device) for key in ("image", "mask", "box"))
        image, mask, box = turn(image, mask, box)
        logits_BMM = self.nets[self.name](restain(image), jitter(box, self.cfg.jitter))
        target = F.adaptive_avg_pool2d(mask.float()[:, None], logits_BMM.shape[-2:])[:, 0]
        loss = (dice_loss(logits_BMM, target) + FOCAL_WEIGHT * focal_loss(logits_BMM, target)).mean()
        self.minimise(self.name, loss, self.cfg.train.grad_clip)
        iou = mask_iou(logits_BMM.detach(), target)
        return {"loss": loss.detach(), "iou": iou.mean()}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per window: iou at full size, loss."""
        image, mask, box = (batch[key].to(self.device) for key in ("image", "mask", "box"))
        logits = self.nets[self.name](image, box)
        full = F.interpolate(logits[:, None], mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        target = mask.float()
        loss = dice_loss(full, target) + FOCAL_WEIGHT * focal_loss(full, target)
        return {"iou": mask_iou(full, target).cpu(), "loss": loss.cpu()}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_iou, val_loss."""
        return {"val_iou": float(outputs["iou"].mean()), "val_loss": float(outputs["loss"].mean())}


# ---- asking ----------------------------------------------------------------------------------------


class UNetSegmenter:
    """A trained rival behind the numpy API."""

    def __init__(self, net: nn.Module, cfg: SegmentConfig, device: str = "cpu", batch: int = 16) -> None:
        self.net = net.eval().to(device)
        self.cfg, self.device, self.batch = cfg, torch.device(device), batch

    @torch.no_grad()
    def segment(self, rgb: Rgb, boxes: Sequence[Sequence[int]]) -> Found:
        """Masks (N, H, W) bool, one piece each without holes, and their expected IoU (N,) float32.

        ``rgb`` is (H, W, 3) uint8; boxes are (x0, y0, x1, y1) in pixels. A mask may be empty.
        """
        shape = (rgb.shape[0], rgb.shape[1])
        windows = [window_of(box, rgb.shape, self.cfg) for box in boxes]
        masks, scores = [np.zeros((0, *shape), bool)], [np.zeros(0, np.float32)]
        for start in range(0, len(boxes), self.batch):
            part = slice(start, start + self.batch)
            logits = self._logits(rgb, boxes[part], windows[part])
            pasted = zip(logits.cpu().numpy(), windows[part], strict=True)
            masks.append(np.stack([clean_mask(paste_mask(one, window, shape)) for one, window in pasted]))
            scores.append(expected_iou(logits).cpu().numpy())
        return np.concatenate(masks), np.concatenate(scores)

    def _logits(self, rgb: Rgb, boxes: Sequence[Sequence[int]], windows: Sequence[Window]) -> Tensor:
        size = self.cfg.image_size
        images = np.stack([cut_window(rgb, window, size) for window in windows])
        placed = np.stack([to_window(b, window, size) for b, window in zip(boxes, windows, strict=True)])
        logits: Tensor = self.net(
            torch.from_numpy(images).to(self.device), torch.from_numpy(placed).to(self.device)
        )
        return logits


def expected_iou(logits_BMM: Tensor) -> Tensor:
    """IoU that a thresholded mask has if every pixel's probability is right: (B,) in 0..1; 0 when empty.

    Focal loss keeps probabilities soft, so that this is too low; it ranks masks.
    """
    prob, mask = logits_BMM.sigmoid(), (logits_BMM > 0).float()
    union = torch.maximum(prob, mask).sum(dim=(1, 2))
    return (prob * mask).sum(dim=(1, 2)) / union.clamp(min=1e-6)
