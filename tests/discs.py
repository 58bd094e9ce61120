"""What tests of segmenters share: windows with a disc in them, and a few steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.imaging.masks import mask_box
from cotray.learning import Learner
from cotray.segmentation.windows import training_windows

Some = TypeVar("Some", bound=Learner)


def discs(n: int, seed: int, cfg: SegmentConfig) -> dict[str, NDArray[np.generic]]:
    """Windows with a violet disc on pink, its mask and its box."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:110, :110]
    items = []
    for _ in range(n):
        (cx, cy), r = rng.integers(40, 70, 2), rng.integers(12, 30)
        mask = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        rgb = np.where(mask[..., None], [110, 60, 150], [230, 190, 200]) + rng.normal(0, 12, (110, 110, 3))
        box = mask_box(mask)
        assert box is not None
        items.append(training_windows(rgb.clip(0, 255).astype(np.uint8), mask, box, cfg))
    return {key: np.stack([item[key] for item in items]) for key in items[0]}


def tensors(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(values) for key, values in arrays.items()}


def ready(learner: Some, steps: int) -> Some:
    """The learner, prepared on the CPU and set to train."""
    learner.prepare(torch.device("cpu"), lambda net: net, steps)
    learner.set_train(True)
    return learner


def train(learner: Learner, batch: Mapping[str, Tensor], steps: int) -> list[dict[str, float]]:
    """Steps on one batch, each with a seed of its own; what each said."""
    rows = []
    for step in range(steps):
        torch.manual_seed(step)
        learner.schedule()
        rows.append(learner.train_step(batch))
    return rows
