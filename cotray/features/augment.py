"""Augmentation of cells on the device. B images of (3, S, S) in -1..1; black (-1) is background and stays.

Randomness comes from torch's global generator, which the training harness seeds per epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def augment(x_B3SS: Tensor, stain: float = 0.15) -> Tensor:
    """Mirror, quarter turns, and gain and contrast per channel: another slide, another lamp."""
    return restain(turn(x_B3SS), stain)


def turn(x_B3SS: Tensor) -> Tensor:
    """Each image mirrored or not and turned by 0, 90, 180 or 270 degrees."""
    which = torch.randint(8, (len(x_B3SS),), device=x_B3SS.device)
    out = torch.empty_like(x_B3SS)
    for code in range(8):
        chosen = which == code
        turned = torch.rot90(x_B3SS[chosen], code % 4, dims=(2, 3))
        out[chosen] = turned.flip(3) if code >= 4 else turned
    return out


def restain(x_B3SS: Tensor, amount: float) -> Tensor:
    """Gain per channel and gamma per image, up to ``amount``; 0 brightness stays 0."""
    light = ((x_B3SS + 1) / 2).clamp(0, 1)
    shape, device = (len(x_B3SS), 3, 1, 1), x_B3SS.device
    gain = 1 + (torch.rand(shape, device=device) * 2 - 1) * amount
    gamma = 1 + (torch.rand((len(x_B3SS), 1, 1, 1), device=device) * 2 - 1) * amount
    return (light.pow(gamma) * gain).clamp(0, 1) * 2 - 1
