"""Differentiable augmentation of real and synthetic images alike (Zhao et al. 2020).

B images of (3, S, S) in -1..1; black (-1) is the cells' background.
Randomness comes from torch's global generator, which the training harness seeds per epoch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def diff_augment(x_B3SS: Tensor, colour: float = 0.2, shift: float = 0.1) -> Tensor:
    """Gain per image, mirroring, and a shift of up to ``shift`` of the side, all differentiable."""
    return translate(mirror(regain(x_B3SS, colour)), shift)


def regain(x_B3SS: Tensor, amount: float) -> Tensor:
    """Brightness scaled by up to ``amount``, black staying black."""
    gain = 1 + (torch.rand((len(x_B3SS), 1, 1, 1), device=x_B3SS.device) * 2 - 1) * amount
    return (x_B3SS + 1) * gain - 1


def mirror(x_B3SS: Tensor) -> Tensor:
    """Half of the images mirrored."""
    flip = torch.rand((len(x_B3SS), 1, 1, 1), device=x_B3SS.device) < 0.5
    return torch.where(flip, x_B3SS.flip(3), x_B3SS)


def translate(x_B3SS: Tensor, amount: float) -> Tensor:
    """Shifted by whole pixels, black moving in."""
    reach = max(1, round(amount * x_B3SS.shape[-1]))
    padded = F.pad(x_B3SS, [reach] * 4, value=-1.0)
    side = x_B3SS.shape[-1]
    tops = torch.randint(2 * reach + 1, (len(x_B3SS), 2)).tolist()
    return torch.stack([x[:, t : t + side, u : u + side] for x, (t, u) in zip(padded, tops, strict=True)])
