"""LeuGAN's networks (paper, section 3.3, Fig. 4). B cells, Z latent length, S side, F maps."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cotray.config import GanConfig

STEPS = 4
"""Doublings of the side from S/16 to S."""


class Generator(nn.Module):
    """z in (-1, 1)^Z -> dense to F maps of side S/16 -> four transposed convolutions -> tanh."""

    def __init__(self, cfg: GanConfig) -> None:
        super().__init__()
        self.latent, self.side = cfg.latent, cfg.image_size // 2**STEPS
        self.dense = nn.Linear(cfg.latent, cfg.channels * self.side**2)
        widths = [cfg.channels // 2**i for i in range(STEPS)]
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            layers += [_double(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.up = nn.Sequential(*layers, _double(widths[-1], 3), nn.Tanh())

    def forward(self, z_BZ: Tensor) -> Tensor:
        """(B, Z) -> images (B, 3, S, S) in -1..1."""
        out: Tensor = self.up(self.dense(z_BZ).view(len(z_BZ), -1, self.side, self.side))
        return out

    def draw_latent(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Uniform z: (n, Z)."""
        return torch.rand((n, self.latent), device=device, generator=generator) * 2 - 1


class Discriminator(nn.Module):
    """Four stride-2 convolutions -> one logit; Eq. 1 is its sigmoid."""

    def __init__(self, cfg: GanConfig) -> None:
        super().__init__()
        widths = [cfg.channels // 2**i for i in reversed(range(STEPS))]
        layers: list[nn.Module] = []
        for place, (inputs, outputs) in enumerate(pairwise([3, *widths])):
            conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            # Spectral norm stands in for batch norm; the two together fight each other.
            norm = [nn.BatchNorm2d(outputs)] if place and not cfg.spectral_norm else []
            layers += [spectral_norm(conv) if cfg.spectral_norm else conv, *norm, nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*layers)
        head = nn.Linear(cfg.channels * (cfg.image_size // 2**STEPS) ** 2, 1)
        self.head = spectral_norm(head) if cfg.spectral_norm else head

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Images in -1..1 -> logits of being real (B,)."""
        out: Tensor = self.head(self.down(x_B3SS).flatten(1))[:, 0]
        return out


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def init_weights(net: nn.Module) -> None:
    """Normal(0, 0.02) for convolutions and dense layers (Radford et al. 2016), in place."""
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
