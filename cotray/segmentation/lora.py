"""Low-rank adapters on the attention of a frozen image encoder (LoRA, Hu et al. 2022).

Each block's joint query, key and value map W (3 E, E) becomes W + up @ down, of which only up (3 E, R) and
down (R, E) are trained. E embedding width, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W -> W + up @ down; up starts at zero, so that training starts from W."""

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + self.up @ self.down


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Adapt every block of an image encoder; what was frozen stays so, the adapters are trained."""
    blocks: Any = encoder.blocks
    for block in blocks:
        rows, columns = block.attn.qkv.weight.shape
        parametrize.register_parametrization(block.attn.qkv, "weight", LowRank(rows, columns, rank))


def merge_lora(model: nn.Module) -> None:
    """Adapted weights in place of their parts, under their plain names; without adapters nothing happens."""
    for part in list(model.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
