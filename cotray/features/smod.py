"""SMod: five spatial feature learning (SFL) blocks (paper, Eq. 9). B images, C channels, H W pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from cotray.config import SmodConfig


def sfl_block(inputs: int, filters: int, cfg: SmodConfig) -> nn.Sequential:
    """One block, halving the side. `eq9`: conv, BN, ReLU, pool; `alg1`: pool, conv, BN; then dropout."""
    conv = nn.Conv2d(inputs, filters, 3, padding=1)
    norm, pool = nn.BatchNorm2d(filters), nn.MaxPool2d(2, 2)
    layers = [conv, norm, nn.ReLU(), pool] if cfg.order == "eq9" else [pool, conv, norm]
    return nn.Sequential(*layers, nn.Dropout(cfg.dropout))


class SMod(nn.Module):
    """(B, C, H, W) -> (B, filters[-1] * H/32 * W/32), flattened."""

    def __init__(self, cfg: SmodConfig, channels: int = 3) -> None:
        super().__init__()
        widths = (channels, *cfg.filters)
        self.blocks = nn.Sequential(*(sfl_block(a, b, cfg) for a, b in pairwise(widths)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Spatial features, flattened."""
        out: Tensor = self.blocks(x_BCHW).flatten(1)
        return out
