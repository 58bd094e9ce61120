"""Drawing synthetic cells from a trained generator. n cells, S side."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cotray.synthesis.leugan import Generator

BATCH = 64


@torch.no_grad()
def synthesize(generator: Generator, n: int, seed: int) -> NDArray[np.uint8]:
    """(n, S, S, 3) uint8; the same seed gives the same cells. ``generator`` should be in eval mode.

    More cells are more of the same row: the first k of n are the k that would be drawn alone, exactly
    where k is a multiple of BATCH, else up to one grey level (a batch of another size rounds otherwise).
    """
    side = generator.side * 16
    randomness = torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    out = [np.zeros((0, side, side, 3), np.uint8)]
    for start in range(0, n, BATCH):
        latent = generator.draw_latent(min(BATCH, n - start), torch.device("cpu"), randomness)
        x_B3SS = generator(latent.to(device)).cpu()
        pixels = ((x_B3SS + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        out.append(pixels.permute(0, 2, 3, 1).numpy())
    return np.concatenate(out)
