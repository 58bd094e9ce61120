"""Augmentation of cells on the device, by kornia. B images of (3, S, S) in -1..1.

Black (-1) is background and stays. Randomness comes from torch's global generator, which the training loop
seeds per epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cotray.config import AugmentConfig


class Augment(nn.Module):
    """Mirrors, turns and zooms each image, and changes its light and stain, each by its own draw."""

    def __init__(self, cfg: AugmentConfig) -> None:
        import kornia.augmentation as K  # slow to import

        super().__init__()
        steps: list[nn.Module] = []
        if cfg.flips:
            steps += [K.RandomHorizontalFlip(), K.RandomVerticalFlip()]
        if cfg.rotate or cfg.zoom:
            steps.append(K.RandomAffine(cfg.rotate, scale=(1 - cfg.zoom, 1 + cfg.zoom), p=1.0))
        elif cfg.flips:
            steps.append(K.RandomRotation90(times=(0, 1), p=1.0))  # with the mirrors: all eight symmetries
        if cfg.stain:
            reach = (1 - cfg.stain, 1 + cfg.stain)
            steps.append(K.RandomGamma(reach, (1.0, 1.0), p=1.0))
        if cfg.stain or cfg.hue:
            # A fixed order (brightness, saturation, hue): one that is drawn makes a GPU wait for the draw.
            order = (0, 2, 3) if cfg.hue else (0, 2)
            steps.append(K.ColorJitter(cfg.stain, 0.0, cfg.stain, cfg.hue, p=1.0, order=order))
        self.steps = nn.Sequential(*steps)

    @torch.no_grad()
    def forward(self, x_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) in -1..1 -> the same; the input is left alone."""
        if not len(x_B3SS) or not len(self.steps):
            return x_B3SS
        light = ((x_B3SS.float() + 1) / 2).clamp(0, 1)
        out: Tensor = self.steps(light).clamp(0, 1) * 2 - 1
        return out
