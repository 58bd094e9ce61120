"""`vit_*` in small, for the tests of what is frozen: a genuine SAM's shapes at 32 wide, 2 deep."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from cotray.config import SegmentConfig, TrainConfig
from cotray.learning import Batch
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.leusam import LeuSam, build_leusam, build_sam

SIDE = 64
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "window_size": 14}
FROZEN = SegmentConfig(
    variant="vit_b", image_size=SIDE, points=0.5, train=TrainConfig(epochs=4, batch_size=8, lr=1e-3)
)
TINY = SegmentConfig(
    image_size=SIDE, embed_dim=16, depth=1, heads=2, prompt_dim=16, train=TrainConfig(epochs=4, batch_size=8)
)


def small_sam(cfg: SegmentConfig) -> LeuSam:
    """A SAM to fine-tune, its weights as if from a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return build_sam(cfg, SMALL, width=64, mlp=64)


def frozen_learner(seed: int = 0, cfg: SegmentConfig = FROZEN) -> LeuSamLearner:
    """What ``build_leusam_learner`` gives for a small checkpoint."""
    return LeuSamLearner(cfg, seed, None, small_sam)


class MortalLearner(LeuSamLearner):
    """Kills its process once, at a step."""

    def __init__(self, cfg: SegmentConfig, die_at_step: int, marker: str) -> None:
        super().__init__(cfg, 5, None, build_leusam if cfg.variant == "tiny" else small_sam)
        self.die_at_step, self.marker = die_at_step, marker

    def train_step(self, batch: Batch) -> dict[str, float]:
        if self.marker and self.step == self.die_at_step and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_step(batch)
