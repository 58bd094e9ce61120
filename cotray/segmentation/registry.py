"""Every segmenter by name: what `segment.model` chooses from.

A segmenter answers `segment(rgb, boxes) -> (masks, scores)`; how it learned to is its own business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cotray.config import SegmentConfig
from cotray.learning import Learner
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.leusam import build_leusam
from cotray.segmentation.otsu import OtsuSegmenter
from cotray.segmentation.predictor import CellSegmenter
from cotray.segmentation.rivals import RivalLearner, UNetSegmenter, build_unet, build_unetpp


class Segmenter(Protocol):
    """Finds the cell in each box of an image."""

    def segment(
        self, rgb: NDArray[np.uint8], boxes: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(H, W, 3) uint8 and N boxes (x0, y0, x1, y1) -> masks (N, H, W) bool, scores (N,) float32 0..1."""


@dataclass(frozen=True)
class Kind:
    """How to train one kind of segmenter, and how to ask it."""

    title: str
    build_learner: Callable[[SegmentConfig, int], Learner] | None
    """From settings and a seed; its one network bears the segmenter's name. None: nothing to train."""
    build_net: Callable[[SegmentConfig], nn.Module] | None
    """The network whose weights the learner gives."""
    build_segmenter: Callable[[Any, SegmentConfig, str], Segmenter]
    """From that network with its weights (None where there is none), settings and the device."""


SEGMENTERS: dict[str, Kind] = {
    "leusam": Kind("LeuSAM", LeuSamLearner, build_leusam, CellSegmenter),
    "unet": Kind("UNet", RivalLearner, build_unet, UNetSegmenter),
    "unetpp": Kind("UNet++", RivalLearner, build_unetpp, UNetSegmenter),
    "otsu": Kind("Otsu and watershed", None, None, lambda net, cfg, device: OtsuSegmenter()),
}
