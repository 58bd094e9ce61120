"""LeuSAM behind a numpy API: an image and boxes (and points) in, masks out.

Shapes: H W pixels, N boxes, B those of a batch, P points per box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.imaging.masks import clean_mask
from cotray.segmentation.leusam import Embedded, LeuSam, Points
from cotray.segmentation.windows import Window, cut_window, paste_mask, to_window, window_of

Box = Sequence[int]
Point = Sequence[float]
"""x, y in pixels of the image, label: 1 on the cell, 0 beside it."""


class CellSegmenter:
    """Segments the cell in each box of an image."""

    def __init__(self, model: LeuSam, cfg: SegmentConfig, device: str = "cpu", batch: int = 16) -> None:
        self.model = model.eval().to(device)
        self.cfg, self.device, self.batch = cfg, torch.device(device), batch

    @torch.no_grad()
    def segment(
        self, rgb: NDArray[np.uint8], boxes: Sequence[Box], points: Sequence[Sequence[Point]] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Masks (N, H, W) bool, one connected piece each without holes, and predicted IoU (N,) float32.

        ``rgb`` is (H, W, 3) uint8; boxes are (x0, y0, x1, y1) in pixels. ``points`` are, per box, any number
        of (x, y, label): label 1 lies on the cell, 0 does not. A mask may be empty.
        """
        shape = (rgb.shape[0], rgb.shape[1])
        windows = [window_of(box, rgb.shape, self.cfg) for box in boxes]
        points = points if points is not None else [()] * len(boxes)
        # All boxes of one image share their window when it is the whole image: embed it once.
        shared = self._embed(rgb, windows[:1]) if self.cfg.window == "image" and windows else None
        masks, scores = np.zeros((len(boxes), *shape), bool), np.zeros(len(boxes), np.float32)
        for rows in self._batches([len(some) for some in points]):
            places = [windows[row] for row in rows]
            seen = self._embed(rgb, places) if shared is None else shared.expand(len(rows))
            box_B4 = self._boxes([boxes[row] for row in rows], places)
            logits, quality = self.model.decode(seen, box_B4, self._points([points[r] for r in rows], places))
            for row, one in zip(rows, logits.cpu().numpy(), strict=True):
                masks[row] = clean_mask(paste_mask(one, windows[row], shape))
            scores[rows] = quality.clamp(0, 1).cpu().numpy()
        return masks, scores

    def _batches(self, counts: Sequence[int]) -> Iterator[list[int]]:
        """Rows in batches of as many points each: none is padded, no answer hangs on the others."""
        for count in sorted(set(counts)):
            rows = [row for row, own in enumerate(counts) if own == count]
            yield from (rows[start : start + self.batch] for start in range(0, len(rows), self.batch))

    def _embed(self, rgb: NDArray[np.uint8], windows: Sequence[Window]) -> Embedded:
        images = np.stack([cut_window(rgb, window, self.cfg.image_size) for window in windows])
        return self.model.embed(torch.from_numpy(images).to(self.device))

    def _boxes(self, boxes: Sequence[Box], windows: Sequence[Window]) -> Tensor:
        pairs = zip(boxes, windows, strict=True)
        placed = [to_window(box, window, self.cfg.image_size) for box, window in pairs]
        return torch.from_numpy(np.stack(placed)).to(self.device)

    def _points(self, points: Sequence[Sequence[Point]], windows: Sequence[Window]) -> Points | None:
        """As SAM encodes them: pixels of the window (B, P, 2), labels (B, P); None where there are none."""
        given_BP3 = np.asarray(points, np.float32)
        if not given_BP3.size:
            return None
        origin = np.array([[[window.x0, window.y0]] for window in windows], np.float32)
        scale = np.array([[[self.cfg.image_size / window.side]] for window in windows], np.float32)
        placed = torch.from_numpy((given_BP3[..., :2] - origin) * scale)
        return placed.to(self.device), torch.from_numpy(given_BP3[..., 2]).to(self.device)
