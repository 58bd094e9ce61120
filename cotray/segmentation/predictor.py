"""LeuSAM behind a numpy API: an image and boxes in, masks out. H W pixels, N boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.imaging.masks import clean_mask
from cotray.segmentation.leusam import LeuSam
from cotray.segmentation.windows import Window, cut_window, paste_mask, to_window, window_of

Box = Sequence[int]


class CellSegmenter:
    """Segments the cell in each box of an image."""

    def __init__(self, model: LeuSam, cfg: SegmentConfig, device: str = "cpu", batch: int = 16) -> None:
        self.model = model.eval().to(device)
        self.cfg, self.device, self.batch = cfg, torch.device(device), batch

    @torch.no_grad()
    def segment(
        self, rgb: NDArray[np.uint8], boxes: Sequence[Box]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Masks (N, H, W) bool, one connected piece each without holes, and predicted IoU (N,) float32.

        ``rgb`` is (H, W, 3) uint8; boxes are (x0, y0, x1, y1) in pixels. A mask may be empty.
        """
        shape = (rgb.shape[0], rgb.shape[1])
        windows = [window_of(box, rgb.shape, self.cfg) for box in boxes]
        # All boxes of one image share their window when it is the whole image: embed it once.
        shared = self._embed(rgb, windows[:1]) if self.cfg.window == "image" and windows else None
        masks, scores = [np.zeros((0, *shape), bool)], [np.zeros(0, np.float32)]
        for start in range(0, len(boxes), self.batch):
            part = slice(start, start + self.batch)
            size = len(windows[part])
            embedding = self._embed(rgb, windows[part]) if shared is None else shared.expand(size, -1, -1, -1)
            logits, quality = self.model.decode(embedding, self._place(boxes[part], windows[part]))
            pasted = zip(logits.cpu().numpy(), windows[part], strict=True)
            masks.append(np.stack([clean_mask(paste_mask(one, window, shape)) for one, window in pasted]))
            scores.append(quality.clamp(0, 1).cpu().numpy())
        return np.concatenate(masks), np.concatenate(scores)

    def _embed(self, rgb: NDArray[np.uint8], windows: Sequence[Window]) -> Tensor:
        images = np.stack([cut_window(rgb, window, self.cfg.image_size) for window in windows])
        return self.model.embed(torch.from_numpy(images).to(self.device))

    def _place(self, boxes: Sequence[Box], windows: Sequence[Window]) -> Tensor:
        pairs = zip(boxes, windows, strict=True)
        placed = [to_window(box, window, self.cfg.image_size) for box, window in pairs]
        return torch.from_numpy(np.stack(placed)).to(self.device)
